//! Rewrites that keep values: dead code, sharing and folding come with re-emitting; the rules here need a look at
//! neighbours.

use graph::attributes::pairs;
use graph::{Graph, Node, NodeId, Op, rewrite};
use plan::DeviceCaps;

use crate::Module;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    module.graph = rewrite(&module.graph, |graph, node, inputs| match node.op {
        Op::Add => match joined_pads(graph, inputs) {
            Some((axis, parts)) => graph.emit(Op::Concat, &parts, &[axis as i64], &[]),
            None => graph.emit(node.op, inputs, &node.ints, &node.floats),
        },
        _ => graph.emit(node.op, inputs, &node.ints, &node.floats),
    });
    Ok(())
}

/// pad(x) + pad(y) whose boxes meet and fill the result is concat(x, y): the cotangent of a tensor taken in halves
/// (rope). Tested by `rope_halves_become_one_concat`.
fn joined_pads(graph: &Graph, inputs: &[NodeId]) -> Option<(usize, [NodeId; 2])> {
    let pad = |id: NodeId| Some(graph.node(id)).filter(|node| node.op == Op::Pad && node.floats[0] == 0.0);
    let (x, y) = (pad(inputs[0])?, pad(inputs[1])?);
    let margins = |node: &Node| pairs(&node.ints);
    let padded: Vec<usize> =
        (0..x.ty.rank()).filter(|axis| margins(x)[*axis] != (0, 0) || margins(y)[*axis] != (0, 0)).collect();
    let [axis] = padded[..] else { return None };
    let (of_x, of_y) = (margins(x)[axis], margins(y)[axis]);
    let extent = |node: &Node| graph.dims(node.inputs[0])[axis];
    if of_x.0 == 0 && of_y.1 == 0 && of_x.1 == extent(y) && of_y.0 == extent(x) {
        return Some((axis, [x.inputs[0], y.inputs[0]]));
    }
    if of_y.0 == 0 && of_x.1 == 0 && of_y.1 == extent(x) && of_x.0 == extent(y) {
        return Some((axis, [y.inputs[0], x.inputs[0]]));
    }
    None
}
