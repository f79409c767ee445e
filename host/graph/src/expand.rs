//! Composites in terms of primitives: the meaning of each, the fallback of every device, and what keeps derivatives
//! closed under differentiation.

use ops::{Class, DType, Op};

use crate::attributes::DotAxes;
use crate::{Builder, Graph, Node, NodeId, Var, rewrite};

/// What a masked attention score is set to. Not -inf: WGSL promises nothing about infinities.
const MASKED: f64 = -1e30;

/// The graph with every composite replaced by its decomposition, to the bottom, dead nodes dropped.
pub fn expand(graph: &Graph) -> Graph {
    rewrite(graph, |graph, node, inputs| match node.op.row().class {
        Class::Composite => expand_fully(graph, node.op, inputs, &node.floats),
        _ => graph.emit(node.op, inputs, &node.ints, &node.floats),
    })
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

/// Pairs dimension i with i + D/2 and turns the pair by position / theta^(2i/D) (Su et al. 2021, eq. 34).
fn rope<'b>(x: Var<'b>, positions: Var<'b>, theta: f64) -> Var<'b> {
    let dims = x.dims();
    let (tokens, half) = (dims[2], dims[3] / 2);
    let builder = x.builder();
    let exponent = builder.iota(1, DType::F32, &[1, half]).scale(-2.0 / dims[3] as f64 * theta.ln());
    let positions = positions.cast(DType::F32).reshape(&[tokens, 1]).broadcast(&[tokens, half]);
    let angle = positions * exponent.unary(Op::Exp).broadcast(&[tokens, half]);
    let halves: Vec<(usize, usize)> = dims[..3].iter().map(|dim| (0, *dim)).collect();
    let part = |start: usize| x.slice(&[&halves[..], &[(start, half)]].concat());
    let (a, b) = (part(0), part(half));
    let (cos, sin) = (angle.unary(Op::Cos).like(a), angle.unary(Op::Sin).like(a));
    builder.concat(&[a * cos - b * sin, a * sin + b * cos], 3)
}

/// Causal attention. With G < H, each group of H / G query heads shares one key and value head.
fn attention<'b>(
    q: Var<'b>,
    k: Var<'b>,
    v: Var<'b>,
    scale: f64,
    normalize: impl FnOnce(Var<'b>) -> Var<'b>,
) -> Var<'b> {
    let (dims, groups) = (q.dims(), k.dims()[1]);
    let (batch, tokens, width) = (dims[0], dims[2], dims[3]);
    let grouped = q.reshape(&[batch, groups, dims[1] / groups, tokens, width]);
    let both =
        |of_q: &[usize], of_k: &[usize], contract: (usize, usize), free: (&[usize], &[usize])| DotAxes {
            batch: (of_q.to_vec(), of_k.to_vec()),
            contract: (vec![contract.0], vec![contract.1]),
            free: (free.0.to_vec(), free.1.to_vec()),
        };
    let scores = grouped.dot(k, &both(&[0, 1], &[0, 1], (4, 3), (&[2, 3], &[2])), scale);
    let shape = scores.dims();
    let index = |axis: usize| q.builder().iota(axis, DType::I32, &shape);
    let future = index(3).binary(Op::Lt, index(4));
    let weights = normalize(future.select(scores.constant(MASKED), scores));
    let mixed = weights.dot(v, &both(&[0, 1], &[0, 1], (4, 2), (&[2, 3], &[3])), 1.0);
    mixed.reshape(&dims)
}

/// -log softmax(x w')[target], through the shifted log-sum-exp.
fn linear_cross_entropy<'b>(x: Var<'b>, w: Var<'b>, targets: Var<'b>) -> Var<'b> {
    let last = x.rank() - 1;
    let axes = DotAxes {
        batch: (vec![], vec![]),
        contract: (vec![last], vec![1]),
        free: ((0..last).collect(), vec![0]),
    };
    let logits = x.dot(w, &axes, 1.0);
    let shape = logits.dims();
    let row = [&shape[..last], &[1]].concat();
    let peak = logits.max(&[last]).unary(Op::StopGrad);
    let shifted = logits - peak.like(logits);
    let total = shifted.unary(Op::Exp).sum(&[last]).unary(Op::Log);
    let chosen =
        x.builder().iota(last, DType::I32, &shape).binary(Op::Eq, targets.reshape(&row).broadcast(&shape));
    let picked = chosen.select(shifted, shifted.constant(0.0)).sum(&[last]);
    (total - picked).reshape(&shape[..last])
}
