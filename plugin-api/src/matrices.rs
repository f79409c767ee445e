//! Products of stacks of matrices, for optimizers and memories that work on weights as matrices.

use crate::{Op, Tensor};

impl<'c> Tensor<'c> {
    /// Each matrix of a stack transposed: `[K, M, N]` to `[K, N, M]`.
    #[track_caller]
    pub fn transposed(self) -> Tensor<'c> {
        self.permute(&[0, 2, 1])
    }

    /// The product of each matrix with its partner: `[K, M, L]` with `[K, L, N]` gives `[K, M, N]`.
    #[track_caller]
    pub fn matmul(self, other: Tensor<'c>) -> Tensor<'c> {
        self.cx().emit(Op::Dot, &[self, other], &MATRICES, &[1.0])
    }

    /// `alpha self other + beta sum` in one pass; `sum` has the shape of the product.
    #[track_caller]
    pub fn matmul_add(self, alpha: f64, other: Tensor<'c>, beta: f64, sum: Tensor<'c>) -> Tensor<'c> {
        self.cx().emit(Op::Dot, &[self, other, sum], &MATRICES, &[alpha, beta])
    }
}

/// Of a Dot: one batch axis, one contracted; batch axes 0 and 0, contracted 2 and 1.
const MATRICES: [i64; 6] = [1, 1, 0, 0, 2, 1];
