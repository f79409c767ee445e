//! Functions of the last axis as a whole: each row of a tensor is reduced or normalised.

use crate::{DType, Op, Tensor};

impl<'c> Tensor<'c> {
    /// (x - mean) / sqrt(variance + eps) over the last axis: a layer norm without weights.
    #[track_caller]
    pub fn standardized(self, eps: f64) -> Tensor<'c> {
        let ones = self.cx().constant(1.0, DType::F32, &[self.dim(-1)]);
        self.cx().emit(Op::LayerNorm, &[self, ones], &[], &[eps])
    }

    /// log(sum e^x) over the last axis, which is removed.
    #[track_caller]
    pub fn logsumexp(self) -> Tensor<'c> {
        let dims = self.dims();
        let last = dims.len().saturating_sub(1);
        // The value does not depend on the peak, so no cotangent belongs there.
        let peak = self.maximum_over(&[last]).stop_grad();
        (peak + (self - peak).exp().sum(&[last]).ln()).reshape(&dims[..last])
    }

    /// x / max(|x|, eps) over the last axis. The bound is taken of squares, so eps^2 must not be below f32's 1e-38.
    #[track_caller]
    pub fn l2_normalize(self, eps: f64) -> Tensor<'c> {
        let squares = self.sum_of_squares();
        // Bounded before the root, whose derivative at 0 is infinite.
        self / squares.max(squares.number(eps * eps)).sqrt()
    }

    /// x / sqrt(sum x^2 + eps) over the last axis: smooth everywhere.
    #[track_caller]
    pub fn l2_normalize_rsqrt(self, eps: f64) -> Tensor<'c> {
        self / (self.sum_of_squares() + eps).sqrt()
    }

    #[track_caller]
    fn sum_of_squares(self) -> Tensor<'c> {
        self.square().sum(&[self.rank().saturating_sub(1)])
    }
}
