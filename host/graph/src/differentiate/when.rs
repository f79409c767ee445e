//! The derivative of a When: the same guard around the derivative of its body, identity where the body did not run.

use super::{Cotangents, backward, inputs_reached, once};
use crate::rewrite::{Rewritten, inline};
use crate::{Graph, Node, NodeId, Ty};

/// Cotangents of the operands from those of the results; `wanted` says which operands' are asked for.
pub fn cotangents(graph: &mut Graph, node: &Node, cts: &[Option<NodeId>], wanted: &[bool]) -> Cotangents {
    if cts.contains(&Some(NodeId::POISON)) {
        return vec![Some(NodeId::POISON); node.inputs.len()];
    }
    let shape = node.when_shape();
    let body = graph.bodies[shape.body].clone();
    let operands = &node.inputs[1..];
    let consts = shape.consts(node.inputs.len());
    let seeded: Vec<bool> = cts.iter().map(Option::is_some).collect();
    let reached = match inputs_reached(&body, &seeded, &wanted[1..]) {
        Ok(reached) => reached,
        Err(errors) => {
            graph.errors.extend(errors);
            return vec![Some(NodeId::POISON); node.inputs.len()];
        }
    };
    // What an operand's cotangent is when the body did not run: that of the new value for an old one, else zero.
    let passing = |operand: usize| operand.checked_sub(consts).and_then(|old| cts[old]);
    let needed: Vec<usize> = (0..operands.len())
        .filter(|operand| wanted[1 + operand] && (reached[*operand] || passing(*operand).is_some()))
        .collect();
    let zeros = |graph: &mut Graph, ty: &Ty| graph.constant(0.0, ty.dtype, &ty.dims);
    let mut olds = Vec::with_capacity(needed.len());
    for operand in &needed {
        let ty = graph.ty(operands[*operand]).clone();
        olds.push(passing(*operand).unwrap_or_else(|| zeros(graph, &ty)));
    }
    graph.open_when(node.inputs[0], shape.period, shape.offset, &olds);
    let outputs = inline(graph, &body, operands, |graph, source, id, inputs| {
        Rewritten::One(graph.adopt(source, id, inputs))
    });
    let seeds: Vec<(NodeId, NodeId)> =
        outputs.into_iter().zip(cts).filter_map(|(output, ct)| ct.map(|ct| (output, ct))).collect();
    let wrt: Vec<NodeId> = needed.iter().map(|operand| operands[*operand]).collect();
    let types: Vec<Ty> = wrt.iter().map(|id| graph.ty(*id).clone()).collect();
    let pulled = once(&wrt, backward(graph, &seeds, &wrt, true));
    let results: Vec<NodeId> =
        pulled.into_iter().zip(&types).map(|(ct, ty)| ct.unwrap_or_else(|| zeros(graph, ty))).collect();
    let results = graph.close_region(&results);
    let mut of_operands = vec![None; node.inputs.len()];
    needed.into_iter().zip(results).for_each(|(operand, ct)| of_operands[1 + operand] = Some(ct));
    of_operands
}
