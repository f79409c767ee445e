//! What goes by position along an axis: running sums, the place of a maximum, boxes whose start is a tensor.

use crate::{Op, Tensor};

impl<'c> Tensor<'c> {
    /// Inclusive sum along an axis.
    #[track_caller]
    pub fn cumsum(self, axis: usize) -> Tensor<'c> {
        self.cx().emit(Op::CumSum, &[self], &[axis as i64, 0], &[])
    }

    /// Index (i32) of the first maximum along an axis, which stays with size 1. No gradient passes.
    #[track_caller]
    pub fn argmax(self, axis: usize) -> Tensor<'c> {
        self.cx().emit(Op::ArgMax, &[self], &[axis as i64], &[])
    }

    /// `length` indices of `axis` from `start` (i32[]), which is clamped so that they exist.
    #[track_caller]
    pub fn slice_at(self, axis: usize, start: Tensor<'c>, length: usize) -> Tensor<'c> {
        self.cx().emit(Op::DynSlice, &[self, start], &[axis as i64, length as i64], &[])
    }

    /// This with `update` in place of what stands from `start` (i32[], clamped) on along `axis`.
    #[track_caller]
    pub fn updated_at(self, axis: usize, update: Tensor<'c>, start: Tensor<'c>) -> Tensor<'c> {
        self.cx().emit(Op::DynUpdateSlice, &[self, update, start], &[axis as i64], &[])
    }

    /// The remainder of self / other, with the sign of self.
    #[track_caller]
    pub fn remainder(self, other: Tensor<'c>) -> Tensor<'c> {
        self.binary(Op::Rem, other)
    }
}
