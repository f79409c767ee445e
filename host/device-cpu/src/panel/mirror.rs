//! The other triangle of a symmetric result: a tile that was written below the diagonal, copied to above it.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::ops::Range;

/// Copies each element of these rows and columns that lies below the diagonal to its place above it.
///
/// # Safety
/// Both places of all these elements can be used and nobody else uses them meanwhile; strides are those of `out`.
pub unsafe fn mirror(
    out: *mut f32,
    (row_stride, column_stride): (usize, usize),
    rows: Range<usize>,
    columns: Range<usize>,
) {
    let at = |row: usize, column: usize| out.wrapping_add(row * row_stride + column * column_stride);
    for first_column in columns.clone().step_by(SIDE) {
        let some_columns = first_column..columns.end.min(first_column + SIDE);
        for first_row in rows.clone().step_by(SIDE) {
            let some_rows = first_row..rows.end.min(first_row + SIDE);
            let is_whole = some_rows.len() == SIDE && some_columns.len() == SIDE;
            // SAFETY: the caller's; a square below the diagonal does not overlap its mirror image.
            unsafe {
                if is_whole && column_stride == 1 && first_row >= some_columns.end {
                    turn(at(first_row, first_column), at(first_column, first_row), row_stride);
                    continue;
                }
                for row in some_rows {
                    for column in some_columns.start..some_columns.end.min(row) {
                        *at(column, row) = *at(row, column);
                    }
                }
            }
        }
    }
}

/// Rows and columns of a square that is turned in registers.
const SIDE: usize = 4;

/// Copies a square, rows to columns.
///
/// # Safety
/// Four floats at each of four `from + i * stride` are readable and at each of four `to + i * stride` writable.
unsafe fn turn(from: *const f32, to: *mut f32, stride: usize) {
    // SAFETY: the caller's; SSE is part of x86-64.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|index| _mm_loadu_ps(from.add(index * stride)));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (index, column) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(to.add(index * stride), column);
        }
    }
    // SAFETY: the caller's.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe {
        for index in 0..SIDE * SIDE {
            let (row, column) = (index / SIDE, index % SIDE);
            *to.add(column * stride + row) = *from.add(row * stride + column);
        }
    }
}
