//! Softmax attention, and what its queries see.

use ops::attention::{KEY_SEGMENTS, KV_LEN, QUERY_SEGMENTS, Q_OFFSET};

use crate::{Op, Tensor};

/// Which keys a query sees, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Those up to its own position.
    Causal,
    /// All.
    Full,
    /// This many, its own position and those before it.
    Sliding(usize),
}

/// How to attend: a mask, and what a model or a cache adds to it.
///
/// The last query stands at the last key, unless [`Attend::q_offset`] says where the first one stands.
#[derive(Clone, Copy)]
pub struct Attend<'c> {
    mask: Mask,
    prefix: usize,
    q_offset: Option<Tensor<'c>>,
    kv_len: Option<Tensor<'c>>,
    segments: Option<(Tensor<'c>, Tensor<'c>)>,
    scale: Option<f64>,
}

impl<'c> From<Mask> for Attend<'c> {
    fn from(mask: Mask) -> Attend<'c> {
        Attend::new(mask)
    }
}

impl<'c> Attend<'c> {
    pub fn new(mask: Mask) -> Attend<'c> {
        Attend { mask, prefix: 0, q_offset: None, kv_len: None, segments: None, scale: None }
    }

    /// The first `keys` keys are no positions: every query sees them (persistent tokens, attention sinks).
    pub fn prefix(self, keys: usize) -> Attend<'c> {
        Attend { prefix: keys, ..self }
    }

    /// Position of each sequence's first query, i32 `[B]`.
    pub fn q_offset(self, positions_b: Tensor<'c>) -> Attend<'c> {
        Attend { q_offset: Some(positions_b), ..self }
    }

    /// How many positions of each sequence's keys are filled, i32 `[B]`; the prefix does not count.
    pub fn kv_len(self, lengths_b: Tensor<'c>) -> Attend<'c> {
        Attend { kv_len: Some(lengths_b), ..self }
    }

    /// Queries see keys of their own segment only: i32 `[B, Tq]` and `[B, Tk]`.
    pub fn segments(self, of_queries: Tensor<'c>, of_keys: Tensor<'c>) -> Attend<'c> {
        Attend { segments: Some((of_queries, of_keys)), ..self }
    }

    /// Factor of the scores, in place of 1 / sqrt(D).
    pub fn scale(self, factor: f64) -> Attend<'c> {
        Attend { scale: Some(factor), ..self }
    }
}

/// Causal softmax attention: `q[B, H, T, D]`, `k` and `v` `[B, G, T, D]`, scores scaled by 1 / sqrt(D).
#[track_caller]
pub fn attention<'c>(q: Tensor<'c>, k: Tensor<'c>, v: Tensor<'c>) -> Tensor<'c> {
    let scale = default_scale(q);
    q.cx().emit(Op::Attention, &[q, k, v], &[], &[scale])
}

/// Softmax attention under a mask: `q[B, H, Tq, D]`, `k[B, G, Tk, D]`, `v[B, G, Tk, E]` to `[B, H, Tq, E]`, where G
/// divides H. A query that sees no key gives 0.
///
/// ```
/// # use plugin_api::prelude::*;
/// # fn trace<'c>([q, k, v]: [Tensor<'c>; 3], ids: Tensor<'c>) {
/// attention_with(q, k, v, Mask::Sliding(256));
/// attention_with(q, k, v, Attend::new(Mask::Causal).prefix(4).segments(ids, ids));
/// # }
/// ```
#[track_caller]
pub fn attention_with<'c>(
    q: Tensor<'c>,
    k: Tensor<'c>,
    v: Tensor<'c>,
    how: impl Into<Attend<'c>>,
) -> Tensor<'c> {
    let how = how.into();
    let (causal, window) = match how.mask {
        Mask::Causal => (1, 0),
        Mask::Full => (0, 0),
        Mask::Sliding(0) => {
            return q.cx().fail("a sliding window of 0 positions sees nothing; 1 is the query itself")
        }
        Mask::Sliding(window) => (1, window as i64),
    };
    let optional = [
        (Q_OFFSET, how.q_offset),
        (KV_LEN, how.kv_len),
        (QUERY_SEGMENTS, how.segments.map(|pair| pair.0)),
        (KEY_SEGMENTS, how.segments.map(|pair| pair.1)),
    ];
    let mut inputs = vec![q, k, v];
    let mut operands = 0;
    for (bit, tensor) in optional {
        if let Some(tensor) = tensor {
            inputs.push(tensor);
            operands |= bit;
        }
    }
    let scale = how.scale.unwrap_or_else(|| default_scale(q));
    q.cx().emit(Op::Attention, &inputs, &[causal, window, how.prefix as i64, operands], &[scale])
}

fn default_scale(q: Tensor<'_>) -> f64 {
    1.0 / (q.dim(-1) as f64).sqrt()
}
