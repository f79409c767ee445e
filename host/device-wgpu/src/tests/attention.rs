//! Attention, forward and backward, against plain loops in double precision.

use plan::{Attention, AttentionGrad, AttentionShape, Heads, LaunchOp, Numbers, Slot};

use super::{Random, any_adapter, run, single, valid};
use crate::Tiles;

/// `[B, heads, T, D]`, row-major.
fn dense(slot: Slot, heads: usize, tokens: usize, width: usize) -> Heads {
    Heads { slot, batch: heads * tokens * width, head: tokens * width, token: width, element: 1 }
}

struct Case {
    shape: AttentionShape,
    /// Words of q, k, v, cotangent of the result, q_offset, kv_len and segments.
    given: Vec<Vec<u32>>,
}

impl Case {
    fn new(masked: bool) -> Case {
        let (batch, heads, groups, queries, keys, width, value_width) = (2, 4, 2, 21, 37, 9, 18);
        let shape = AttentionShape {
            batch,
            heads,
            groups,
            queries,
            keys,
            width,
            value_width,
            scale: 0.4,
            causal: true,
            window: if masked { 11 } else { 0 },
            prefix: if masked { 3 } else { 0 },
            q_offset: None,
            kv_len: None,
            segments: None,
        };
        let mut random = Random(5);
        let mut floats = |count: usize| (0..count).map(|_| random.float().to_bits()).collect::<Vec<u32>>();
        let mut given = vec![
            floats(batch * heads * queries * width),
            floats(batch * groups * keys * width),
            floats(batch * groups * keys * value_width),
            floats(batch * heads * queries * value_width),
        ];
        given.push(vec![5, 14]);
        given.push(vec![30, 17]);
        given.push((0..batch * queries).map(|i| u32::from(i % 5 == 0)).collect());
        given.push((0..batch * keys).map(|i| u32::from(i % 3 == 0)).collect());
        Case { shape, given }
    }

    fn with_numbers(&self, masked: bool, slots: &[Slot]) -> AttentionShape {
        let mut shape = self.shape.clone();
        if masked {
            let numbers = |slot, batch, token| Numbers { slot, batch, token };
            shape.q_offset = Some(numbers(slots[0], 1, 0));
            shape.kv_len = Some(numbers(slots[1], 1, 0));
            shape.segments = Some((numbers(slots[2], shape.queries, 1), numbers(slots[3], shape.keys, 1)));
        }
        shape
    }

    /// Weights of each query of a head over the keys, and the log-sum-exp.
    fn weights(&self, masked: bool, b: usize, h: usize, i: usize) -> (Vec<f64>, f64) {
        let AttentionShape { heads, groups, queries, keys, width, window, prefix, scale, .. } = self.shape;
        let g = h / (heads / groups);
        let float = |which: usize, at: usize| f64::from(f32::from_bits(self.given[which][at]));
        let word = |which: usize, at: usize| self.given[which][at] as i64;
        let start = if masked { word(4, b) } else { keys as i64 - prefix as i64 - queries as i64 };
        let scores: Vec<f64> = (0..keys)
            .map(|j| {
                let (at, position) = (start + i as i64, j as i64 - prefix as i64);
                let of_mask = !masked
                    || (at - position < window as i64
                        && position < word(5, b)
                        && word(6, b * queries + i) == word(7, b * keys + j));
                if j >= prefix && !(position <= at && of_mask) {
                    return f64::NEG_INFINITY;
                }
                let (q, k) = (((b * heads + h) * queries + i) * width, ((b * groups + g) * keys + j) * width);
                f64::from(scale) * (0..width).map(|e| float(0, q + e) * float(1, k + e)).sum::<f64>()
            })
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY {
            return (vec![0.0; keys], 0.0);
        }
        let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
        (scores.iter().map(|score| (score - most).exp() / sum).collect(), most + sum.ln())
    }

    /// Result, log-sum-exp, and cotangents of q, k and v.
    fn expected(&self, masked: bool) -> [Vec<f64>; 5] {
        let AttentionShape { batch, heads, groups, queries, keys, width, value_width, scale, .. } =
            self.shape;
        let float = |which: usize, at: usize| f64::from(f32::from_bits(self.given[which][at]));
        let rows = batch * heads * queries;
        let mut results = [
            rows * value_width,
            rows,
            rows * width,
            batch * groups * keys * width,
            batch * groups * keys * value_width,
        ]
        .map(|length| vec![0.0; length]);
        for row in 0..rows {
            let (b, h, i) = (row / queries / heads, row / queries % heads, row % queries);
            let (weights, lse) = self.weights(masked, b, h, i);
            let first = (b * groups + h / (heads / groups)) * keys;
            results[1][row] = lse;
            let ct = |e: usize| float(3, row * value_width + e);
            let dots: Vec<f64> = (0..keys)
                .map(|j| (0..value_width).map(|e| ct(e) * float(2, (first + j) * value_width + e)).sum())
                .collect();
            let mean: f64 = weights.iter().zip(&dots).map(|(weight, dot)| weight * dot).sum();
            for j in 0..keys {
                for e in 0..value_width {
                    results[0][row * value_width + e] += weights[j] * float(2, (first + j) * value_width + e);
                    results[4][(first + j) * value_width + e] += weights[j] * ct(e);
                }
                let ct_score = f64::from(scale) * weights[j] * (dots[j] - mean);
                for e in 0..width {
                    results[2][row * width + e] += ct_score * float(1, (first + j) * width + e);
                    results[3][(first + j) * width + e] += ct_score * float(0, row * width + e);
                }
            }
        }
        results
    }

    fn check(&self, masked: bool) {
        let AttentionShape { heads, groups, queries, keys, width, value_width, .. } = self.shape;
        let want = self.expected(masked);
        let mut operands = self.given.clone();
        operands.extend(want.iter().map(|values| vec![7; values.len()]));
        let lengths: Vec<usize> = operands.iter().map(Vec::len).collect();
        let heads_of = |slots: &[Slot]| {
            let of = [
                (0, heads, queries, width),
                (1, groups, keys, width),
                (2, groups, keys, value_width),
                (3, heads, queries, value_width),
                (8, heads, queries, value_width),
                (10, heads, queries, width),
                (11, groups, keys, width),
                (12, groups, keys, value_width),
            ];
            of.map(|(slot, heads, tokens, width)| dense(slots[slot], heads, tokens, width))
        };
        let forward = single(
            vec![],
            |slots| {
                let [q, k, v, _, out, ..] = heads_of(slots);
                let shape = self.with_numbers(masked, &slots[4..]);
                LaunchOp::Attention(Box::new(Attention {
                    shape,
                    q,
                    k,
                    v,
                    out: Some(out),
                    lse: Some(slots[9]),
                }))
            },
            &lengths,
        );
        let backward = single(
            vec![],
            |slots| {
                let [q, k, v, ct_out, out, ct_q, ct_k, ct_v] = heads_of(slots);
                let shape = self.with_numbers(masked, &slots[4..]);
                let (ct_q, ct_k, ct_v) = (Some(ct_q), Some(ct_k), Some(ct_v));
                LaunchOp::AttentionGrad(Box::new(AttentionGrad {
                    shape,
                    q,
                    k,
                    v,
                    out,
                    lse: slots[9],
                    ct_out,
                    ct_q,
                    ct_k,
                    ct_v,
                }))
            },
            &lengths,
        );
        valid(&forward, Tiles::Direct);
        valid(&backward, Tiles::Direct);
        let Some(adapter) = any_adapter() else { return };
        let after = run(&adapter, &forward, &operands).unwrap_or_else(|error| panic!("{error}"));
        let last = run(&adapter, &backward, &after).unwrap_or_else(|error| panic!("{error}"));
        for (index, (want, got)) in want.iter().zip(&last[8..]).enumerate() {
            for (at, (want, got)) in want.iter().zip(got).enumerate() {
                let got = f64::from(f32::from_bits(*got));
                assert!((want - got).abs() < 2e-5, "masked {masked}, result {index}, {at}: {got} for {want}");
            }
        }
    }
}

#[test]
fn heads_that_share_keys_agree_with_plain_loops() {
    Case::new(false).check(false);
}

#[test]
fn every_part_of_a_mask_agrees_with_plain_loops() {
    Case::new(true).check(true);
}
