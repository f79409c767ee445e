//! Composites in terms of primitives: the meaning of each, the fallback of every device, and what keeps derivatives
//! closed under differentiation.

mod attention;
mod loss;
mod rope;

use std::sync::Arc;

use ops::{Class, Op};

use attention::attention;
use loss::linear_cross_entropy;
use rope::rope;

use crate::{Builder, Graph, Node, NodeId, Var, rewrite};

/// The graph with every composite replaced by its decomposition, to the bottom, dead nodes dropped.
pub fn expand(graph: &Graph) -> Graph {
    let mut expanded = rewrite(graph, |graph, node, inputs| match node.op.row().class {
        Class::Composite => expand_fully(graph, node.op, inputs, &node.floats),
        _ => graph.emit(node.op, inputs, &node.ints, &node.floats),
    });
    for body in &mut expanded.bodies {
        *body = Arc::new(expand(body));
    }
    expanded
}

/// A composite inside a decomposition is emitted as a composite; here it is taken apart as well.
fn expand_fully(graph: &mut Graph, op: Op, inputs: &[NodeId], floats: &[f64]) -> NodeId {
    if op == Op::Attention {
        return Builder::with(graph, |b| {
            let [q, k, v] = [0, 1, 2].map(|index: usize| b.var(inputs[index]));
            attention(q, k, v, floats[0], softmax).id
        });
    }
    decompose(graph, op, inputs, floats)
}

/// Emits the decomposition of one composite node.
pub fn expand_node(graph: &mut Graph, node: &Node) -> NodeId {
    decompose(graph, node.op, &node.inputs, &node.floats)
}

fn decompose(graph: &mut Graph, op: Op, inputs: &[NodeId], floats: &[f64]) -> NodeId {
    Builder::with(graph, |b| {
        let x = b.var(inputs[0]);
        let operand = |index: usize| b.var(inputs[index]);
        match op {
            Op::Softmax => softmax(x),
            Op::LayerNorm => {
                let (normal, _) = standardize(x, floats[0]);
                let scaled = normal * operand(1).like(x);
                if inputs.len() == 3 { scaled + operand(2).like(x) } else { scaled }
            }
            Op::RmsNorm => rms_scaled(x, floats[0]).0 * operand(1).like(x),
            Op::Rope => rope(x, operand(1), floats[0]),
            Op::Attention => attention(x, operand(1), operand(2), floats[0], |s| s.unary(Op::Softmax)),
            Op::LinearCrossEntropy => linear_cross_entropy(x, operand(1), operand(2)),
            other => unreachable!("{other} is not a composite"),
        }
        .id
    })
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
