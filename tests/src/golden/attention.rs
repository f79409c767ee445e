//! Softmax attention: q[B, H, Tq, D], k and v[B, G, Tk, D], under every mask that the cases have.

use plugin_api::{Attend, DType, Mask, Op, Tensor, attention_with};

use super::norm::rms_scaled;
use super::trace::{Given, Outputs};

/// Causal, within the window and after the prefix of the case where it has them. The last query stands at the last
/// key. The factor of the scores is 1 / sqrt(D), which the case may state.
fn mask<'c>(given: &Given<'c>, q: Tensor<'c>) -> Attend<'c> {
    given.fixed("scale", 1.0 / (q.dim(-1) as f64).sqrt());
    let count = |key| given.optional(key).map(|number| number as usize);
    let mask = count("window").map_or(Mask::Causal, Mask::Sliding);
    Attend::new(mask).prefix(count("prefix").unwrap_or(0))
}

/// The attention of the case over tensors that may have been normalised before.
pub fn attend<'c>(given: &Given<'c>, q: Tensor<'c>, k: Tensor<'c>, v: Tensor<'c>) -> Tensor<'c> {
    attention_with(q, k, v, mask(given, q))
}

pub fn masked<'c>(given: &Given<'c>) -> Outputs<'c> {
    let [q, k, v] = ["q", "k", "v"].map(|name| given.x(name));
    let mut outputs = vec![("o".into(), attend(given, q, k, v))];
    if given.has("lse") {
        outputs.push(("lse".into(), log_sum_of_scores(given, q, k)));
    }
    outputs
}

/// Keys of a past: a second time as a cache gives them, with more rows than are filled and the place of the first
/// query for each sequence.
pub fn after_a_past<'c>(given: &Given<'c>) -> Outputs<'c> {
    let [q, k, v] = ["q", "k", "v"].map(|name| given.x(name));
    let (batch, queries, keys) = (q.dim(0), q.dim(2), k.dim(2));
    let each = |value: usize| given.cx.constant(value as f64, DType::I32, &[batch]);
    // What lies behind the filled rows is not to be seen, so it should be something that shows.
    let stale = |x: Tensor<'c>| given.cx.emit(Op::Pad, &[x], &[0, 0, 0, 0, 0, 2, 0, 0], &[1e3]);
    let cache = mask(given, q).q_offset(each(keys.saturating_sub(queries))).kv_len(each(keys));
    let cached = attention_with(q, stale(k), stale(v), cache);
    vec![("o".into(), attend(given, q, k, v)), ("o".into(), cached)]
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
    position(2).less(position(3)).select(masked, scores).logsumexp()
}

/// Unit queries and keys; a temperature per query head stands in place of the scale.
pub fn unit_with_temperature<'c>(given: &Given<'c>) -> Outputs<'c> {
    let eps = given.number("eps");
    let [q, k] = ["q", "k"].map(|name| given.x(name).l2_normalize(eps));
    let warm = q * given.x("temperature").reshape(&[q.dim(1), 1, 1]);
    vec![("o".into(), attention_with(warm, k, given.x("v"), Attend::new(Mask::Causal).scale(1.0)))]
}

pub fn rms_normed<'c>(given: &Given<'c>) -> Outputs<'c> {
    let q = rms_scaled(given, given.x("q"), "q_gain");
    let k = rms_scaled(given, given.x("k"), "k_gain");
    vec![("o".into(), attend(given, q, k, given.x("v")))]
}
