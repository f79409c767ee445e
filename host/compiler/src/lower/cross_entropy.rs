//! Cross-entropy of a head, losses and cotangents, over rows as `layout` left them.

use graph::{Graph, NodeId, Op};
use plan::{CrossEntropy, CrossEntropyGrad, LaunchOp, Numbered, Rows, Slot};

/// `nodes` are those of one launch: a LinearCrossEntropy, a LinearCrossEntropyGrad with its Results, or both.
pub fn lower(
    graph: &Graph,
    nodes: &[NodeId],
    at: impl Fn(NodeId) -> Result<(Slot, Vec<usize>), String>,
) -> Result<LaunchOp, String> {
    let node = graph.node(nodes[0]);
    let rows = |id: NodeId| {
        let (slot, strides) = at(id)?;
        let is_side_by_side = strides[1] == 1 || graph.dims(id)[1] == 1;
        let rows = Rows { slot, stride: strides[0] };
        is_side_by_side.then_some(rows).ok_or_else(|| format!("{}: no rows", graph.describe(id)))
    };
    let numbered = |id: NodeId| at(id).map(|(slot, strides)| Numbered { slot, stride: strides[0] });
    let of = |op: Op| nodes.iter().copied().find(|id| graph.node(*id).op == op);
    let result = |index: i64| {
        let is_it = |id: &&NodeId| graph.node(**id).op == Op::Result && graph.node(**id).ints[0] == index;
        nodes.iter().find(is_it).map(|id| at(*id).map(|(slot, _)| slot)).transpose()
    };
    let grad = match of(Op::LinearCrossEntropyGrad) {
        None => None,
        Some(id) => Some(CrossEntropyGrad {
            ct: numbered(graph.node(id).inputs[3])?,
            ct_x: result(0)?,
            ct_w: result(1)?,
        }),
    };
    let (x, w) = (graph.dims(node.inputs[0]), graph.dims(node.inputs[1]));
    Ok(LaunchOp::CrossEntropy(Box::new(CrossEntropy {
        tokens: x[0],
        width: x[1],
        vocabulary: w[0],
        x: rows(node.inputs[0])?,
        w: rows(node.inputs[1])?,
        targets: numbered(node.inputs[2])?,
        loss: of(Op::LinearCrossEntropy).map(|id| at(id).map(|(slot, _)| slot)).transpose()?,
        grad,
    })))
}
