//! Packing: some columns of an operand, as the inner loop reads them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// An operand from its first packed column on: `k` rows of `columns`.
#[derive(Clone, Copy)]
pub struct Columns {
    pub start: *const f32,
    pub column_stride: usize,
    pub k_stride: usize,
    pub columns: usize,
    pub k: usize,
}

/// Writes `k` rows of `width` floats; what is beyond the columns is 0.
///
/// # Safety
/// The columns are readable, `panel` has `k * width` floats of nobody else, `columns <= width`, `width` is a multiple of 8,
/// and the machine has AVX2.
pub unsafe fn pack(from: Columns, width: usize, panel: *mut f32) {
    let Columns { start, column_stride, k_stride, columns, k } = from;
    if columns < width {
        // SAFETY: the caller's.
        unsafe { std::ptr::write_bytes(panel, 0, k * width) };
    }
    // SAFETY: the caller's; every index is below k and columns.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if column_stride == 1 && columns == width {
            return copy((start, k_stride), (k, width), panel);
        }
        if column_stride == 1 {
            for term in 0..k {
                std::ptr::copy_nonoverlapping(start.add(term * k_stride), panel.add(term * width), columns);
            }
            return;
        }
        let mut first = 0;
        #[cfg(target_arch = "x86_64")]
        if k_stride == 1 {
            let (whole_columns, whole_terms) = (columns / 8 * 8, k / 8 * 8);
            for column in (0..whole_columns).step_by(8) {
                for term in (0..whole_terms).step_by(8) {
                    let from = start.add(column * column_stride + term);
                    transpose(from, column_stride, panel.add(term * width + column), width);
                }
                for term in whole_terms..k {
                    for column in column..column + 8 {
                        *panel.add(term * width + column) = *start.add(column * column_stride + term);
                    }
                }
            }
            first = whole_columns;
        }
        for column in first..columns {
            for term in 0..k {
                *panel.add(term * width + column) = *start.add(column * column_stride + term * k_stride);
            }
        }
    }
}

/// Copies `k` runs of `width` floats to one after another.
///
/// # Safety
/// The runs are readable, with their stride, `to` has `k * width` floats of nobody else; `width` is a multiple of 8; AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn copy((from, stride): (*const f32, usize), (k, width): (usize, usize), to: *mut f32) {
    for term in 0..k {
        for first in (0..width).step_by(8) {
            // SAFETY: the caller's.
            unsafe {
                let eight = _mm256_loadu_ps(from.add(term * stride + first));
                _mm256_storeu_ps(to.add(term * width + first), eight);
            }
        }
    }
}

/// 8 x 8 numbers, rows to columns.
///
/// # Safety
/// Eight floats are readable at each of eight `from + i * stride` and writable at each of eight `to + i * width`; AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, width: usize) {
    // SAFETY: the caller's.
    let row = |index: usize| unsafe { _mm256_loadu_ps(from.add(index * stride)) };
    let pairs = |a: usize, b: usize| (_mm256_unpacklo_ps(row(a), row(b)), _mm256_unpackhi_ps(row(a), row(b)));
    let [(a0, a1), (b0, b1), (c0, c1), (d0, d1)] = [pairs(0, 1), pairs(2, 3), pairs(4, 5), pairs(6, 7)];
    let fours = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
    let [(e0, e1), (e2, e3)] = [fours(a0, b0), fours(a1, b1)];
    let [(f0, f1), (f2, f3)] = [fours(c0, d0), fours(c1, d1)];
    let (low, high) = ([e0, e1, e2, e3], [f0, f1, f2, f3]);
    for index in 0..4 {
        // SAFETY: the caller's.
        unsafe {
            _mm256_storeu_ps(to.add(index * width), _mm256_permute2f128_ps::<0x20>(low[index], high[index]));
            _mm256_storeu_ps(
                to.add((index + 4) * width),
                _mm256_permute2f128_ps::<0x31>(low[index], high[index]),
            );
        }
    }
}
