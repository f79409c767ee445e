//! Normalisations over the last axis.

use plugin_api::{Op, Tensor};

use super::trace::{Given, Outputs};

pub fn rms_norm<'c>(given: &Given<'c>) -> Outputs<'c> {
    vec![("y".into(), rms_scaled(given, given.x("x"), "gain"))]
}

/// x / sqrt(mean(x^2) + eps) times a gain of the case.
pub fn rms_scaled<'c>(given: &Given<'c>, x: Tensor<'c>, gain: &str) -> Tensor<'c> {
    given.cx.emit(Op::RmsNorm, &[x, given.x(gain)], &[], &[given.number("eps")])
}

pub fn layer_norm<'c>(given: &Given<'c>) -> Outputs<'c> {
    let operands = [given.x("x"), given.x("gain"), given.x("bias")];
    vec![("y".into(), given.cx.emit(Op::LayerNorm, &operands, &[], &[given.number("eps")]))]
}

pub fn softmax<'c>(given: &Given<'c>) -> Outputs<'c> {
    vec![("y".into(), given.x("x").softmax())]
}

pub fn log_sum_exp<'c>(given: &Given<'c>) -> Outputs<'c> {
    vec![("y".into(), log_sum_exp_last(given.x("x")))]
}

/// log of the sum of e^x over the last axis, which is removed.
pub fn log_sum_exp_last(x: Tensor<'_>) -> Tensor<'_> {
    let mut dims = x.dims();
    let last = dims.len().saturating_sub(1);
    dims.pop();
    let peak = x.maximum_over(&[last]).stop_grad();
    (peak + (x - peak).exp().sum(&[last]).ln()).reshape(&dims)
}

pub fn l2_bounded<'c>(given: &Given<'c>) -> Outputs<'c> {
    vec![("y".into(), unit(given.x("x"), given.number("eps")))]
}

/// x / max(|x|, eps). The bound is on the square, so that the root has a derivative everywhere.
pub fn unit(x: Tensor<'_>, eps: f64) -> Tensor<'_> {
    let square = squared_norm(x);
    let bound = square.cx().constant(eps * eps, square.dtype(), &square.dims());
    x * square.max(bound).sqrt().recip()
}

pub fn l2_smooth<'c>(given: &Given<'c>) -> Outputs<'c> {
    let x = given.x("x");
    vec![("y".into(), x * (squared_norm(x) + given.number("eps")).sqrt().recip())]
}

fn squared_norm(x: Tensor<'_>) -> Tensor<'_> {
    x.square().sum(&[x.rank().saturating_sub(1)])
}
