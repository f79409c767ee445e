//! The tensor an author works with: an id, its type known at trace time, and operations that name their caller.

use crate::{Cx, DType, Op};

/// A value of the graph. Copying it copies an id.
///
/// A wrong operation does not stop the trace: the host records the error with the layer's path and the line here, and
/// the result is poisoned. A poisoned tensor has no dims and every operation on it is poisoned silently.
#[derive(Clone, Copy)]
pub struct Tensor<'c> {
    cx: &'c Cx<'c>,
    id: u32,
}

impl<'c> Tensor<'c> {
    pub(crate) fn new(cx: &'c Cx<'c>, id: u32) -> Tensor<'c> {
        Tensor { cx, id }
    }

    pub fn id(self) -> u32 {
        self.id
    }

    pub fn cx(self) -> &'c Cx<'c> {
        self.cx
    }

    /// Extents; empty for a scalar and for a poisoned tensor.
    pub fn dims(self) -> Vec<usize> {
        self.cx.builder().info(self.id).map(|(_, dims)| dims).unwrap_or_default()
    }

    /// Extent of an axis, counted from the end where negative. 1 for a poisoned tensor.
    pub fn dim(self, axis: isize) -> usize {
        let dims = self.dims();
        let index = if axis < 0 { axis + dims.len() as isize } else { axis };
        usize::try_from(index).ok().and_then(|index| dims.get(index).copied()).unwrap_or(1)
    }

    pub fn rank(self) -> usize {
        self.dims().len()
    }

    /// f32 for a poisoned tensor.
    pub fn dtype(self) -> DType {
        self.cx.builder().info(self.id).map_or(DType::F32, |(dtype, _)| dtype)
    }

    #[track_caller]
    fn apply(self, op: Op, others: &[Tensor<'c>], ints: &[i64], floats: &[f64]) -> Tensor<'c> {
        let inputs: Vec<Tensor<'c>> = std::iter::once(self).chain(others.iter().copied()).collect();
        self.cx.emit(op, &inputs, ints, floats)
    }

    #[track_caller]
    pub(crate) fn unary(self, op: Op) -> Tensor<'c> {
        self.apply(op, &[], &[], &[])
    }

    /// An element-wise op of two tensors, repeated to a common shape first.
    #[track_caller]
    pub(crate) fn binary(self, op: Op, other: Tensor<'c>) -> Tensor<'c> {
        let shape = common_shape(&self.dims(), &other.dims());
        self.repeat(&shape).apply(op, &[other.repeat(&shape)], &[], &[])
    }

    /// A constant of this dtype and shape.
    #[track_caller]
    pub fn number(self, value: f64) -> Tensor<'c> {
        self.cx.constant(value, self.dtype(), &self.dims())
    }

    /// Repeats axes of size 1, adding leading axes, to `dims`.
    #[track_caller]
    pub fn repeat(self, dims: &[usize]) -> Tensor<'c> {
        let own = self.dims();
        let mut padded = vec![1; dims.len().saturating_sub(own.len())];
        padded.extend(own);
        self.reshape(&padded).apply(Op::Broadcast, &[], &ints(dims), &[])
    }

    #[track_caller]
    pub fn reshape(self, dims: &[usize]) -> Tensor<'c> {
        self.apply(Op::Reshape, &[], &ints(dims), &[])
    }

    /// Axis i of the result is axis `axes[i]` of this.
    #[track_caller]
    pub fn permute(self, axes: &[usize]) -> Tensor<'c> {
        self.apply(Op::Permute, &[], &ints(axes), &[])
    }

    /// `length` indices of `axis` from `start`.
    #[track_caller]
    pub fn slice(self, axis: usize, start: usize, length: usize) -> Tensor<'c> {
        let mut ranges: Vec<i64> = self.dims().iter().flat_map(|dim| [0, *dim as i64]).collect();
        if let Some(range) = ranges.get_mut(2 * axis..2 * axis + 2) {
            range.copy_from_slice(&[start as i64, length as i64]);
        }
        self.apply(Op::Slice, &[], &ranges, &[])
    }

    /// Sum over axes, which stay with size 1.
    #[track_caller]
    pub fn sum(self, axes: &[usize]) -> Tensor<'c> {
        self.apply(Op::Sum, &[], &ints(axes), &[])
    }

    /// Mean over axes, which stay with size 1.
    #[track_caller]
    pub fn mean(self, axes: &[usize]) -> Tensor<'c> {
        let dims = self.dims();
        let count: usize = axes.iter().filter_map(|axis| dims.get(*axis)).product();
        self.sum(axes) * (1.0 / count.max(1) as f64)
    }

    /// Sum of all elements, f32[].
    #[track_caller]
    pub fn total(self) -> Tensor<'c> {
        let axes: Vec<usize> = (0..self.rank()).collect();
        self.sum(&axes).reshape(&[])
    }

    /// Maximum over axes, which stay with size 1.
    #[track_caller]
    pub fn maximum_over(self, axes: &[usize]) -> Tensor<'c> {
        self.apply(Op::ReduceMax, &[], &ints(axes), &[])
    }

    /// Sum over the last axis of both, alpha = 1: `x[..., K]` with `w[N, K]` gives `[..., N]`.
    #[track_caller]
    pub fn dot_last(self, weight: Tensor<'c>) -> Tensor<'c> {
        let last = self.rank().saturating_sub(1) as i64;
        self.apply(Op::Dot, &[weight], &[0, 1, last, 1], &[1.0])
    }

    /// Sum over the last axis of both, with a matrix for each row of the batch: `x[B, T, K]` with `w[B, N, K]` gives
    /// `[B, T, N]`.
    #[track_caller]
    pub fn dot_each(self, weights: Tensor<'c>) -> Tensor<'c> {
        self.apply(Op::Dot, &[weights], &[1, 1, 0, 0, 2, 2], &[1.0])
    }

    /// `[B, T, H * D]` to `[B, H, T, D]`.
    #[track_caller]
    pub fn split_heads(self, heads: usize) -> Tensor<'c> {
        if !self.dim(2).is_multiple_of(heads) {
            let text = format!("cannot split a width of {} into {heads} heads", self.dim(2));
            return self.cx.fail(&text);
        }
        let split = [self.dim(0), self.dim(1), heads, self.dim(2) / heads];
        self.reshape(&split).permute(&[0, 2, 1, 3])
    }

    /// `[B, H, T, D]` to `[B, T, H * D]`.
    #[track_caller]
    pub fn merge_heads(self) -> Tensor<'c> {
        let merged = [self.dim(0), self.dim(2), self.dim(1) * self.dim(3)];
        self.permute(&[0, 2, 1, 3]).reshape(&merged)
    }

    /// Where this (bool) holds `yes`, else `no`; shapes agree.
    #[track_caller]
    pub fn select(self, yes: Tensor<'c>, no: Tensor<'c>) -> Tensor<'c> {
        self.apply(Op::Select, &[yes, no], &[], &[])
    }

    #[track_caller]
    pub fn cast(self, dtype: DType) -> Tensor<'c> {
        self.apply(Op::Cast, &[], &[dtype as i64], &[])
    }

    /// Rows of this table `[V, ...]` chosen by `ids[...]`.
    #[track_caller]
    pub fn rows(self, ids: Tensor<'c>) -> Tensor<'c> {
        self.apply(Op::Gather, &[ids], &[], &[])
    }
}

fn ints(values: &[usize]) -> Vec<i64> {
    values.iter().map(|value| *value as i64).collect()
}

/// Axis by axis from the end, the larger extent: axes of size 1 repeat, others must agree (the host checks).
fn common_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let extent = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    (0..rank).map(|axis| extent(a, axis).max(extent(b, axis))).collect()
}
