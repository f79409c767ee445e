//! Contraction: operands brought to [batch, rows, k] and [batch, k, columns], then the plain triple loop,
//! which adds to beta * c where there is one.

use super::{Tensor, movement};
use crate::Node;

pub fn dot(x: &Tensor, y: &Tensor, c: Option<&Tensor>, node: &Node) -> Vec<f64> {
    let axes = node.dot_axes(x.ty.rank(), y.ty.rank());
    let lhs = movement::permute(x, &[&axes.batch.0[..], &axes.free.0, &axes.contract.0].concat());
    let rhs = movement::permute(y, &[&axes.batch.1[..], &axes.contract.1, &axes.free.1].concat());
    let extent = |dims: &[usize], axes: &[usize]| axes.iter().map(|axis| dims[*axis]).product::<usize>();
    let inner = extent(&x.ty.dims, &axes.contract.0);
    let rows = extent(&x.ty.dims, &axes.free.0);
    let columns = extent(&y.ty.dims, &axes.free.1);
    let alpha = node.floats[0];
    let mut data = match c {
        Some(c) => c.data.iter().map(|value| node.floats[1] * value).collect(),
        None => vec![0.0; node.ty.elements()],
    };
    for (batch, out) in data.chunks_mut(rows * columns).enumerate() {
        let x = &lhs[batch * rows * inner..][..rows * inner];
        let y = &rhs[batch * inner * columns..][..inner * columns];
        for (row, out) in out.chunks_mut(columns).enumerate() {
            for k in 0..inner {
                let factor = alpha * x[row * inner + k];
                let line = &y[k * columns..][..columns];
                out.iter_mut().zip(line).for_each(|(sum, value)| *sum += factor * value);
            }
        }
    }
    data
}
