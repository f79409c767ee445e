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

/// Forward and backward of one composite have the same operands in front, so they have one answer.
fn has_kernel(graph: &Graph, node: &Node, caps: &DeviceCaps) -> bool {
    let max_width = match node.op {
        Op::Attention | Op::AttentionLse | Op::AttentionGrad => caps.attention.map(|caps| caps.max_width),
        Op::GatedDeltaRule | Op::GatedDeltaRuleGrad => caps.delta.map(|caps| caps.max_width),
        _ => None,
    };
    // Of keys and values, in both.
    let width = |index: usize| graph.dims(node.inputs[index])[3];
    max_width.is_some_and(|max| width(1).max(width(2)) <= max)
}
