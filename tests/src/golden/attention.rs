//! Causal attention: q[B, H, T, D], k and v[B, G, T, D].

use plugin_api::{DType, Op, Tensor};

use super::norm::{log_sum_exp_last, rms_scaled, unit};
use super::trace::{Given, Outputs};

/// The façade's attention of tensors that may have been normalised before; it scales by 1 / sqrt(D).
pub fn attend<'c>(given: &Given<'c>, q: Tensor<'c>, k: Tensor<'c>, v: Tensor<'c>) -> Tensor<'c> {
    given.fixed("scale", 1.0 / (q.dim(-1) as f64).sqrt());
    plugin_api::attention(q, k, v)
}

pub fn causal<'c>(given: &Given<'c>) -> Outputs<'c> {
    let [q, k, v] = ["q", "k", "v"].map(|name| given.x(name));
    let mut outputs = vec![("o".into(), attend(given, q, k, v))];
    if given.has("lse") {
        outputs.push(("lse".into(), log_sum_of_scores(given, q, k)));
    }
    outputs
}

/// log sum_j e^(scale q_i k_j) over j <= i, [B, H, T]: what a fused backward keeps of the softmax.
fn log_sum_of_scores<'c>(given: &Given<'c>, q: Tensor<'c>, k: Tensor<'c>) -> Tensor<'c> {
    let (b, h, t, d) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3));
    let groups = k.dim(1);
    let heads = k.reshape(&[b, groups, 1, t, d]).repeat(&[b, groups, h / groups.max(1), t, d]);
    let axes = [2, 1, 0, 1, 0, 1, 3, 3];
    let scores = given.cx.emit(Op::Dot, &[q, heads.reshape(&[b, h, t, d])], &axes, &[given.number("scale")]);
    let position = |axis: i64| {
        given.cx.emit(Op::Iota, &[], &[axis, DType::I32 as i64, b as i64, h as i64, t as i64, t as i64], &[])
    };
    let masked = given.cx.constant(-1e30, DType::F32, &[b, h, t, t]);
    log_sum_exp_last(position(2).less(position(3)).select(masked, scores))
}

/// Unit queries and keys; a temperature per query head stands in place of the scale.
pub fn unit_with_temperature<'c>(given: &Given<'c>) -> Outputs<'c> {
    let eps = given.number("eps");
    let [q, k] = ["q", "k"].map(|name| unit(given.x(name), eps));
    let warm = q * given.x("temperature").reshape(&[q.dim(1), 1, 1]);
    vec![("o".into(), given.cx.emit(Op::Attention, &[warm, k, given.x("v")], &[], &[1.0]))]
}

pub fn rms_normed<'c>(given: &Given<'c>) -> Outputs<'c> {
    let q = rms_scaled(given, given.x("q"), "q_gain");
    let k = rms_scaled(given, given.x("k"), "k_gain");
    vec![("o".into(), attend(given, q, k, given.x("v")))]
}
