//! The derivative of a Scan: a Scan the other way.
//!
//! The body is differentiated once. Values of it that the derivative reads (residuals) become further ys of the
//! forward Scan, so the derivative only computes cotangents. Policies change nothing here: under `recompute` the
//! compiler computes residuals again where they are read, instead of keeping them. Arithmetic and its order are those
//! of the unrolled loop, whatever the policy and however often a derivative is taken.
//!
//! Which carries need a cotangent is found by fixpoint: those that depend on what is wanted and that the loss depends
//! on. Cotangents of consts go on from the sums found so far.

use std::sync::Arc;

use ops::Op;

use super::residual::{self, Part};
use super::{Change, Found, backward, inputs_reached, reachable};
use crate::attributes::ScanShape;
use crate::extract::{Boundary, extract};
use crate::{Builder, Graph, GraphError, NodeId, ScanOptions, Ty, Var};

/// Changes of the operands' cotangents by those of the results; `wanted` says which operands' are asked for.
pub fn changes(
    graph: &mut Graph,
    id: NodeId,
    cts: &[Option<NodeId>],
    wanted: &[bool],
    found: &Found,
) -> Result<Vec<Change>, Vec<GraphError>> {
    let places = Places::new(graph, id);
    let needs = Needs::find(&places, cts, wanted)?;
    let pulled = Pulled::new(&places, &needs)?;
    let part =
        Part { graph: &pulled.wider, old: places.body.nodes.len() as u32, held: &pulled.held(&places) };
    let residuals = part.residuals(&pulled.results);
    let is_read = part.reads(&pulled.results);
    let reads = |index: &usize| places.inputs[*index].is_some_and(&is_read);
    let read_consts: Vec<usize> = (places.first_const()..places.first_carry()).filter(reads).collect();
    let read_xs: Vec<usize> = (places.first_x()..places.inputs.len()).filter(reads).collect();

    let bound = |id: NodeId| Boundary::of(&pulled.wider, id, "cotangent");
    let own = |index: &usize| bound(places.input(*index));
    let ty = places.body.inputs[0].ty.clone();
    let boundary: Vec<Boundary> =
        std::iter::once(Boundary { node: places.inputs[0], ty, name: "iteration".into() })
            .chain(read_consts.iter().map(own))
            .chain(pulled.of_carries.iter().chain(&pulled.sums).map(|(_, ct)| bound(*ct)))
            .chain(residuals.iter().map(|id| bound(*id)))
            .chain(read_xs.iter().map(own))
            .chain(pulled.of_ys.iter().map(|(_, ct)| bound(*ct)))
            .collect();
    let derivative = extract(&pulled.wider, &boundary, &pulled.results);

    let stacked = residual::widen(graph, id, &pulled.wider, &residuals, places.shape.carries);
    let mut operands: Vec<NodeId> = read_consts.iter().map(|index| places.operand(*index)).collect();
    operands.extend(starts(graph, &places, &needs, cts, found));
    operands.extend(&stacked);
    operands.extend(read_xs.iter().map(|index| places.operand(*index)));
    for y in &needs.ys {
        let Some(ct) = cts[places.shape.carries + y] else { continue };
        let is_carried = needs.carried_as(&places, *y).is_some();
        operands.push(if is_carried { before(graph, ct, places.shape.options.reverse) } else { ct });
    }
    let shape = ScanShape {
        body: graph.bodies.len(),
        length: places.shape.length,
        carries: needs.carries.len() + needs.consts.len(),
        xs: stacked.len() + read_xs.len() + needs.ys.len(),
        options: ScanOptions { reverse: !places.shape.options.reverse, ..places.shape.options },
        residuals: 0,
    };
    graph.bodies.push(Arc::new(derivative));
    let scan = graph.emit(Op::Scan, &operands, &shape.encode(), &[]);
    let of_inputs = needs.inputs(&places);
    let results = of_inputs.iter().enumerate().map(|(result, index)| {
        let ct = graph.emit(Op::Result, &[scan], &[result as i64], &[]);
        match *index < places.first_carry() {
            true => Change::Replace(places.operand(*index), ct),
            false => Change::Add(places.operand(*index), ct),
        }
    });
    let (totals, added): (Vec<Change>, Vec<Change>) =
        results.partition(|change| matches!(change, Change::Replace(..)));
    Ok(totals.into_iter().chain(added).collect())
}

/// What the derivative's carries begin with: cotangents of the last carries, and sums for consts so far.
fn starts(
    graph: &mut Graph,
    places: &Places,
    needs: &Needs,
    cts: &[Option<NodeId>],
    found: &Found,
) -> Vec<NodeId> {
    let mut starts = Vec::with_capacity(needs.carries.len() + needs.consts.len());
    for k in &needs.carries {
        let own = needs.ys.iter().filter(|y| needs.carried_as(places, **y) == Some(*k));
        let own: Vec<NodeId> = own.filter_map(|y| cts[places.shape.carries + y]).collect();
        let last = own.into_iter().map(|ct| end(graph, ct, places.shape.options.reverse)).collect::<Vec<_>>();
        let sum = cts[*k].into_iter().chain(last).reduce(|a, b| graph.emit(Op::Add, &[a, b], &[], &[]));
        starts.push((places.first_carry() + k, sum));
    }
    for k in &needs.consts {
        let index = places.first_const() + k;
        starts.push((index, found.of_node(places.operand(index))));
    }
    let or_zeros = |(index, start): (usize, Option<NodeId>)| {
        let ty = &places.body.inputs[index].ty;
        start.unwrap_or_else(|| graph.constant(0.0, ty.dtype, &ty.dims))
    };
    starts.into_iter().map(or_zeros).collect()
}

/// The Scan taken apart. Inputs of the body are the index of the step, consts, carries and slices; the operands are
/// the same without the first.
struct Places {
    shape: ScanShape,
    body: Arc<Graph>,
    operands: Vec<NodeId>,
    /// Input nodes of the body; None for one that it does not read.
    inputs: Vec<Option<NodeId>>,
    outputs: Vec<NodeId>,
}

impl Places {
    fn new(graph: &Graph, id: NodeId) -> Places {
        let node = graph.node(id);
        let shape = node.scan_shape();
        let body = graph.bodies[shape.body].clone();
        let (inputs, outputs) = (body.input_nodes(), body.output_nodes());
        Places { shape, body, operands: node.inputs.clone(), inputs, outputs }
    }

    fn first_const(&self) -> usize {
        1
    }

    fn first_carry(&self) -> usize {
        1 + self.shape.consts(self.operands.len())
    }

    fn first_x(&self) -> usize {
        self.first_carry() + self.shape.carries
    }

    /// Operand of an input of the body.
    fn operand(&self, input: usize) -> NodeId {
        self.operands[input - 1]
    }

    /// Node of an input that the body reads.
    fn input(&self, index: usize) -> NodeId {
        self.inputs[index].expect("an input that is reached or read has a node")
    }
}

/// The body with its derivative behind it, over further inputs for cotangents: pairs of a node and its cotangent.
struct Pulled {
    wider: Graph,
    of_ys: Vec<(NodeId, NodeId)>,
    of_carries: Vec<(NodeId, NodeId)>,
    /// Consts, with the sum of their cotangents so far.
    sums: Vec<(NodeId, NodeId)>,
    /// New cotangents, as [`Needs::inputs`] lists what they belong to.
    results: Vec<NodeId>,
}

impl Pulled {
    fn new(places: &Places, needs: &Needs) -> Result<Pulled, Vec<GraphError>> {
        let mut wider = (*places.body).clone();
        let mut with_ct = |nodes: Vec<NodeId>| -> Vec<(NodeId, NodeId)> {
            nodes.into_iter().map(|node| (node, wider.add_input(places.body.ty(node)))).collect()
        };
        let of_ys = needs.ys.iter().map(|y| match needs.carried_as(places, *y) {
            // The next step's carry: there an unrolled loop would add it.
            Some(k) => places.input(places.first_carry() + k),
            None => places.outputs[places.shape.carries + y],
        });
        let of_ys = with_ct(of_ys.collect());
        let of_carries = with_ct(needs.carries.iter().map(|k| places.outputs[*k]).collect());
        let sums = with_ct(needs.consts.iter().map(|k| places.input(places.first_const() + k)).collect());
        let seeds = [&of_ys[..], &of_carries, &sums].concat();
        let of_inputs = needs.inputs(places);
        let reached: Vec<NodeId> = of_inputs.iter().filter_map(|index| places.inputs[*index]).collect();
        let mut pulled = backward(&mut wider, &seeds, &reached, true).into_iter();
        if !wider.errors.is_empty() {
            return Err(wider.errors);
        }
        let results = of_inputs.iter().map(|index| {
            let ct = places.inputs[*index].and_then(|_| pulled.next().flatten());
            let ty = &places.body.inputs[*index].ty;
            ct.unwrap_or_else(|| wider.constant(0.0, ty.dtype, &ty.dims))
        });
        let results = results.collect();
        Ok(Pulled { wider, of_ys, of_carries, sums, results })
    }

    /// What the derivative has as operands without any residual: all but the carries.
    fn held(&self, places: &Places) -> Vec<NodeId> {
        let own = places.inputs[..places.first_carry()].iter().chain(&places.inputs[places.first_x()..]);
        let cts = self.of_ys.iter().chain(&self.of_carries).chain(&self.sums).map(|(_, ct)| *ct);
        own.flatten().copied().chain(cts).collect()
    }
}

/// The slice of the step that runs last.
fn end(graph: &mut Graph, stacked: NodeId, reverse: bool) -> NodeId {
    Builder::with(graph, |b| {
        let x = b.var(stacked);
        let dims = x.dims();
        let last = if reverse { 0 } else { dims[0] - 1 };
        part(x, last, 1).reshape(&dims[1..]).id
    })
}

/// For each step the slice of the step before it; zeros for the first.
fn before(graph: &mut Graph, stacked: NodeId, reverse: bool) -> NodeId {
    Builder::with(graph, |b| {
        let x = b.var(stacked);
        let (dims, dtype) = (x.dims(), x.ty().dtype);
        let zeros = b.constant(0.0, &Ty::new(dtype, &[&[1], &dims[1..]].concat()));
        if dims[0] == 1 {
            return zeros.id;
        }
        let kept = part(x, usize::from(reverse), dims[0] - 1);
        if reverse { b.concat(&[kept, zeros], 0).id } else { b.concat(&[zeros, kept], 0).id }
    })
}

/// `length` slices from `start` on.
fn part(x: Var<'_>, start: usize, length: usize) -> Var<'_> {
    let mut ranges: Vec<(usize, usize)> = x.dims().iter().map(|dim| (0, *dim)).collect();
    ranges[0] = (start, length);
    x.slice(&ranges)
}

/// Indices of what takes part in the derivative.
struct Needs {
    carries: Vec<usize>,
    consts: Vec<usize>,
    xs: Vec<usize>,
    ys: Vec<usize>,
}

impl Needs {
    /// Inputs of the body that get a cotangent: carries, consts, slices.
    fn inputs(&self, places: &Places) -> Vec<usize> {
        let carries = self.carries.iter().map(|k| places.first_carry() + k);
        let consts = self.consts.iter().map(|k| places.first_const() + k);
        carries.chain(consts).chain(self.xs.iter().map(|k| places.first_x() + k)).collect()
    }

    /// The carry that a y is too, if its cotangent can be added to that of the next step's carry.
    fn carried_as(&self, places: &Places, y: usize) -> Option<usize> {
        let output = places.outputs[places.shape.carries + y];
        let is_same = |k: &usize| places.outputs[*k] == output;
        let is_read = |k: &usize| places.inputs[places.first_carry() + k].is_some();
        self.carries.iter().copied().find(|k| is_same(k) && is_read(k))
    }

    fn find(places: &Places, cts: &[Option<NodeId>], wanted: &[bool]) -> Result<Needs, Vec<GraphError>> {
        let Places { shape, body, inputs, outputs, .. } = places;
        let (first_carry, first_x) = (places.first_carry(), places.first_x());
        let consts = first_carry - places.first_const();
        let mut active: Vec<bool> = std::iter::once(false).chain(wanted.iter().copied()).collect();
        loop {
            let wrt: Vec<NodeId> =
                inputs.iter().zip(&active).filter_map(|(id, active)| id.filter(|_| *active)).collect();
            let reaches = reachable(body, body.ids(), &wrt);
            let grows = |k: &usize| reaches.contains(&outputs[*k]) && !active[first_carry + k];
            let grown: Vec<usize> = (0..shape.carries).filter(grows).collect();
            if grown.is_empty() {
                break;
            }
            grown.iter().for_each(|k| active[first_carry + k] = true);
        }
        let mut seeded: Vec<bool> = cts.iter().map(Option::is_some).collect();
        (0..shape.carries).for_each(|k| seeded[k] &= active[first_carry + k]);
        let reached = loop {
            let reached = inputs_reached(body, &seeded, &active)?;
            let is_float = |k: usize| body.ty(outputs[k]).dtype.is_float();
            let grows = |k: &usize| reached[first_carry + k] && !seeded[*k] && is_float(*k);
            let grown: Vec<usize> = (0..shape.carries).filter(grows).collect();
            if grown.is_empty() {
                break reached;
            }
            grown.iter().for_each(|k| seeded[*k] = true);
        };
        Ok(Needs {
            carries: (0..shape.carries).filter(|k| seeded[*k]).collect(),
            consts: (0..consts).filter(|k| reached[1 + k]).collect(),
            xs: (0..shape.xs).filter(|k| reached[first_x + k]).collect(),
            ys: (0..seeded.len() - shape.carries).filter(|y| seeded[shape.carries + y]).collect(),
        })
    }
}
