//! Softmax attention in terms of two products and a softmax.

use ops::{DType, Op};

use crate::Var;
use crate::attributes::DotAxes;

/// What a masked attention score is set to. Not -inf: WGSL promises nothing about infinities.
const MASKED: f64 = -1e30;

/// Causal attention. With G < H, each group of H / G query heads shares one key and value head.
pub fn attention<'b>(
    q: Var<'b>,
    k: Var<'b>,
    v: Var<'b>,
    scale: f64,
    normalize: impl FnOnce(Var<'b>) -> Var<'b>,
) -> Var<'b> {
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
    let shape = scores.dims();
    let index = |axis: usize| q.builder().iota(axis, DType::I32, &shape);
    let future = index(3).binary(Op::Lt, index(4));
    let weights = normalize(future.select(scores.constant(MASKED), scores));
    let mixed = weights.dot(v, &both(&[0, 1], &[0, 1], (4, 2), (&[2, 3], &[3])), 1.0);
    mixed.reshape(&dims)
}
