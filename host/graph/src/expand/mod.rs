//! Composites in terms of primitives: the meaning of each, the fallback of every device, and what keeps derivatives
//! closed under differentiation.

mod attention;
mod chunks;
mod conv;
mod delta;
mod loss;
mod pulled;
mod recurrence;
mod rope;
mod triangular;

use std::sync::Arc;

use ops::{Class, Op};

use attention::{attention, attention_grad, attention_lse};
use conv::causal_conv;
use loss::{cross_entropy, linear_cross_entropy, linear_cross_entropy_grad};
use recurrence::recurrence;
use rope::rope;

pub use delta::{gated_delta_rule, linear_attention};
pub(crate) use loss::cross_entropy_cotangent;
pub(crate) use pulled::as_it_is;

use crate::attributes::DotAxes;
use crate::infer::DELTA_OPERANDS;
use crate::rewrite::{Rewritten, compact, rewrite_regions};
use crate::{Builder, Graph, Node, NodeId, Var};

/// Tokens of a chunk of a linear recurrence where the op does not say.
pub(crate) const DEFAULT_CHUNK: usize = 64;

/// Which of two decompositions a linear recurrence gets.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Token by token: its definition.
    Tokens,
    /// In chunks: the same numbers with few, large products.
    Chunks,
}

/// The graph with every composite replaced by its decomposition, to the bottom, dead nodes dropped: what a device
/// without hand kernels runs.
pub fn expand(graph: &Graph) -> Graph {
    expand_except(graph, &|_, _| false)
}

/// [`expand`] for a device that has hand kernels: composites for which `keeps` holds stay as they are. It is asked
/// with the graph that the node stands in.
pub fn expand_except(graph: &Graph, keeps: &Keeps) -> Graph {
    expand_as(graph, Form::Chunks, keeps)
}

/// Whether a composite stays.
pub type Keeps<'k> = dyn Fn(&Graph, &Node) -> bool + 'k;

/// [`expand`] by definitions: linear recurrences run token by token. The interpreter evaluates this.
pub fn meaning(graph: &Graph) -> Graph {
    compact(&expand_as(graph, Form::Tokens, &|_, _| false))
}

fn expand_as(graph: &Graph, form: Form, keeps: &Keeps) -> Graph {
    let source = graph;
    let mut expanded = rewrite_regions(graph, |graph, node, inputs| match node.op.row().class {
        Class::Composite if !keeps(source, node) => expand_fully(graph, node, inputs, form),
        _ => Rewritten::One(graph.emit(node.op, inputs, &node.ints, &node.floats)),
    });
    // Bodies that the decomposition of a composite has added hold no composites.
    for body in &mut expanded.bodies {
        let again = body.ids().any(|id| body.class(id) == Class::Composite) || !body.bodies.is_empty();
        if again {
            *body = Arc::new(compact(&expand_as(body, form, keeps)));
        }
    }
    expanded
}

/// A composite inside a decomposition is emitted as a composite; here it is taken apart as well.
fn expand_fully(graph: &mut Graph, node: &Node, inputs: &[NodeId], form: Form) -> Rewritten {
    let mut results = Builder::with(graph, |b| {
        let operands = vars(b, inputs);
        match node.op {
            Op::Attention => vec![attention(&operands, node.attention_mask(), node.floats[0], softmax).id],
            Op::AttentionGrad => attention_grad(&operands, node.attention_mask(), node.floats[0], softmax)
                .map(|ct| ct.id)
                .into(),
            Op::LinearCrossEntropy => {
                vec![linear_cross_entropy(operands[0], operands[1], operands[2], cross_entropy).id]
            }
            _ => decompose(b, node, inputs, form),
        }
    });
    match node.op {
        Op::GatedDeltaRule | Op::LinearAttention => Rewritten::Many(results),
        Op::AttentionGrad | Op::GatedDeltaRuleGrad | Op::LinearCrossEntropyGrad => Rewritten::Many(results),
        _ => Rewritten::One(results.pop().unwrap_or(NodeId::POISON)),
    }
}

/// Emits the decomposition of one composite node; gives one node for each of its results.
pub fn expand_node(graph: &mut Graph, node: &Node) -> Vec<NodeId> {
    Builder::with(graph, |b| decompose(b, node, &node.inputs, Form::Chunks))
}

fn vars<'b>(b: &'b Builder, inputs: &[NodeId]) -> Vec<Var<'b>> {
    inputs.iter().map(|id| b.var(*id)).collect()
}

fn decompose(b: &Builder, node: &Node, inputs: &[NodeId], form: Form) -> Vec<NodeId> {
    let (operands, floats) = (vars(b, inputs), &node.floats);
    let x = operands[0];
    if matches!(node.op, Op::GatedDeltaRule | Op::LinearAttention) {
        return linear_recurrence(&operands, node, form).into_iter().map(|result| result.id).collect();
    }
    if node.op == Op::GatedDeltaRuleGrad {
        return recurrence_grad(b, inputs, node, form);
    }
    if node.op == Op::AttentionGrad {
        let (mask, scale) = (node.attention_mask(), floats[0]);
        return attention_grad(&operands, mask, scale, |s| s.unary(Op::Softmax)).map(|ct| ct.id).into();
    }
    if node.op == Op::LinearCrossEntropyGrad {
        return linear_cross_entropy_grad(x, operands[1], operands[2], operands[3]).map(|ct| ct.id).into();
    }
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
        Op::AttentionLse => attention_lse(&operands, node.attention_mask(), floats[0]),
        Op::LinearCrossEntropy => linear_cross_entropy(x, operands[1], operands[2], |x, targets| {
            x.binary(Op::CrossEntropy, targets)
        }),
        Op::CrossEntropy => cross_entropy(x, operands[1]),
        Op::CausalConv => causal_conv(x, operands[1], operands[2]),
        other => unreachable!("{other} is not a composite"),
    };
    vec![result.id]
}

/// The output and the last state.
fn linear_recurrence<'b>(x: &[Var<'b>], node: &Node, form: Form) -> Vec<Var<'b>> {
    let beta = (node.op != Op::LinearAttention).then(|| x[4]);
    let state = x[x.len() - 1];
    if form == Form::Tokens {
        return recurrence([x[0], x[1], x[2]], x[3], beta, state);
    }
    let chunk = node.ints.first().map_or(DEFAULT_CHUNK, |chunk| *chunk as usize);
    let (outputs, last) = match beta {
        Some(beta) => gated_delta_rule(x[0], x[1], x[2], x[3], beta, state, chunk),
        None => linear_attention(x[0], x[1], x[2], x[3], state, chunk),
    };
    vec![outputs, last]
}

/// The derivative of the recurrence's own decomposition: each form has that of its formulas, and so has a derivative of
/// this.
fn recurrence_grad(b: &Builder, inputs: &[NodeId], node: &Node, form: Form) -> Vec<NodeId> {
    pulled::cotangents(b, inputs, DELTA_OPERANDS, &node.delta_cotangents(), |operands| {
        linear_recurrence(operands, node, form)
    })
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
