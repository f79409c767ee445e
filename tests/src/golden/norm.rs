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
    vec![("y".into(), given.x("x").logsumexp())]
}

pub fn l2_bounded<'c>(given: &Given<'c>) -> Outputs<'c> {
    vec![("y".into(), given.x("x").l2_normalize(given.number("eps")))]
}

pub fn l2_smooth<'c>(given: &Given<'c>) -> Outputs<'c> {
    vec![("y".into(), given.x("x").l2_normalize_rsqrt(given.number("eps")))]
}
