//! The derivative of a When: the same guard around the derivative of its body. Where the body did not run, the
//! cotangent of a new value is that of the old one, and consts keep what they have.
//!
//! As for a Scan, the body is differentiated once and hands out what its derivative reads.

use std::sync::Arc;

use ops::Op;

use super::residual::{self, Part};
use super::{Change, Found, backward, inputs_reached};
use crate::attributes::WhenShape;
use crate::extract::{Boundary, extract};
use crate::{Graph, GraphError, NodeId};

/// Changes of the operands' cotangents by those of the results; `wanted` says which operands' are asked for.
pub fn changes(
    graph: &mut Graph,
    id: NodeId,
    cts: &[Option<NodeId>],
    wanted: &[bool],
    found: &Found,
) -> Result<Vec<Change>, Vec<GraphError>> {
    let node = graph.node(id).clone();
    let shape = node.when_shape();
    let body = graph.bodies[shape.body].clone();
    let operands = &node.inputs[1..];
    let consts = shape.consts(node.inputs.len());
    let seeded: Vec<bool> = cts.iter().map(Option::is_some).collect();
    let reached = inputs_reached(&body, &seeded, &wanted[1..])?;
    let passing = |place: usize| place.checked_sub(consts).and_then(|old| cts[old]);
    let is_needed = |place: &usize| wanted[1 + place] && (reached[*place] || passing(*place).is_some());
    let needed: Vec<usize> = (0..operands.len()).filter(is_needed).collect();
    // One node may stand in several places.
    let mut variables: Vec<NodeId> = needed.iter().map(|place| operands[*place]).collect();
    variables.sort_unstable();
    variables.dedup();

    let mut wider = (*body).clone();
    let old = wider.nodes.len() as u32;
    let (inputs, outputs) = (body.input_nodes(), body.output_nodes());
    let ct_of = |wider: &mut Graph, node: NodeId| wider.add_input(body.ty(node));
    let of_news: Vec<(usize, NodeId, NodeId)> = (0..cts.len())
        .filter(|k| seeded[*k])
        .map(|k| (k, outputs[k], ct_of(&mut wider, outputs[k])))
        .collect();
    let mut seeds: Vec<(NodeId, NodeId)> = of_news.iter().map(|(_, node, ct)| (*node, *ct)).collect();
    // What each variable starts from in the body, and outside where the body does not run.
    let mut sums = Vec::with_capacity(variables.len());
    let mut olds = Vec::with_capacity(variables.len());
    let places = |variable: NodeId| (0..operands.len()).filter(move |place| operands[*place] == variable);
    for variable in &variables {
        let ty = graph.ty(*variable).clone();
        let so_far = found.of_node(*variable);
        let first = places(*variable).filter(|place| reached[*place]).find_map(|place| inputs[place]);
        let sum = wider.add_input(&ty);
        if let (Some(first), Some(_)) = (first, so_far) {
            seeds.push((first, sum));
        }
        sums.push((sum, so_far));
        let mut without = so_far;
        for ct in places(*variable).filter_map(passing) {
            without = Some(without.map_or(ct, |sum| graph.emit(Op::Add, &[sum, ct], &[], &[])));
        }
        olds.push(without.unwrap_or_else(|| graph.constant(0.0, ty.dtype, &ty.dims)));
    }
    let reached_inputs: Vec<(usize, NodeId)> = (0..operands.len())
        .filter(|place| reached[*place])
        .filter_map(|place| inputs[place].map(|id| (place, id)))
        .collect();
    let wrt: Vec<NodeId> = reached_inputs.iter().map(|(_, id)| *id).collect();
    let pulled = backward(&mut wider, &seeds, &wrt, true);
    if !wider.errors.is_empty() {
        return Err(wider.errors);
    }
    let mut results = Vec::with_capacity(variables.len());
    for (variable, (sum, so_far)) in variables.iter().zip(&sums) {
        let own = reached_inputs.iter().zip(&pulled).filter(|((place, _), _)| operands[*place] == *variable);
        let cts: Vec<NodeId> = own.filter_map(|(_, ct)| *ct).collect();
        let total = cts.into_iter().reduce(|sum, ct| wider.emit(Op::Add, &[sum, ct], &[], &[]));
        let ty = graph.ty(*variable).clone();
        let kept = so_far.map(|_| *sum);
        results.push(total.or(kept).unwrap_or_else(|| wider.constant(0.0, ty.dtype, &ty.dims)));
    }

    let held: Vec<NodeId> = inputs
        .iter()
        .flatten()
        .copied()
        .chain(of_news.iter().map(|(_, _, ct)| *ct))
        .chain(sums.iter().map(|(sum, _)| *sum))
        .collect();
    let part = Part { graph: &wider, old, held: &held };
    let residuals = part.residuals(&results);
    let handed_out = residual::widen(graph, id, &wider, &residuals, 0);
    let is_read = part.reads(&results);
    let bound = |id: NodeId| Boundary::of(&wider, id, "cotangent");
    let mut boundary = Vec::new();
    let mut inner = Vec::new();
    let values = inputs.iter().zip(operands).filter_map(|(input, operand)| Some(((*input)?, *operand)));
    let news = of_news.iter().filter_map(|(k, _, ct)| Some((*ct, cts[*k]?)));
    let so_far = sums.iter().filter_map(|(sum, so_far)| Some((*sum, (*so_far)?)));
    let rest = values.chain(news).chain(so_far).filter(|(id, _)| is_read(*id));
    for (id, operand) in rest.chain(residuals.iter().copied().zip(handed_out)) {
        boundary.push(bound(id));
        inner.push(operand);
    }
    for variable in &variables {
        let ty = graph.ty(*variable).clone();
        boundary.push(Boundary { node: None, ty, name: "passing".into() });
    }
    let derivative = extract(&wider, &boundary, &results);
    let shape = WhenShape { body: graph.bodies.len(), olds: olds.len(), residuals: 0, ..shape };
    graph.bodies.push(Arc::new(derivative));
    let all = [&[node.inputs[0]], &inner[..], &olds].concat();
    let when = graph.emit(Op::When, &all, &shape.encode(), &[]);
    let result = |(index, variable): (usize, NodeId)| {
        Change::Replace(variable, graph.emit(Op::Result, &[when], &[index as i64], &[]))
    };
    Ok(variables.into_iter().enumerate().map(result).collect())
}
