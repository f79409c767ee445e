//! Ops along one axis: boxes whose start is a value, the place of a maximum, running sums.

use super::Tensor;
use super::movement::{collect, position};
use crate::{Node, Ty};

/// First index of a box of `length` along an axis of `extent`.
fn clamped(start: &Tensor, extent: usize, length: usize) -> usize {
    (start.data[0].max(0.0) as usize).min(extent - length)
}

pub fn dyn_slice(x: &Tensor, start: &Tensor, node: &Node) -> Vec<f64> {
    let axis = node.ints[0] as usize;
    let strides = x.ty.strides();
    let skipped = clamped(start, x.ty.dims[axis], node.ty.dims[axis]) * strides[axis];
    collect(&node.ty.dims, |index| x.data[skipped + position(index, &strides)])
}

pub fn dyn_update_slice(x: &Tensor, update: &Tensor, start: &Tensor, ty: &Ty, axis: usize) -> Vec<f64> {
    let (own, written) = (ty.strides(), update.ty.strides());
    let length = update.ty.dims[axis];
    let start = clamped(start, ty.dims[axis], length);
    collect(&ty.dims, |index| {
        if !(start..start + length).contains(&index[axis]) {
            return x.data[position(index, &own)];
        }
        let mut inner = index.to_vec();
        inner[axis] -= start;
        update.data[position(&inner, &written)]
    })
}

/// A NaN is no maximum; where nothing else is along the axis, its last index stands.
pub fn arg_max(x: &Tensor, node: &Node) -> Vec<f64> {
    let axis = node.ints[0] as usize;
    let (strides, extent) = (x.ty.strides(), x.ty.dims[axis]);
    collect(&node.ty.dims, |index| {
        let first = position(index, &strides);
        let along = || (0..extent).map(|i| x.data[first + i * strides[axis]]);
        let peak = along().fold(f64::NEG_INFINITY, f64::max);
        along().position(|value| value == peak).unwrap_or(extent - 1) as f64
    })
}

pub fn cum_sum(x: &Tensor, node: &Node) -> Vec<f64> {
    let axis = node.ints[0] as usize;
    let (stride, extent) = (x.ty.strides()[axis], x.ty.dims[axis]);
    let mut data = x.data.clone();
    let place = |element: usize| element / stride % extent;
    if node.ints[1] == 1 {
        let elements = (0..data.len()).rev().filter(|element| place(*element) + 1 < extent);
        elements.for_each(|element| data[element] += data[element + stride]);
    } else {
        let elements = (0..data.len()).filter(|element| place(*element) > 0);
        elements.for_each(|element| data[element] += data[element - stride]);
    }
    data
}
