//! One tile of a result: its sums over some terms, in registers, from where they wait and to their place.

use std::ops::Range;

use super::kernel::{Ahead, Columns, End, Rows, Shape, Sums, TILE};
use super::mirror;
use super::product::Product;

/// Some terms of the sums of a tile, straight to their place where they fill whole vectors of it.
///
/// # Safety
/// As for [`super::block::block_of`], of which this is a part.
pub unsafe fn tile_of(
    shape: Shape,
    product: &Product,
    (rows, columns): (Range<usize>, Range<usize>),
    terms: Range<usize>,
    from: Columns,
    ahead: Ahead,
) {
    let (is_first, is_last) = (terms.start == 0, terms.end == product.k);
    let width = shape.width(columns.len());
    let out = product.out_at(rows.start, columns.start);
    let (_, [out_row, out_column]) = product.out;
    let of_rows = Rows {
        start: product.rows.at(rows.start, terms.start),
        row_stride: product.rows.stride,
        k_stride: product.rows.k_stride,
    };
    // How many of a row's columns are computed.
    let count = |row: usize| match product.symmetric {
        true => columns.len().min((row + 1).saturating_sub(columns.start)),
        false => columns.len(),
    };
    let c_at = |beta, c: *const f32, [row_stride, column_stride]: [usize; 2], row: usize| {
        (beta, c.wrapping_add(row * row_stride + columns.start * column_stride), column_stride)
    };
    let c_is_dense = product.c.is_none_or(|(_, _, [_, column_stride])| column_stride == 1);
    if out_column == 1 && count(rows.start) == width && (c_is_dense || !is_last) {
        let end = || {
            let c = product.c.map(|(beta, c, strides)| {
                let (beta, c, _) = c_at(beta, c, strides, rows.start);
                (beta, c, strides[0])
            });
            End { alpha: product.alpha, c }
        };
        let ends = is_last && (product.alpha != 1.0 || product.c.is_some());
        let sums = Sums { start: out, row_stride: out_row, adds: !is_first, end: ends.then(end) };
        // SAFETY: the caller's: the tile is all of it within the block.
        unsafe { shape.multiply(rows.len(), of_rows, from, (terms.len(), width), sums, ahead) };
    } else {
        let mut tile = [0.0f32; TILE];
        if !is_first {
            for (row, sums) in rows.clone().zip(tile.chunks_exact_mut(width)) {
                let out = product.out_at(row, columns.start);
                // SAFETY: the caller's: elements of this row of the block, which an earlier round wrote.
                unsafe { read(&mut sums[..count(row)], (out, out_column)) };
            }
        }
        let sums = Sums { start: tile.as_mut_ptr(), row_stride: width, adds: !is_first, end: None };
        // SAFETY: the caller's: the rows are within the block.
        unsafe { shape.multiply(rows.len(), of_rows, from, (terms.len(), width), sums, ahead) };
        for (row, sums) in rows.clone().zip(tile.chunks_exact(width)) {
            let scale = match is_last {
                true => (product.alpha, product.c.map(|(beta, c, strides)| c_at(beta, c, strides, row))),
                false => (1.0, None),
            };
            let out = product.out_at(row, columns.start);
            // SAFETY: the caller's: elements of this row of the block.
            unsafe { write(&sums[..count(row)], scale, (out, out_column)) };
        }
    }
    if product.symmetric && is_last {
        let columns = columns.start..columns.start + count(rows.end - 1);
        // SAFETY: the caller's: what lies above the diagonal belongs to the block whose mirror image it is.
        unsafe { mirror::mirror(product.out.0, (out_row, out_column), rows, columns) };
    }
}

/// A row of a tile from where it waits.
///
/// # Safety
/// As many elements as there are sums can be read, with their stride.
unsafe fn read(sums: &mut [f32], (out, stride): (*mut f32, usize)) {
    for (index, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *sum = unsafe { *out.add(index * stride) };
    }
}

/// alpha, and where there is a c its factor, its first element and its stride.
type Scale = (f32, Option<(f32, *const f32, usize)>);

/// `alpha * sums`, or with c `alpha * sums + beta * c`, along a row of a tile.
///
/// # Safety
/// As many elements as there are sums can be read at c and written at out, with their strides.
pub unsafe fn write(sums: &[f32], (alpha, c): Scale, (out, stride): (*mut f32, usize)) {
    // SAFETY: the caller's.
    unsafe {
        match c {
            None if stride == 1 => {
                let out = std::slice::from_raw_parts_mut(out, sums.len());
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = alpha * sum);
            }
            None => {
                for (index, sum) in sums.iter().enumerate() {
                    *out.add(index * stride) = alpha * sum;
                }
            }
            Some((beta, c, c_stride)) => {
                for (index, sum) in sums.iter().enumerate() {
                    *out.add(index * stride) = alpha * sum + beta * *c.add(index * c_stride);
                }
            }
        }
    }
}
