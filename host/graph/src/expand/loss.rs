//! Cross-entropy from a hidden state and the rows of a language-model head.

use ops::{DType, Op};

use crate::Var;
use crate::attributes::DotAxes;

/// -log softmax(x w')[target], through the shifted log-sum-exp.
pub fn linear_cross_entropy<'b>(x: Var<'b>, w: Var<'b>, targets: Var<'b>) -> Var<'b> {
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
