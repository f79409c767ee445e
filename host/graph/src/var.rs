//! A builder with operators, so that derivative and decomposition tables read like formulas.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use ops::{DType, Op};

use crate::attributes::DotAxes;
use crate::expand::as_it_is;
use crate::rewrite::inline;
use crate::{Graph, NodeId, ScanOptions, Ty};

/// Shares one graph among the [`Var`]s of an expression. Errors are latched by the graph.
pub struct Builder {
    graph: RefCell<Graph>,
}

/// A node with its builder. Arithmetic needs equal shapes; [`Var::like`] repeats axes of size 1.
#[derive(Clone, Copy)]
pub struct Var<'b> {
    builder: &'b Builder,
    pub id: NodeId,
}

impl Builder {
    /// Lends the graph to `build`; what it emits is in the graph afterwards.
    pub fn with<R>(graph: &mut Graph, build: impl FnOnce(&Builder) -> R) -> R {
        let builder = Builder { graph: RefCell::new(std::mem::take(graph)) };
        let result = build(&builder);
        *graph = builder.graph.into_inner();
        result
    }

    pub fn emit(&self, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> NodeId {
        self.graph.borrow_mut().emit(op, inputs, ints, floats)
    }

    pub fn ty(&self, id: NodeId) -> Ty {
        match id {
            NodeId::POISON => Ty::scalar(DType::F32),
            id => self.graph.borrow().ty(id).clone(),
        }
    }

    pub fn var(&self, id: NodeId) -> Var<'_> {
        Var { builder: self, id }
    }

    pub fn constant(&self, value: f64, ty: &Ty) -> Var<'_> {
        self.var(self.graph.borrow_mut().constant(value, ty.dtype, &ty.dims))
    }

    pub fn iota(&self, axis: usize, dtype: DType, dims: &[usize]) -> Var<'_> {
        let head = [axis as i64, dtype as i64];
        let ints: Vec<i64> = head.into_iter().chain(dims.iter().map(|dim| *dim as i64)).collect();
        self.var(self.emit(Op::Iota, &[], &ints, &[]))
    }

    /// A loop of `length` steps; see [`Graph::open_scan`]. `body` gets the index of the step, the carries and a slice of
    /// each of `xs`, and gives the next carries and the ys; the last carries and the stacked ys are returned.
    pub fn scan<'b>(
        &'b self,
        length: usize,
        carries: &[Var<'b>],
        xs: &[Var<'b>],
        options: ScanOptions,
        body: impl FnOnce(Var<'b>, &[Var<'b>], &[Var<'b>]) -> (Vec<Var<'b>>, Vec<Var<'b>>),
    ) -> (Vec<Var<'b>>, Vec<Var<'b>>) {
        let ids = |vars: &[Var<'b>]| vars.iter().map(|var| var.id).collect::<Vec<NodeId>>();
        let vars = |ids: Vec<NodeId>| ids.into_iter().map(|id| self.var(id)).collect::<Vec<_>>();
        let inside = self.graph.borrow_mut().open_scan(length, &ids(carries), &ids(xs), options);
        let inside = vars(inside);
        let (own, slices) = inside[1..].split_at(carries.len());
        let (next, ys) = body(inside[0], own, slices);
        let mut results = vars(self.graph.borrow_mut().close_region(&ids(&[next, ys].concat())));
        let ys = results.split_off(carries.len().min(results.len()));
        (results, ys)
    }

    pub(crate) fn current_scope(&self) -> String {
        self.graph.borrow().current_scope().to_string()
    }

    /// Emits another graph's outputs, with `arguments` in place of its inputs.
    pub(crate) fn inline(&self, source: &Graph, arguments: &[NodeId]) -> Vec<NodeId> {
        inline(&mut self.graph.borrow_mut(), source, arguments, as_it_is)
    }

    /// Takes over another graph's errors, for want of `count` outputs.
    pub(crate) fn failed(&self, source: &Graph, count: usize) -> Vec<NodeId> {
        self.graph.borrow_mut().errors.extend(source.errors.iter().cloned());
        vec![NodeId::POISON; count]
    }

    pub fn concat<'b>(&'b self, parts: &[Var<'b>], axis: usize) -> Var<'b> {
        let ids: Vec<NodeId> = parts.iter().map(|part| part.id).collect();
        self.var(self.emit(Op::Concat, &ids, &[axis as i64], &[]))
    }
}

impl<'b> Var<'b> {
    pub fn builder(self) -> &'b Builder {
        self.builder
    }

    pub fn ty(self) -> Ty {
        self.builder.ty(self.id)
    }

    pub fn dims(self) -> Vec<usize> {
        self.ty().dims
    }

    pub fn rank(self) -> usize {
        self.ty().rank()
    }

    fn apply(self, op: Op, others: &[Var<'b>], ints: &[i64], floats: &[f64]) -> Var<'b> {
        let inputs: Vec<NodeId> = std::iter::once(self.id).chain(others.iter().map(|var| var.id)).collect();
        self.builder.var(self.builder.emit(op, &inputs, ints, floats))
    }

    pub fn unary(self, op: Op) -> Var<'b> {
        self.apply(op, &[], &[], &[])
    }

    pub fn binary(self, op: Op, other: Var<'b>) -> Var<'b> {
        self.apply(op, &[other], &[], &[])
    }

    /// A constant of this variable's type.
    pub fn constant(self, value: f64) -> Var<'b> {
        self.builder.constant(value, &self.ty())
    }

    pub fn scale(self, factor: f64) -> Var<'b> {
        self * self.constant(factor)
    }

    pub fn plus(self, term: f64) -> Var<'b> {
        self + self.constant(term)
    }

    /// Where this (bool) holds `yes`, else `no`.
    pub fn select(self, yes: Var<'b>, no: Var<'b>) -> Var<'b> {
        self.apply(Op::Select, &[yes, no], &[], &[])
    }

    pub fn reshape(self, dims: &[usize]) -> Var<'b> {
        self.apply(Op::Reshape, &[], &ints(dims), &[])
    }

    pub fn permute(self, axes: &[usize]) -> Var<'b> {
        self.apply(Op::Permute, &[], &ints(axes), &[])
    }

    pub fn broadcast(self, dims: &[usize]) -> Var<'b> {
        self.apply(Op::Broadcast, &[], &ints(dims), &[])
    }

    /// Repeats this to the shape of `other`, adding leading axes where ranks differ.
    pub fn like(self, other: Var<'b>) -> Var<'b> {
        let dims = other.dims();
        let mut own = vec![1; dims.len().saturating_sub(self.rank())];
        own.extend(self.dims());
        self.reshape(&own).broadcast(&dims)
    }

    /// (start, length) per axis.
    pub fn slice(self, ranges: &[(usize, usize)]) -> Var<'b> {
        self.apply(Op::Slice, &[], &flat(ranges), &[])
    }

    /// (before, after) zeros per axis.
    pub fn pad(self, margins: &[(usize, usize)]) -> Var<'b> {
        self.apply(Op::Pad, &[], &flat(margins), &[0.0])
    }

    pub fn sum(self, axes: &[usize]) -> Var<'b> {
        self.apply(Op::Sum, &[], &ints(axes), &[])
    }

    pub fn max(self, axes: &[usize]) -> Var<'b> {
        self.apply(Op::ReduceMax, &[], &ints(axes), &[])
    }

    /// Mean over the last axis, which stays with size 1.
    pub fn mean_last(self) -> Var<'b> {
        let last = self.rank() - 1;
        self.sum(&[last]).scale(1.0 / self.dims()[last] as f64)
    }

    pub fn cast(self, dtype: DType) -> Var<'b> {
        self.apply(Op::Cast, &[], &[dtype as i64], &[])
    }

    /// The same 32 bits read as another type.
    pub fn bitcast(self, dtype: DType) -> Var<'b> {
        self.apply(Op::Bitcast, &[], &[dtype as i64], &[])
    }

    pub fn dot(self, other: Var<'b>, axes: &DotAxes, alpha: f64) -> Var<'b> {
        let encoded = DotAxes::encode((&axes.batch.0, &axes.batch.1), (&axes.contract.0, &axes.contract.1));
        self.apply(Op::Dot, &[other], &encoded, &[alpha])
    }
}

fn ints(values: &[usize]) -> Vec<i64> {
    values.iter().map(|value| *value as i64).collect()
}

fn flat(pairs: &[(usize, usize)]) -> Vec<i64> {
    pairs.iter().flat_map(|pair| [pair.0 as i64, pair.1 as i64]).collect()
}

macro_rules! operator {
    ($($trait:ident $method:ident $op:ident)*) => {$(
        impl<'b> $trait for Var<'b> {
            type Output = Var<'b>;
            fn $method(self, other: Var<'b>) -> Var<'b> { self.binary(Op::$op, other) }
        }
    )*};
}

operator! { Add add Add  Sub sub Sub  Mul mul Mul  Div div Div }

impl<'b> Neg for Var<'b> {
    type Output = Var<'b>;
    fn neg(self) -> Var<'b> {
        self.unary(Op::Neg)
    }
}
