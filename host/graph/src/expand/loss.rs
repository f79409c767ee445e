//! Cross-entropy from logits, and from a hidden state and the rows of a language-model head. A target outside 0..V is
//! ignored: its loss is 0, and so is its gradient.

use ops::{DType, Op};

use crate::Var;
use crate::attributes::DotAxes;

/// -log softmax(x w')[target] for x[..., D], w[V, D], targets[...]; `loss` takes logits and targets.
pub fn linear_cross_entropy<'b>(
    x: Var<'b>,
    w: Var<'b>,
    targets: Var<'b>,
    loss: impl FnOnce(Var<'b>, Var<'b>) -> Var<'b>,
) -> Var<'b> {
    loss(logits(x, w), targets)
}

/// Cotangents of x[..., D] and w[V, D] from that of the losses, [...]: products with the cotangent of the logits.
pub fn linear_cross_entropy_grad<'b>(x: Var<'b>, w: Var<'b>, targets: Var<'b>, ct: Var<'b>) -> [Var<'b>; 2] {
    let ct_logits = cross_entropy_cotangent(logits(x, w), targets, ct);
    let last = x.rank() - 1;
    let rows: Vec<usize> = (0..last).collect();
    let product = |contract: (Vec<usize>, Vec<usize>), free: (Vec<usize>, Vec<usize>)| DotAxes {
        batch: (vec![], vec![]),
        contract,
        free,
    };
    let ct_x = ct_logits.dot(w, &product((vec![last], vec![0]), (rows.clone(), vec![1])), 1.0);
    let ct_w = ct_logits.dot(x, &product((rows.clone(), rows), (vec![last], vec![last])), 1.0);
    [ct_x, ct_w]
}

/// x w': [..., V].
fn logits<'b>(x: Var<'b>, w: Var<'b>) -> Var<'b> {
    let last = x.rank() - 1;
    let axes = DotAxes {
        batch: (vec![], vec![]),
        contract: (vec![last], vec![1]),
        free: ((0..last).collect(), vec![0]),
    };
    x.dot(w, &axes, 1.0)
}

/// -log softmax(logits)[target] for logits[..., V] and targets[...], through the shifted log-sum-exp.
pub fn cross_entropy<'b>(logits: Var<'b>, targets: Var<'b>) -> Var<'b> {
    let Parts { last, shifted, weights, targets } = parts(logits, targets);
    let total = weights.sum(&[last]).unary(Op::Log);
    let picked = chosen(logits, targets).select(shifted, shifted.constant(0.0)).sum(&[last]);
    let loss = valid(logits, targets).select(total - picked, total.constant(0.0));
    loss.reshape(&logits.dims()[..last])
}

/// Cotangent of the logits: ct (softmax - one-hot), 0 where the target is ignored. Built on the nodes of the value.
pub(crate) fn cross_entropy_cotangent<'b>(logits: Var<'b>, targets: Var<'b>, ct: Var<'b>) -> Var<'b> {
    let Parts { last, weights, targets, .. } = parts(logits, targets);
    let ct = ct.reshape(&targets.dims());
    let ct = valid(logits, targets).select(ct, ct.constant(0.0));
    let softmax = weights * (ct / weights.sum(&[last])).like(logits);
    softmax - chosen(logits, targets).select(ct.like(logits), logits.constant(0.0))
}

struct Parts<'b> {
    last: usize,
    /// Logits less the largest of their row. The result does not depend on what is subtracted, so no cotangent
    /// passes there.
    shifted: Var<'b>,
    weights: Var<'b>,
    /// [..., 1]
    targets: Var<'b>,
}

fn parts<'b>(logits: Var<'b>, targets: Var<'b>) -> Parts<'b> {
    let shape = logits.dims();
    let last = shape.len() - 1;
    let peak = logits.max(&[last]).unary(Op::StopGrad);
    let shifted = logits - peak.like(logits);
    let weights = shifted.unary(Op::Exp);
    Parts { last, shifted, weights, targets: targets.reshape(&[&shape[..last], &[1]].concat()) }
}

/// Where the index along the last axis is the target.
fn chosen<'b>(logits: Var<'b>, targets: Var<'b>) -> Var<'b> {
    let shape = logits.dims();
    let index = logits.builder().iota(shape.len() - 1, DType::I32, &shape);
    index.binary(Op::Eq, targets.broadcast(&shape))
}

/// Whether the target is in 0..V: as an unsigned number, a negative one is large.
fn valid<'b>(logits: Var<'b>, targets: Var<'b>) -> Var<'b> {
    let count = logits.dims()[logits.rank() - 1];
    let unsigned = targets.bitcast(DType::U32);
    unsigned.binary(Op::Lt, unsigned.constant(count as f64))
}
