//! Movements, indexing and reductions, each as a walk over the result's indices.

use super::Tensor;
use crate::attributes::pairs;
use crate::{Node, Ty};

/// Calls `visit(linear, index)` for every index of `dims` in row-major order.
fn walk(dims: &[usize], mut visit: impl FnMut(usize, &[usize])) {
    let mut index = vec![0; dims.len()];
    for linear in 0..dims.iter().product() {
        visit(linear, &index);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

pub fn collect(dims: &[usize], mut value: impl FnMut(&[usize]) -> f64) -> Vec<f64> {
    let mut data = vec![0.0; dims.iter().product()];
    walk(dims, |linear, index| data[linear] = value(index));
    data
}

pub fn position(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(index, stride)| index * stride).sum()
}

pub fn iota(ty: &Ty, axis: usize) -> Vec<f64> {
    collect(&ty.dims, |index| index[axis] as f64)
}

pub fn permute(x: &Tensor, axes: &[usize]) -> Vec<f64> {
    let strides = x.ty.strides();
    let dims: Vec<usize> = axes.iter().map(|axis| x.ty.dims[*axis]).collect();
    let moved: Vec<usize> = axes.iter().map(|axis| strides[*axis]).collect();
    collect(&dims, |index| x.data[position(index, &moved)])
}

/// Strides of `x` over a shape in which its axes of size 1 are repeated.
fn repeated_strides(ty: &Ty) -> Vec<usize> {
    ty.strides().iter().zip(&ty.dims).map(|(stride, dim)| if *dim == 1 { 0 } else { *stride }).collect()
}

pub fn broadcast(x: &Tensor, ty: &Ty) -> Vec<f64> {
    let strides = repeated_strides(&x.ty);
    collect(&ty.dims, |index| x.data[position(index, &strides)])
}

pub fn slice(x: &Tensor, ints: &[i64], ty: &Ty) -> Vec<f64> {
    let (strides, ranges) = (x.ty.strides(), pairs(ints));
    let start: usize = ranges.iter().zip(&strides).map(|(range, stride)| range.0 * stride).sum();
    collect(&ty.dims, |index| x.data[start + position(index, &strides)])
}

pub fn pad(x: &Tensor, ints: &[i64], fill: f64, ty: &Ty) -> Vec<f64> {
    let (strides, margins) = (x.ty.strides(), pairs(ints));
    collect(&ty.dims, |index| {
        let mut at = 0;
        for axis in 0..index.len() {
            let Some(inner) = index[axis].checked_sub(margins[axis].0) else { return fill };
            if inner >= x.ty.dims[axis] {
                return fill;
            }
            at += inner * strides[axis];
        }
        x.data[at]
    })
}

pub fn concat(parts: &[&Tensor], node: &Node) -> Vec<f64> {
    let axis = node.ints[0] as usize;
    let strides: Vec<Vec<usize>> = parts.iter().map(|part| part.ty.strides()).collect();
    collect(&node.ty.dims, |index| {
        let mut inner = index.to_vec();
        let mut part = 0;
        while inner[axis] >= parts[part].ty.dims[axis] {
            inner[axis] -= parts[part].ty.dims[axis];
            part += 1;
        }
        parts[part].data[position(&inner, &strides[part])]
    })
}

fn row(id: f64, rows: usize) -> usize {
    (id.max(0.0) as usize).min(rows - 1)
}

pub fn gather(table: &Tensor, ids: &Tensor) -> Vec<f64> {
    let width: usize = table.ty.dims[1..].iter().product();
    let rows = ids.data.iter().map(|id| row(*id, table.ty.dims[0]) * width);
    rows.flat_map(|start| table.data[start..start + width].iter().copied()).collect()
}

pub fn scatter_add(x: &Tensor, ids: &Tensor, ty: &Ty) -> Vec<f64> {
    let width: usize = ty.dims[1..].iter().product();
    let mut data = vec![0.0; ty.elements()];
    for (source, id) in x.data.chunks(width.max(1)).zip(&ids.data) {
        let start = row(*id, ty.dims[0]) * width;
        data[start..start + width].iter_mut().zip(source).for_each(|(sum, value)| *sum += value);
    }
    data
}

pub fn reduce(x: &Tensor, ty: &Ty, identity: f64, fold: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let strides = repeated_strides(ty);
    let mut data = vec![identity; ty.elements()];
    walk(&x.ty.dims, |linear, index| {
        let at = position(index, &strides);
        data[at] = fold(data[at], x.data[linear]);
    });
    data
}
