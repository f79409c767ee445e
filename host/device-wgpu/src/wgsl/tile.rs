//! Tile kernels: what the three templates share, and Map, the plainest.
//!
//! A kernel's values fall in two groups. *Outer* ones do not change along the folded axes: an invocation computes them
//! once. *Inner* ones are computed again in each loop over a row that needs them: a row is read again from memory,
//! which costs less than room for its elements would. All stores of elements stand in the last loop, so that an update
//! in place is seen by no other.

use std::ops::Range;

use ops::Op;
use plan::{Affine, Expr, Store, Template, TileKernel, ValueId};

use super::source::{Dispatch, Kernel, element, line};
use super::{address, column, row, scalar};
use crate::memory::Bound;

/// Invocations of a workgroup of a Map.
const INVOCATIONS: usize = 64;

/// The dispatches of a tile kernel; two for rows so long that they are cut into blocks, which ask for scratch.
pub fn print(kernel: &TileKernel, operands: &super::Operands) -> Result<Vec<Dispatch>, String> {
    match kernel.template {
        Template::Map => Ok(vec![map(kernel, &operands.bind(0)?)?]),
        Template::RowReduce { reduced } => row::print(kernel, reduced, operands),
        Template::ColReduce { outer, reduced } => {
            let folded = outer..outer + reduced;
            Ok(vec![column::print(kernel, folded, &operands.bind(0)?)?])
        }
    }
}

fn map(kernel: &TileKernel, bound: &Bound) -> Result<Dispatch, String> {
    let points = kernel.points();
    let view = View::new(kernel, 0..0, bound);
    let mut body = String::new();
    line(&mut body, 1, &format!("let point = work * {INVOCATIONS}u + lane;"));
    let is_ragged = !points.is_multiple_of(INVOCATIONS);
    if is_ragged {
        line(&mut body, 1, &format!("if point < {points}u {{"));
    }
    view.indices(&mut body, 1, "point", 0..kernel.dims.len());
    let needed = view.needed(kernel.stores.iter().map(|store| store.value), |_| false);
    view.values(&mut body, 1, (0..needed.len()).filter(|id| needed[*id]))?;
    kernel.stores.iter().for_each(|store| view.store(&mut body, 1, store));
    if is_ragged {
        line(&mut body, 1, "}");
    }
    let groups = points.div_ceil(INVOCATIONS);
    Kernel { bound, invocations: INVOCATIONS, groups, globals: String::new(), body }.finish()
}

/// A kernel seen by a printer: which axes are folded, and where operands lie.
pub struct View<'k> {
    pub kernel: &'k TileKernel,
    pub folded: Range<usize>,
    pub bound: &'k Bound,
    names: Vec<String>,
    /// Whether a value changes along the folded axes.
    inner: Vec<bool>,
    /// After how many rounds of reductions a value is known.
    rounds: Vec<usize>,
}

impl<'k> View<'k> {
    pub fn new(kernel: &'k TileKernel, folded: Range<usize>, bound: &'k Bound) -> View<'k> {
        let names = address::axes(kernel.dims.len());
        let mut view = View { kernel, folded, bound, names, inner: Vec::new(), rounds: Vec::new() };
        for value in &kernel.values {
            let (inner, round) = match &value.expr {
                Expr::Const(_) => (false, 0),
                Expr::Iota(at) => (view.walks(at), 0),
                Expr::Load { at, gather: None, .. } => (view.walks(at), 0),
                Expr::Load { at, gather: Some(gather), .. } => {
                    (view.walks(at) || view.inner[gather.index], view.rounds[gather.index])
                }
                Expr::Apply { args, .. } => {
                    let round = args.iter().map(|arg| view.rounds[*arg]).max();
                    (args.iter().any(|arg| view.inner[*arg]), round.unwrap_or(0))
                }
                Expr::Reduce { arg, .. } => (false, view.rounds[*arg] + 1),
            };
            view.inner.push(inner);
            view.rounds.push(round);
        }
        view
    }

    /// Whether an address changes along the folded axes.
    fn walks(&self, at: &Affine) -> bool {
        self.folded.clone().any(|axis| at.strides[axis] != 0 && self.kernel.dims[axis] > 1)
    }

    pub fn is_inner(&self, id: ValueId) -> bool {
        self.inner[id]
    }

    pub fn round(&self, id: ValueId) -> usize {
        self.rounds[id]
    }

    /// Whether a store has a place for each element of a row.
    pub fn stores_elements(&self, store: &Store) -> bool {
        self.walks(&store.at)
    }

    /// Reductions by their value, op and argument.
    pub fn reductions(&self) -> Vec<(ValueId, Op, ValueId)> {
        let values = self.kernel.values.iter().enumerate();
        let reduction = |(id, value): (usize, &plan::Value)| match value.expr {
            Expr::Reduce { op, arg } => Some((id, op, arg)),
            _ => None,
        };
        values.filter_map(reduction).collect()
    }

    /// What must be computed for some values, those that are `known` left out.
    pub fn needed(
        &self,
        wanted: impl IntoIterator<Item = ValueId>,
        known: impl Fn(ValueId) -> bool,
    ) -> Vec<bool> {
        let mut needed = vec![false; self.kernel.values.len()];
        wanted.into_iter().filter(|id| !known(*id)).for_each(|id| needed[id] = true);
        for id in (0..needed.len()).rev().filter(|id| !known(*id)) {
            if !needed[id] {
                continue;
            }
            match &self.kernel.values[id].expr {
                Expr::Apply { args, .. } => args.iter().for_each(|arg| needed[*arg] |= !known(*arg)),
                Expr::Reduce { arg, .. } => needed[*arg] |= !known(*arg),
                Expr::Load { gather: Some(gather), .. } => needed[gather.index] |= !known(gather.index),
                Expr::Load { .. } | Expr::Const(_) | Expr::Iota(_) => {}
            }
        }
        needed
    }

    /// Names the index along each axis of a range from their flat index.
    pub fn indices(&self, text: &mut String, depth: usize, flat: &str, axes: Range<usize>) {
        let lines = address::unravel(flat, &self.kernel.dims[axes.clone()], &self.names[axes]);
        lines.iter().for_each(|content| line(text, depth, content));
    }

    /// Computes values, in order.
    pub fn values(
        &self,
        text: &mut String,
        depth: usize,
        ids: impl IntoIterator<Item = ValueId>,
    ) -> Result<(), String> {
        for id in ids {
            let expression = self.expression(id)?;
            line(text, depth, &format!("let v{id} = {expression};"));
        }
        Ok(())
    }

    fn expression(&self, id: ValueId) -> Result<String, String> {
        let value = &self.kernel.values[id];
        let affine = |at: &Affine| address::affine(at, &self.kernel.dims, &self.names);
        Ok(match &value.expr {
            Expr::Const(bits) => scalar::constant(value.dtype, *bits),
            Expr::Iota(at) => match value.dtype {
                ops::DType::F32 => format!("f32(bitcast<i32>({}))", affine(at)),
                dtype => scalar::from_bits(dtype, &affine(at)),
            },
            Expr::Load { binding, at, gather } => {
                let mut index = affine(at);
                if let Some(gather) = gather {
                    let last = gather.limit - 1;
                    index +=
                        &format!(" + u32(clamp(v{}, 0i, {last}i)) * {}u", gather.index, gather.stride as u32);
                }
                scalar::from_bits(value.dtype, &element(self.bound, *binding, &index))
            }
            Expr::Apply { op, args } => {
                let from = self.kernel.values[args[usize::from(*op == Op::Select)]].dtype;
                let names: Vec<String> = args.iter().map(|arg| format!("v{arg}")).collect();
                let expression = scalar::apply(*op, &names, from, value.dtype);
                expression.ok_or_else(|| format!("v{id}: no kernel holds {op} of {from}"))?
            }
            Expr::Reduce { op, .. } => return Err(format!("v{id}: {op} stands where nothing is folded")),
        })
    }

    pub fn store(&self, text: &mut String, depth: usize, store: &Store) {
        let index = address::affine(&store.at, &self.kernel.dims, &self.names);
        let place = element(self.bound, store.binding, &index);
        let dtype = self.kernel.values[store.value].dtype;
        let bits = scalar::to_bits(dtype, &format!("v{}", store.value));
        line(text, depth, &format!("{place} = {bits};"));
    }
}

/// What a fold begins with.
pub fn identity(op: Op) -> &'static str {
    if op == Op::Sum { "0.0f" } else { "float_of(0xff800000u)" }
}

/// One more number folded into a total.
pub fn fold(op: Op, total: &str, x: &str) -> String {
    if op == Op::Sum { format!("{total} + {x}") } else { format!("select({total}, {x}, {x} > {total})") }
}
