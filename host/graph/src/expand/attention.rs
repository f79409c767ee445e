//! Softmax attention in terms of two products and a softmax, with a mask that is no larger than what can be hidden.

use ops::attention::{KEY_SEGMENTS, KV_LEN, Q_OFFSET, QUERY_SEGMENTS};
use ops::{DType, Op};

use crate::Var;
use crate::attributes::{AttentionMask, DotAxes};

/// What a masked score or exponent is set to: its exponential is 0. Not -inf: WGSL promises nothing about infinities.
pub(super) const MASKED: f64 = -1e30;

/// `operands` are q[B, H, Tq, D], k[B, G, Tk, D], v[B, G, Tk, Dv] and those that `mask` names; the result is
/// [B, H, Tq, Dv]. With G < H, each group of H / G query heads shares one key and value head.
pub fn attention<'b>(
    operands: &[Var<'b>],
    mask: AttentionMask,
    scale: f64,
    normalize: impl FnOnce(Var<'b>) -> Var<'b>,
) -> Var<'b> {
    let scores = Scores::new(operands, mask, scale);
    let weights = scores.shown(normalize(scores.masked));
    let mixed = weights.dot(operands[2], &paired((&[4], &[2]), (&[2, 3], &[3])), 1.0);
    scores.of_heads(mixed)
}

/// Log of the sum of exponentials of the scores a query sees, [B, H, Tq]; 0 where it sees no key.
pub fn attention_lse<'b>(operands: &[Var<'b>], mask: AttentionMask, scale: f64) -> Var<'b> {
    let scores = Scores::new(operands, mask, scale);
    let largest = scores.masked.max(&[4]).unary(Op::StopGrad);
    let sum = (scores.masked - largest.like(scores.masked)).unary(Op::Exp).sum(&[4]);
    let lse = largest + sum.unary(Op::Log);
    let lse = match scores.hidden {
        Some(Hidden { maybe_all: true, .. }) => {
            let sees_none = largest.binary(Op::Lt, largest.constant(0.5 * MASKED));
            sees_none.select(lse.constant(0.0), lse)
        }
        _ => lse,
    };
    lse.reshape(&operands[0].dims()[..3])
}

/// Cotangents of q, k and v. `operands` are those of the attention, its result, its log-sum-exp and the cotangent of
/// its result. Result and log-sum-exp only help kernels: here the weights come from q and k, so that a derivative of
/// this misses no way on which they act.
pub fn attention_grad<'b>(
    operands: &[Var<'b>],
    mask: AttentionMask,
    scale: f64,
    normalize: impl FnOnce(Var<'b>) -> Var<'b>,
) -> [Var<'b>; 3] {
    let scores = Scores::new(operands, mask, scale);
    let (k, v) = (operands[1], operands[2]);
    let ct = scores.of_groups(operands[operands.len() - 1]);
    let weights = normalize(scores.masked);
    let shown = scores.shown(weights);
    // Both heads and queries of a group add to the cotangent of a key or value.
    let per_key: (&[usize], &[usize]) = (&[2, 3], &[2, 3]);
    let ct_v = shown.dot(ct, &paired(per_key, (&[4], &[4])), 1.0);
    let ct_weights = scores.shown(ct.dot(v, &paired((&[4], &[3]), (&[2, 3], &[2])), 1.0));
    let ct_scores = weights * (ct_weights - (ct_weights * weights).sum(&[4]).like(weights));
    let ct_scores = match &scores.hidden {
        Some(hidden) => hidden.keys.select(ct_scores.constant(0.0), ct_scores),
        None => ct_scores,
    };
    let ct_q = ct_scores.dot(k, &paired((&[4], &[2]), (&[2, 3], &[3])), scale);
    let ct_k = ct_scores.dot(scores.grouped, &paired(per_key, (&[4], &[4])), scale);
    [scores.of_heads(ct_q), ct_k, ct_v]
}

/// A product per sequence and group.
fn paired(contract: (&[usize], &[usize]), free: (&[usize], &[usize])) -> DotAxes {
    let both = |axes: (&[usize], &[usize])| (axes.0.to_vec(), axes.1.to_vec());
    DotAxes { batch: both((&[0, 1], &[0, 1])), contract: both(contract), free: both(free) }
}

struct Scores<'b> {
    /// Queries [B, G, H / G, Tq, D].
    grouped: Var<'b>,
    /// [B, G, H / G, Tq, Tk], `MASKED` where the query does not see the key.
    masked: Var<'b>,
    hidden: Option<Hidden<'b>>,
}

impl<'b> Scores<'b> {
    fn new(operands: &[Var<'b>], mask: AttentionMask, scale: f64) -> Scores<'b> {
        let (q, k) = (operands[0], operands[1]);
        let (dims, groups) = (q.dims(), k.dims()[1]);
        let grouped = q.reshape(&[dims[0], groups, dims[1] / groups, dims[2], dims[3]]);
        let scores = grouped.dot(k, &paired((&[4], &[3]), (&[2, 3], &[2])), scale);
        let hidden = hidden(scores, operands, mask);
        let masked = match &hidden {
            None => scores,
            Some(hidden) => hidden.keys.select(scores.constant(MASKED), scores),
        };
        Scores { grouped, masked, hidden }
    }

    /// Softmax over masked scores alone is uniform; masking its weights too makes the value and each cotangent 0.
    fn shown(&self, weights: Var<'b>) -> Var<'b> {
        match &self.hidden {
            Some(Hidden { keys, maybe_all: true }) => keys.select(weights.constant(0.0), weights),
            _ => weights,
        }
    }

    /// [B, G, H / G, Tq, X] as [B, H, Tq, X].
    fn of_heads(&self, x: Var<'b>) -> Var<'b> {
        let dims = x.dims();
        x.reshape(&[dims[0], dims[1] * dims[2], dims[3], dims[4]])
    }

    /// [B, H, Tq, X] as [B, G, H / G, Tq, X].
    fn of_groups(&self, x: Var<'b>) -> Var<'b> {
        let (dims, groups) = (x.dims(), self.grouped.dims());
        x.reshape(&[dims[0], groups[1], groups[2], dims[2], dims[3]])
    }
}

struct Hidden<'b> {
    /// Bool, of the scores' shape.
    keys: Var<'b>,
    /// Whether a query may see no key.
    maybe_all: bool,
}

/// What queries must not see of scores[B, G, H / G, Tq, Tk]; None if nothing is hidden. A condition that no query can
/// fail is left out. Positions are counted from the first key, prefix included.
fn hidden<'b>(scores: Var<'b>, operands: &[Var<'b>], mask: AttentionMask) -> Option<Hidden<'b>> {
    let shape = scores.dims();
    let (batch, queries, keys) = (shape[0], shape[3], shape[4]);
    let operand = |bit: i64| mask.operand(bit).map(|index| operands[index]);
    let index = |axis: usize| scores.builder().iota(axis, DType::I32, &shape);
    let shifted = |x: Var<'b>, by: i64| if by == 0 { x } else { x.plus(by as f64) };
    let spread = |x: Var<'b>, dims: [usize; 5]| x.reshape(&dims).broadcast(&shape);
    let per_sequence = |x: Var<'b>| spread(x, [batch, 1, 1, 1, 1]);
    let prefix = mask.prefix as i64;
    let offset = operand(Q_OFFSET);
    let position = || match offset {
        Some(offset) => index(3) + per_sequence(shifted(offset, prefix)),
        None => shifted(index(3), keys as i64 - queries as i64),
    };

    let mut conditions = Vec::new();
    // One query without an offset stands at the last key.
    if mask.causal && (offset.is_some() || queries > 1) {
        conditions.push(position().binary(Op::Lt, index(4)));
    }
    let reach = keys.saturating_sub(mask.prefix);
    if mask.window > 0 && (offset.is_some() || mask.window < reach) {
        conditions.push(index(4).binary(Op::Lt, shifted(position(), 1 - mask.window as i64)));
    }
    if let Some(length) = operand(KV_LEN) {
        conditions.push(per_sequence(shifted(length, prefix - 1)).binary(Op::Lt, index(4)));
    }
    if let (Some(of_queries), Some(of_keys)) = (operand(QUERY_SEGMENTS), operand(KEY_SEGMENTS)) {
        let of_queries = spread(of_queries, [batch, 1, 1, queries, 1]);
        let same = of_queries.binary(Op::Eq, spread(of_keys, [batch, 1, 1, 1, keys]));
        conditions.push(same.binary(Op::Xor, same.constant(1.0)));
    }
    let hidden = conditions.into_iter().reduce(|all, condition| all.binary(Op::Or, condition))?;

    let sequence_is_short = reach < queries;
    let only_causal = mask.arity() == 3 && mask.window == 0;
    if prefix == 0 {
        return Some(Hidden {
            keys: hidden,
            maybe_all: mask.arity() > 3 || (mask.causal && sequence_is_short),
        });
    }
    // Queries that stand at the last keys have the prefix behind them anyway.
    if only_causal && !sequence_is_short {
        return Some(Hidden { keys: hidden, maybe_all: false });
    }
    let last_of_prefix = index(4).constant((prefix - 1) as f64);
    let after_prefix = last_of_prefix.binary(Op::Lt, index(4));
    Some(Hidden { keys: hidden.binary(Op::And, after_prefix), maybe_all: false })
}
