//! The inverse of a unit lower triangular matrix, as the chunk form of the delta rule needs it.
//!
//! By halves: the inverse of [[L, 0], [X, R]] is [[L', 0], [-R' X L', R']] with L', R' the inverses of L and R. From
//! blocks of one upwards, every level does all blocks of all matrices at once. The series of powers, I - A + A^2 - ...,
//! has the same value, but its terms overflow long before they cancel.

use ops::{DType, Op};

use super::batched;
use crate::{Ty, Var};

/// (I + A)^-1 for A[..., n, n] whose entries below the diagonal are `strict`'s; the others are not read. n is a power
/// of two.
pub fn unit_lower_inverse(strict: Var<'_>) -> Var<'_> {
    let (dims, builder) = (strict.dims(), strict.builder());
    let size = dims[dims.len() - 1];
    let systems: usize = dims[..dims.len() - 2].iter().product();
    let mut inverse = builder.constant(1.0, &Ty::new(DType::F32, &[systems, size, 1, 1]));
    let mut width = 1;
    while width < size {
        let blocks = [systems, size / (2 * width), width, width];
        let corner = corners(strict, blocks);
        let halves = inverse.reshape(&[systems, blocks[1], 2, width, width]);
        let half = |index: usize| {
            let ranges = [(0, systems), (0, blocks[1]), (index, 1), (0, width), (0, width)];
            halves.slice(&ranges).reshape(&blocks)
        };
        let (left, right) = (half(0), half(1));
        // Blocks of one have the inverse 1.
        let below = match width {
            1 => corner,
            _ => batched(batched(right, corner, 2, (1, 0)), left, 2, (1, 0)),
        };
        let upper = builder.concat(&[left, left.constant(0.0)], 3);
        inverse = builder.concat(&[upper, builder.concat(&[-below, right], 3)], 2);
        width *= 2;
    }
    inverse.reshape(&dims)
}

/// The blocks X: rows of the second half and columns of the first half of each block on the diagonal that is twice as
/// wide, as [systems, pairs, width, width].
fn corners<'b>(matrix: Var<'b>, blocks: [usize; 4]) -> Var<'b> {
    let [systems, pairs, width, _] = blocks;
    let all = matrix.reshape(&[systems, pairs, 2, width, pairs, 2, width]);
    let lower_left =
        all.slice(&[(0, systems), (0, pairs), (1, 1), (0, width), (0, pairs), (0, 1), (0, width)]);
    let lower_left = lower_left.reshape(&[systems, pairs, width, pairs, width]);
    let index = |axis: usize| matrix.builder().iota(axis, DType::I32, &lower_left.dims());
    let on_diagonal = index(1).binary(Op::Eq, index(3));
    on_diagonal.select(lower_left, lower_left.constant(0.0)).sum(&[3]).reshape(&blocks)
}
