//! The derivative of a decomposition as a decomposition of its own.
//!
//! It is built in a graph apart, with an input for each operand: in the graph it is for, an operand may be a constant, the
//! same node as another, or a movement that joins with those of the decomposition, and a way to it would be lost.

use std::sync::Arc;

use ops::Op;

use crate::differentiate::pull_back;
use crate::{Builder, Graph, NodeId, Rewritten, Var};

/// Emits the cotangents of the first `count` of `inputs`, from those of the results of what `decompose` makes of them:
/// `given` says of which, and they are the rest of `inputs`.
pub fn cotangents(
    b: &Builder,
    inputs: &[NodeId],
    count: usize,
    given: &[bool],
    decompose: impl for<'v> Fn(&[Var<'v>]) -> Vec<Var<'v>>,
) -> Vec<NodeId> {
    let mut apart = Graph::default();
    apart.in_scope(&b.current_scope(), |apart| {
        // Outputs and inputs go by their names.
        let named = inputs.iter().enumerate().map(|(index, id)| (index.to_string(), b.ty(*id)));
        let declared: Vec<NodeId> = named.map(|(name, ty)| apart.input(&name, ty)).collect();
        let (operands, cts) = declared.split_at(count);
        let results = Builder::with(apart, |b| {
            let operands: Vec<Var<'_>> = operands.iter().map(|id| b.var(*id)).collect();
            decompose(&operands).into_iter().map(|result| result.id).collect::<Vec<NodeId>>()
        });
        let results = results.into_iter().zip(given).filter(|(_, given)| **given).map(|(result, _)| result);
        let seeds: Vec<(NodeId, NodeId)> = results.zip(cts.iter().copied()).collect();
        for (index, ct) in pull_back(apart, &seeds, operands).into_iter().enumerate() {
            let ct = ct.unwrap_or_else(|| {
                let ty = apart.ty(operands[index]).clone();
                apart.constant(0.0, ty.dtype, &ty.dims)
            });
            apart.output(&index.to_string(), ct);
        }
    });
    match apart.errors.is_empty() {
        true => b.inline(&apart, inputs),
        false => b.failed(&apart, count),
    }
}

/// What `rewrite::inline` emits for a node: itself, with its body.
pub fn as_it_is(graph: &mut Graph, source: &Graph, id: NodeId, inputs: &[NodeId]) -> Rewritten {
    let node = source.node(id);
    let mut ints = node.ints.clone();
    if node.op == Op::Scan {
        let mut shape = node.scan_shape();
        let body = Arc::clone(&source.bodies[shape.body]);
        shape.body = graph.bodies.len();
        graph.bodies.push(body);
        ints = shape.encode();
    }
    Rewritten::One(graph.emit(node.op, inputs, &ints, &node.floats))
}
