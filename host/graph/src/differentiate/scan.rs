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
    let node = graph.node(id).clone();
    let shape = node.scan_shape();
    let body = graph.bodies[shape.body].clone();
    let consts = shape.consts(node.inputs.len());
    let needs = Needs::find(&body, &shape, consts, cts, wanted)?;
    let (const_nodes, rest) = node.inputs.split_at(consts);
    let (carry_nodes, x_nodes) = rest.split_at(shape.carries);

    // The body with its derivative, over further inputs for the cotangents.
    let mut wider = (*body).clone();
    let old = wider.nodes.len() as u32;
    let (inputs, outputs) = (body.input_nodes(), body.output_nodes());
    let input = |index: usize| inputs[index].expect("a reached input has a node");
    let ct_of = |wider: &mut Graph, node: NodeId| wider.add_input(body.ty(node));
    // A y that is also a carry adds its cotangent where the next step's begins, as an unrolled loop would.
    let carried_as = |y: &usize| {
        let is_same = |k: &&usize| outputs[**k] == outputs[shape.carries + y];
        needs.carries.iter().copied().find(|k| is_same(&k) && inputs[1 + consts + k].is_some())
    };
    let of_ys: Vec<(NodeId, NodeId)> = needs
        .ys
        .iter()
        .map(|y| {
            let output = outputs[shape.carries + y];
            let node = carried_as(y).and_then(|k| inputs[1 + consts + k]).unwrap_or(output);
            (node, ct_of(&mut wider, output))
        })
        .collect();
    let of_carries: Vec<(NodeId, NodeId)> =
        needs.carries.iter().map(|k| outputs[*k]).map(|k| (k, ct_of(&mut wider, k))).collect();
    let sums: Vec<(NodeId, NodeId)> =
        needs.consts.iter().map(|k| input(1 + k)).map(|k| (k, ct_of(&mut wider, k))).collect();
    let first_carry = 1 + consts;
    let wrt: Vec<NodeId> = (needs.carries.iter().map(|k| inputs[first_carry + k]))
        .chain(needs.consts.iter().map(|k| Some(input(1 + k))))
        .chain(needs.xs.iter().map(|k| Some(input(first_carry + shape.carries + k))))
        .map(|id| id.unwrap_or(NodeId::POISON))
        .collect();
    let seeds = [&of_ys[..], &of_carries, &sums].concat();
    let reached: Vec<NodeId> = wrt.iter().copied().filter(|id| *id != NodeId::POISON).collect();
    let mut pulled = backward(&mut wider, &seeds, &reached, true).into_iter();
    if !wider.errors.is_empty() {
        return Err(wider.errors);
    }
    let types = (needs.carries.iter().map(|k| graph.ty(carry_nodes[*k])))
        .chain(needs.consts.iter().map(|k| graph.ty(const_nodes[*k])))
        .chain(needs.xs.iter().map(|k| &body.inputs[first_carry + shape.carries + k].ty));
    let results: Vec<NodeId> = wrt
        .iter()
        .zip(types)
        .map(|(id, ty)| {
            let ct = if *id == NodeId::POISON { None } else { pulled.next().flatten() };
            ct.unwrap_or_else(|| wider.constant(0.0, ty.dtype, &ty.dims))
        })
        .collect();

    // What of the body it reads.
    let held: Vec<NodeId> = inputs[..first_carry]
        .iter()
        .chain(&inputs[first_carry + shape.carries..])
        .flatten()
        .copied()
        .chain(seeds.iter().map(|(_, ct)| *ct))
        .collect();
    let part = Part { graph: &wider, old, held: &held };
    let residuals = part.residuals(&results);
    let stacked = residual::widen(graph, id, &wider, &residuals, shape.carries);

    // The derivative as a Scan of its own: consts, carried cotangents and sums, then what comes in slices.
    let is_read = part.reads(&results);
    let read_consts: Vec<usize> = (0..consts).filter(|k| inputs[1 + k].is_some_and(&is_read)).collect();
    let read_xs: Vec<usize> =
        (0..shape.xs).filter(|k| inputs[first_carry + shape.carries + k].is_some_and(&is_read)).collect();
    let bound = |id: NodeId| Boundary::of(&wider, id, "cotangent");
    let iteration = Boundary { node: inputs[0], ty: body.inputs[0].ty.clone(), name: "iteration".into() };
    let boundary: Vec<Boundary> = std::iter::once(iteration)
        .chain(read_consts.iter().map(|k| bound(input(1 + k))))
        .chain(of_carries.iter().chain(&sums).map(|(_, ct)| bound(*ct)))
        .chain(residuals.iter().map(|id| bound(*id)))
        .chain(read_xs.iter().map(|k| bound(input(first_carry + shape.carries + k))))
        .chain(of_ys.iter().map(|(_, ct)| bound(*ct)))
        .collect();
    let derivative = extract(&wider, &boundary, &results);
    let zeros = |graph: &mut Graph, id: NodeId| {
        let ty = graph.ty(id).clone();
        graph.constant(0.0, ty.dtype, &ty.dims)
    };
    let mut operands: Vec<NodeId> = read_consts.iter().map(|k| const_nodes[*k]).collect();
    for k in &needs.carries {
        let own = needs.ys.iter().filter(|y| carried_as(y) == Some(*k));
        let last: Vec<NodeId> =
            own.filter_map(|y| Some(end(graph, cts[shape.carries + y]?, shape.options.reverse))).collect();
        let sum = cts[*k].into_iter().chain(last).reduce(|a, b| graph.emit(Op::Add, &[a, b], &[], &[]));
        operands.push(sum.unwrap_or_else(|| zeros(graph, carry_nodes[*k])));
    }
    for k in &needs.consts {
        let so_far = found.of_node(const_nodes[*k]);
        operands.push(so_far.unwrap_or_else(|| zeros(graph, const_nodes[*k])));
    }
    operands.extend(&stacked);
    operands.extend(read_xs.iter().map(|k| x_nodes[*k]));
    for y in &needs.ys {
        let Some(ct) = cts[shape.carries + y] else { continue };
        let shifted = carried_as(y).is_some();
        operands.push(if shifted { before(graph, ct, shape.options.reverse) } else { ct });
    }
    let shape = ScanShape {
        body: graph.bodies.len(),
        length: shape.length,
        carries: needs.carries.len() + needs.consts.len(),
        xs: stacked.len() + read_xs.len() + needs.ys.len(),
        options: ScanOptions { reverse: !shape.options.reverse, ..shape.options },
        residuals: 0,
    };
    graph.bodies.push(Arc::new(derivative));
    let scan = graph.emit(Op::Scan, &operands, &shape.encode(), &[]);
    let mut results = 0..;
    let mut next = |graph: &mut Graph| {
        let index = results.next().unwrap_or_default();
        graph.emit(Op::Result, &[scan], &[index], &[])
    };
    let carries: Vec<Change> =
        needs.carries.iter().map(|k| Change::Add(carry_nodes[*k], next(graph))).collect();
    let sums: Vec<Change> =
        needs.consts.iter().map(|k| Change::Replace(const_nodes[*k], next(graph))).collect();
    let slices: Vec<Change> = needs.xs.iter().map(|k| Change::Add(x_nodes[*k], next(graph))).collect();
    Ok(sums.into_iter().chain(carries).chain(slices).collect())
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
    fn find(
        body: &Graph,
        shape: &ScanShape,
        consts: usize,
        cts: &[Option<NodeId>],
        wanted: &[bool],
    ) -> Result<Needs, Vec<GraphError>> {
        // Inputs of the body are shifted by the index of the step.
        let first_carry = 1 + consts;
        let (inputs, outputs) = (body.input_nodes(), body.output_nodes());
        let mut active: Vec<bool> = std::iter::once(false).chain(wanted.iter().copied()).collect();
        let last = outputs.iter().copied().max().unwrap_or(NodeId(0));
        loop {
            let wrt: Vec<NodeId> =
                inputs.iter().zip(&active).filter_map(|(id, active)| id.filter(|_| *active)).collect();
            let reaches = reachable(body, last, &wrt);
            let grows = |k: &usize| reaches[outputs[*k].index()] && !active[first_carry + k];
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
        let first_x = first_carry + shape.carries;
        Ok(Needs {
            carries: (0..shape.carries).filter(|k| seeded[*k]).collect(),
            consts: (0..consts).filter(|k| reached[1 + k]).collect(),
            xs: (0..shape.xs).filter(|k| reached[first_x + k]).collect(),
            ys: (0..seeded.len() - shape.carries).filter(|y| seeded[shape.carries + y]).collect(),
        })
    }
}
