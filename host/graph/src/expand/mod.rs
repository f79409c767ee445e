//! Composites in terms of primitives: the meaning of each, the fallback of every device, and what keeps derivatives
//! closed under differentiation.

mod attention;
mod chunks;
mod conv;
mod delta;
mod loss;
mod rope;
mod triangular;

use std::sync::Arc;

use ops::{Class, Op};

use attention::attention;
use conv::causal_conv;
use loss::{cross_entropy, linear_cross_entropy};
use rope::rope;

pub use delta::{gated_delta_rule, linear_attention};
pub(crate) use loss::cross_entropy_cotangent;

use crate::attributes::DotAxes;
use crate::{Builder, Graph, Node, NodeId, Var, rewrite};

/// The graph with every composite replaced by its decomposition, to the bottom, dead nodes dropped.
pub fn expand(graph: &Graph) -> Graph {
    let mut expanded = rewrite(graph, |graph, node, inputs| match node.op.row().class {
        Class::Composite => expand_fully(graph, node, inputs),
        _ => graph.emit(node.op, inputs, &node.ints, &node.floats),
    });
    for body in &mut expanded.bodies {
        *body = Arc::new(expand(body));
    }
    expanded
}

/// A composite inside a decomposition is emitted as a composite; here it is taken apart as well.
fn expand_fully(graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> NodeId {
    Builder::with(graph, |b| {
        let operands = vars(b, inputs);
        match node.op {
            Op::Attention => attention(&operands, node.attention_mask(), node.floats[0], softmax).id,
            Op::LinearCrossEntropy => {
                linear_cross_entropy(operands[0], operands[1], operands[2], cross_entropy).id
            }
            _ => decompose(b, node, inputs),
        }
    })
}

/// Emits the decomposition of one composite node.
pub fn expand_node(graph: &mut Graph, node: &Node) -> NodeId {
    Builder::with(graph, |b| decompose(b, node, &node.inputs))
}

fn vars<'b>(b: &'b Builder, inputs: &[NodeId]) -> Vec<Var<'b>> {
    inputs.iter().map(|id| b.var(*id)).collect()
}

fn decompose(b: &Builder, node: &Node, inputs: &[NodeId]) -> NodeId {
    let (operands, floats) = (vars(b, inputs), &node.floats);
    let x = operands[0];
    let result = match node.op {
        Op::Softmax => softmax(x),
        Op::LayerNorm => {
            let (normal, _) = standardize(x, floats[0]);
            let scaled = normal * operands[1].like(x);
            if inputs.len() == 3 { scaled + operands[2].like(x) } else { scaled }
        }
        Op::RmsNorm => rms_scaled(x, floats[0]).0 * operands[1].like(x),
        Op::Rope => rope(x, operands[1], floats[0]),
        Op::Attention => attention(&operands, node.attention_mask(), floats[0], |s| s.unary(Op::Softmax)),
        Op::LinearCrossEntropy => linear_cross_entropy(x, operands[1], operands[2], |x, targets| {
            x.binary(Op::CrossEntropy, targets)
        }),
        Op::CrossEntropy => cross_entropy(x, operands[1]),
        Op::CausalConv => causal_conv(x, operands[1], operands[2]),
        other => unreachable!("{other} is not a composite"),
    };
    result.id
}

/// Products of the matrices in the last two axes, paired along the first `batch` axes; `over` names the axis of each
/// matrix that is summed over, 0 or 1. Result [batch..., remaining axis of x, remaining axis of y].
fn batched<'b>(x: Var<'b>, y: Var<'b>, batch: usize, over: (usize, usize)) -> Var<'b> {
    let pairs: Vec<usize> = (0..batch).collect();
    let axes = DotAxes {
        batch: (pairs.clone(), pairs),
        contract: (vec![batch + over.0], vec![batch + over.1]),
        free: (vec![batch + 1 - over.0], vec![batch + 1 - over.1]),
    };
    x.dot(y, &axes, 1.0)
}

fn softmax(x: Var<'_>) -> Var<'_> {
    let last = [x.rank() - 1];
    let shifted = x - x.max(&last).unary(Op::StopGrad).like(x);
    let weights = shifted.unary(Op::Exp);
    weights * weights.sum(&last).unary(Op::Recip).like(x)
}

/// (x - mean) / sqrt(var + eps) over the last axis, and 1 / sqrt(var + eps).
pub(crate) fn standardize(x: Var<'_>, eps: f64) -> (Var<'_>, Var<'_>) {
    let centered = x - x.mean_last().like(x);
    rms_scaled(centered, eps)
}

/// x / sqrt(mean(x^2) + eps) over the last axis, and the factor.
pub(crate) fn rms_scaled(x: Var<'_>, eps: f64) -> (Var<'_>, Var<'_>) {
    let factor = (x * x).mean_last().plus(eps).unary(Op::Sqrt).unary(Op::Recip);
    (x * factor.like(x), factor)
}
