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
    let dims = |index: usize| graph.dims(node.inputs[index]);
    match node.op {
        Op::Attention | Op::AttentionLse | Op::AttentionGrad => {
            caps.attention.is_some_and(|attention| dims(1)[3].max(dims(2)[3]) <= attention.max_width)
        }
        Op::LinearCrossEntropy | Op::LinearCrossEntropyGrad => {
            let (tokens, vocabulary) = (dims(2).iter().product::<usize>(), dims(1)[0]);
            caps.cross_entropy.is_some_and(|caps| {
                vocabulary >= caps.min_vocabulary && tokens * vocabulary >= caps.min_logits
            })
        }
        Op::GatedDeltaRule | Op::GatedDeltaRuleGrad => {
            caps.delta.is_some_and(|caps| dims(1)[3].max(dims(2)[3]) <= caps.max_width)
        }
        _ => false,
    }
}
