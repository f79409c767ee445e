//! The derivative of a Scan: a Scan the other way.
//!
//! Its steps compute the body again from the carries that a second forward Scan hands out, and pull cotangents through
//! it. Under the policy `save` that recomputation costs nothing: unrolled, it is the forward Scan's own nodes, and
//! equal nodes are shared. Under `recompute` the derivative is marked as isolated, so that nothing is shared and
//! nothing but carries (and what the body marks with Save) is kept.
//!
//! Which carries need a cotangent is found by fixpoint: those that depend on what is wanted and that the loss depends
//! on. Cotangents of consts are summed along the way, in the order in which an unrolled loop would add them.

use std::sync::Arc;

use ops::Op;

use super::{Cotangents, backward, input_nodes, inputs_reached, output_nodes, reachable};
use crate::attributes::ScanShape;
use crate::rewrite::{Rewritten, inline};
use crate::{Graph, Node, NodeId, ScanOptions, Ty, live};

/// Cotangents of the operands from those of the results; `wanted` says which operands' are asked for.
pub fn cotangents(graph: &mut Graph, node: &Node, cts: &[Option<NodeId>], wanted: &[bool]) -> Cotangents {
    if cts.contains(&Some(NodeId::POISON)) {
        return vec![Some(NodeId::POISON); node.inputs.len()];
    }
    let shape = node.scan_shape();
    let body = graph.bodies[shape.body].clone();
    let needs = match Needs::find(&body, &shape, node, cts, wanted) {
        Ok(needs) => needs,
        Err(errors) => {
            graph.errors.extend(errors);
            return vec![Some(NodeId::POISON); node.inputs.len()];
        }
    };
    let consts = shape.consts(node.inputs.len());
    let (const_nodes, rest) = node.inputs.split_at(consts);
    let (_, xs) = rest.split_at(shape.carries);
    let saved = save(graph, node, &shape, &body);

    // Carried: cotangents of carries, then running sums of those of consts.
    let zeros = |graph: &mut Graph, ty: &Ty| graph.constant(0.0, ty.dtype, &ty.dims);
    let mut carried: Vec<NodeId> = Vec::new();
    for index in &needs.carries {
        let start = cts[*index];
        let ty = graph.ty(rest[*index]).clone();
        carried.push(start.unwrap_or_else(|| zeros(graph, &ty)));
    }
    for index in &needs.consts {
        let ty = graph.ty(const_nodes[*index]).clone();
        carried.push(zeros(graph, &ty));
    }
    let y_cts: Vec<NodeId> = needs.ys.iter().filter_map(|index| cts[shape.carries + index]).collect();
    let slices = [&saved.carries, &saved.marked, xs, &y_cts].concat();
    let options = ScanOptions { reverse: !shape.options.reverse, ..shape.options };
    let isolated = if shape.options.recompute { graph.bodies.len() } else { 0 };
    let placeholders = graph.open_isolated_scan(shape.length, &carried, &slices, options, isolated);
    let (iteration, placeholders) = (placeholders[0], &placeholders[1..]);
    let (ct_carries, placeholders) = placeholders.split_at(needs.carries.len());
    let (sums, placeholders) = placeholders.split_at(needs.consts.len());
    let (own_carries, placeholders) = placeholders.split_at(shape.carries);
    let (marked, placeholders) = placeholders.split_at(saved.marked.len());
    let (own_xs, ct_ys) = placeholders.split_at(shape.xs);

    let arguments = [&[iteration], const_nodes, own_carries, own_xs].concat();
    let mut marks = marked.iter();
    let outputs = inline(graph, &body, &arguments, |graph, source, id, inputs| {
        let kept = source.node(id).op == Op::Save && shape.options.recompute;
        let mark = if kept { marks.next().copied() } else { None };
        Rewritten::One(mark.unwrap_or_else(|| graph.adopt(source, id, inputs)))
    });
    let of_ys = needs.ys.iter().map(|index| outputs[shape.carries + index]).zip(ct_ys.iter().copied());
    let of_carries = needs.carries.iter().map(|index| outputs[*index]).zip(ct_carries.iter().copied());
    let of_consts = needs.consts.iter().map(|index| const_nodes[*index]).zip(sums.iter().copied());
    let seeds: Vec<(NodeId, NodeId)> = of_ys.chain(of_carries).chain(of_consts).collect();
    let wrt: Vec<NodeId> = needs
        .carries
        .iter()
        .map(|index| own_carries[*index])
        .chain(needs.consts.iter().map(|index| const_nodes[*index]))
        .chain(needs.xs.iter().map(|index| own_xs[*index]))
        .collect();
    let types: Vec<Ty> = wrt.iter().map(|id| graph.ty(*id).clone()).collect();
    let pulled = backward(graph, &seeds, &wrt, true);
    let results: Vec<NodeId> =
        pulled.into_iter().zip(&types).map(|(ct, ty)| ct.unwrap_or_else(|| zeros(graph, ty))).collect();
    let results = graph.close_region(&results);

    let mut of_operands = vec![None; node.inputs.len()];
    let places = needs
        .carries
        .iter()
        .map(|index| consts + index)
        .chain(needs.consts.iter().copied())
        .chain(needs.xs.iter().map(|index| consts + shape.carries + index));
    places.zip(results).for_each(|(place, ct)| of_operands[place] = Some(ct));
    of_operands
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
        node: &Node,
        cts: &[Option<NodeId>],
        wanted: &[bool],
    ) -> Result<Needs, Vec<crate::GraphError>> {
        let consts = shape.consts(node.inputs.len());
        // Inputs of the body are shifted by the index of the step.
        let first_carry = 1 + consts;
        let inputs = input_nodes(body);
        let outputs = output_nodes(body);
        let mut active: Vec<bool> = std::iter::once(false).chain(wanted.iter().copied()).collect();
        let last = outputs.iter().copied().max().unwrap_or(NodeId(0));
        loop {
            let wrt: Vec<NodeId> =
                inputs.iter().zip(&active).filter_map(|(id, active)| id.filter(|_| *active)).collect();
            let reaches = reachable(body, last, &wrt);
            let grown: Vec<usize> = (0..shape.carries)
                .filter(|index| reaches[outputs[*index].index()] && !active[first_carry + index])
                .collect();
            if grown.is_empty() {
                break;
            }
            grown.iter().for_each(|index| active[first_carry + index] = true);
        }
        let is_float = |output: NodeId| body.ty(output).dtype.is_float();
        let mut seeded: Vec<bool> = cts.iter().map(Option::is_some).collect();
        for index in 0..shape.carries {
            seeded[index] &= active[first_carry + index];
        }
        let reached = loop {
            let reached = inputs_reached(body, &seeded, &active)?;
            let grown: Vec<usize> = (0..shape.carries)
                .filter(|index| reached[first_carry + index] && !seeded[*index] && is_float(outputs[*index]))
                .collect();
            if grown.is_empty() {
                break reached;
            }
            grown.iter().for_each(|index| seeded[*index] = true);
        };
        let pick = |range: std::ops::Range<usize>, holds: &dyn Fn(usize) -> bool| {
            range.filter(|i| holds(*i)).collect()
        };
        Ok(Needs {
            carries: pick(0..shape.carries, &|index| seeded[index]),
            consts: pick(0..consts, &|index| reached[1 + index]),
            xs: pick(0..shape.xs, &|index| reached[first_carry + shape.carries + index]),
            ys: pick(0..seeded.len() - shape.carries, &|index| seeded[shape.carries + index]),
        })
    }
}

/// What the forward pass hands to its derivative, stacked over the steps.
struct Saved {
    /// Each carry as it was before the step.
    carries: Vec<NodeId>,
    /// Values that the body marks with Save, in order; only where the rest is computed again.
    marked: Vec<NodeId>,
}

/// Emits the forward Scan once more with its carries as further ys. Unrolled, both are one.
fn save(graph: &mut Graph, node: &Node, shape: &ScanShape, body: &Graph) -> Saved {
    let mut wider = body.clone();
    let first_carry = 1 + shape.consts(node.inputs.len());
    let kept: Vec<NodeId> = input_nodes(body)
        .into_iter()
        .enumerate()
        .skip(first_carry)
        .take(shape.carries)
        .map(|(index, id)| {
            let ty = body.inputs[index].ty.clone();
            id.unwrap_or_else(|| wider.push(Op::Input, &[], &[index as i64], &[], ty))
        })
        .collect();
    let live = live(body);
    let is_mark = |id: &NodeId| live[id.index()] && body.node(*id).op == Op::Save && shape.options.recompute;
    let marked: Vec<NodeId> = body.ids().filter(is_mark).collect();
    for id in kept.iter().chain(&marked) {
        wider.add_output(*id);
    }
    let index = graph.bodies.len();
    graph.bodies.push(Arc::new(wider));
    let again = ScanShape { body: index, ..*shape };
    let scan = graph.emit(Op::Scan, &node.inputs, &again.encode(), &[]);
    let first = body.outputs.len();
    let mut results = (first..first + kept.len() + marked.len())
        .map(|result| graph.emit(Op::Result, &[scan], &[result as i64], &[]))
        .collect::<Vec<_>>();
    let marked = results.split_off(kept.len());
    Saved { carries: results, marked }
}
