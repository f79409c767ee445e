//! The index space of a kernel, regrouped for walking: planes x rows x columns.
//!
//! Axes of size 1 are dropped, and neighbours are merged wherever every load and store allows it, so that most kernels
//! end with one or two axes. Then each template sees the same picture:
//!
//! - Map: columns are the last axis, rows all others.
//! - RowReduce: columns are the reduced axes, rows the parallel ones.
//! - ColReduce: rows are the reduced axes, columns the last inner axis, planes all other parallel axes.
//!
//! A tile is some consecutive rows times some consecutive columns of one plane.

use plan::{Affine, Template, TileKernel};

/// Extents of the regrouped axes. `rows` and `planes` are walked in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub planes: Vec<usize>,
    /// Never empty.
    pub rows: Vec<usize>,
    /// Reduced axes that could not be merged: a row is `runs` stretches of `run_length` columns.
    pub runs: Vec<usize>,
    pub run_length: usize,
}

/// An [`Affine`] over a [`Shape`].
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    pub offset: i64,
    pub planes: Vec<i64>,
    pub rows: Vec<i64>,
    pub runs: Vec<i64>,
    pub column: i64,
    /// The row axes would merge for this address alone: row r is `rows.last() * r` away.
    pub is_linear: bool,
}

/// One axis of a group: its extent and the stride of each address along it.
type Axis = (usize, Vec<i64>);

impl Shape {
    pub fn plane_count(&self) -> usize {
        self.planes.iter().product()
    }

    pub fn row_count(&self) -> usize {
        self.rows.iter().product()
    }

    pub fn columns(&self) -> usize {
        self.runs.iter().product::<usize>() * self.run_length
    }
}

impl Address {
    pub fn varies_by_row(&self) -> bool {
        self.rows.iter().any(|stride| *stride != 0)
    }

    pub fn varies_by_column(&self) -> bool {
        self.column != 0 || self.runs.iter().any(|stride| *stride != 0)
    }

    /// Element at the first column of a row.
    pub fn base(&self, shape: &Shape, plane: usize, row: usize) -> i64 {
        let rows = if self.is_linear {
            row as i64 * self.rows[self.rows.len() - 1]
        } else {
            at_index(row, &shape.rows, &self.rows)
        };
        self.offset + at_index(plane, &shape.planes, &self.planes) + rows
    }
}

/// The sum of strides at a row-major linear index.
pub fn at_index(mut index: usize, dims: &[usize], strides: &[i64]) -> i64 {
    let mut sum = 0;
    for (dim, stride) in dims.iter().zip(strides).skip(1).rev() {
        sum += (index % dim) as i64 * stride;
        index /= dim;
    }
    sum + strides.first().map_or(0, |stride| index as i64 * stride)
}

/// Regroups a kernel's axes. `affines` are all its addresses; the result has one for each, in order.
pub fn regroup(kernel: &TileKernel, affines: &[&Affine]) -> (Shape, Vec<Address>) {
    let rank = kernel.dims.len();
    let group = |from: usize, to: usize| merged(&kernel.dims[from..to], affines, from);
    let (planes, rows, mut columns) = match kernel.template {
        Template::Map => {
            let mut rows = group(0, rank);
            let columns = rows.pop().into_iter().collect();
            (Vec::new(), rows, columns)
        }
        Template::RowReduce { reduced } => {
            (Vec::new(), group(0, rank - reduced), group(rank - reduced, rank))
        }
        Template::ColReduce { outer, reduced } => {
            let mut inner = group(outer + reduced, rank);
            let columns = inner.pop().into_iter().collect();
            let planes = [group(0, outer), inner].concat();
            (planes, group(outer, outer + reduced), columns)
        }
    };
    let one = || (1, vec![0; affines.len()]);
    let rows = if rows.is_empty() { vec![one()] } else { rows };
    let column = columns.pop().unwrap_or_else(one);
    let dims = |axes: &[Axis]| axes.iter().map(|axis| axis.0).collect::<Vec<_>>();
    let shape =
        Shape { planes: dims(&planes), rows: dims(&rows), runs: dims(&columns), run_length: column.0 };
    let address = |index: usize| {
        let strides = |axes: &[Axis]| axes.iter().map(|axis| axis.1[index]).collect::<Vec<_>>();
        Address {
            offset: affines[index].offset,
            planes: strides(&planes),
            rows: strides(&rows),
            runs: strides(&columns),
            column: column.1[index],
            is_linear: rows.windows(2).all(|pair| continues(pair[0].1[index], &pair[1], index)),
        }
    };
    let addresses = (0..affines.len()).map(address).collect();
    (shape, addresses)
}

/// The axes `from..` of a group, without those of size 1, merged where all addresses allow it.
fn merged(dims: &[usize], affines: &[&Affine], from: usize) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (axis, dim) in dims.iter().enumerate().filter(|(_, dim)| **dim != 1) {
        let inner: Axis = (*dim, affines.iter().map(|at| at.strides[from + axis]).collect());
        match axes.last_mut() {
            Some(outer) if (0..affines.len()).all(|index| continues(outer.1[index], &inner, index)) => {
                *outer = (outer.0 * inner.0, inner.1);
            }
            _ => axes.push(inner),
        }
    }
    axes
}

fn continues(outer_stride: i64, inner: &Axis, index: usize) -> bool {
    outer_stride == inner.1[index] * inner.0 as i64
}
