//! Hand kernel or decomposition: each composite a device has no kernel for is replaced by its meaning.
//!
//! Sharing of equal nodes then joins the forward pass with what derivatives recompute.

use graph::{Graph, Node, Op};
use plan::DeviceCaps;

use crate::Module;

pub fn run(module: &mut Module, caps: &DeviceCaps) -> Result<(), String> {
    module.graph = graph::expand_except(&module.graph, &|graph, node| has_kernel(graph, node, caps));
    Ok(())
}

/// Forward and backward of one attention have the same operands in front, so they have one answer.
fn has_kernel(graph: &Graph, node: &Node, caps: &DeviceCaps) -> bool {
    if !matches!(node.op, Op::Attention | Op::AttentionLse | Op::AttentionGrad) {
        return false;
    }
    let width = |index: usize| graph.dims(node.inputs[index])[3];
    caps.attention.is_some_and(|attention| width(1).max(width(2)) <= attention.max_width)
}
