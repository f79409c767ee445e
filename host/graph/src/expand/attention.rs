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
    let (q, k, v) = (operands[0], operands[1], operands[2]);
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
    let weights = match hidden(scores, operands, mask) {
        None => normalize(scores),
        Some(Hidden { keys, maybe_all: false }) => normalize(keys.select(scores.constant(MASKED), scores)),
        // Softmax over masked scores alone is uniform; masking its weights too makes the value and each cotangent 0.
        Some(Hidden { keys, maybe_all: true }) => {
            let weights = normalize(keys.select(scores.constant(MASKED), scores));
            keys.select(weights.constant(0.0), weights)
        }
    };
    let mixed = weights.dot(v, &both(&[0, 1], &[0, 1], (4, 2), (&[2, 3], &[3])), 1.0);
    mixed.reshape(&[batch, dims[1], tokens, v.dims()[3]])
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
