//! The inner loop of a product: some rows of one operand, number by number, times a panel of the other.
//!
//! `tile[r][x] = sum over k of rows[r, k] * panel[k, x]`, if need be added to what the tile holds, the sums in order
//! of k. A panel is packed: its columns are one or two vectors wide, and row k follows row k - 1. Rows are read where they
//! lie, at any strides. With twelve rows of two vectors (six on AVX2) all registers are in use, and a number that was read
//! once is used for two vectors.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::tile::Isa;

/// Floats of the largest tile.
pub const TILE: usize = 12 * 32;

/// Rows that are read where they lie.
#[derive(Clone, Copy)]
pub struct Rows {
    pub start: *const f32,
    pub row_stride: usize,
    pub k_stride: usize,
}

/// The instance of a kernel for a number of rows that is known at run time.
macro_rules! by_rows {
    ($kernel:ident, $vectors:literal, $count:ident, [$($rows:literal),*], ($from:expr, $panel:expr, $ahead:expr, $k:expr, $tile:expr)) => {
        match $count {
            $($rows => $kernel::<$rows, $vectors>($from, $panel, $ahead, $k, $tile),)*
            _ => unreachable!("a tile has at most as many rows as the shape"),
        }
    };
}

/// An instruction set as products use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    isa: Isa,
    /// Most rows of a tile.
    pub rows: usize,
    /// Floats of a vector.
    pub lanes: usize,
}

impl Shape {
    /// None where this instruction set has no kernel.
    pub fn of(isa: Isa) -> Option<Shape> {
        match isa {
            Isa::Portable => None,
            Isa::Avx2 => Some(Shape { isa, rows: 6, lanes: 8 }),
            Isa::Avx512 => Some(Shape { isa, rows: 12, lanes: 16 }),
        }
    }

    /// Columns of a panel for `columns` that are left: two vectors, or one if that holds them.
    pub fn width(&self, columns: usize) -> usize {
        if columns > self.lanes { 2 * self.lanes } else { self.lanes }
    }

    /// Fills `count` rows (at most `self.rows`) of a tile of `width` columns, or adds to what is there where its flag says
    /// so. Meanwhile `k` vectors are fetched from `ahead` on, which need not be readable.
    ///
    /// # Safety
    /// The shape is of this machine; `k` numbers of each row and `k * width` floats of the panel are readable; `tile` has
    /// [`TILE`] floats.
    pub unsafe fn multiply(
        &self,
        count: usize,
        rows: Rows,
        (panel, ahead): (*const f32, *const f32),
        (k, width): (usize, usize),
        tile: (*mut f32, bool),
    ) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's.
        unsafe {
            match (self.isa, width == 2 * self.lanes) {
                (Isa::Avx512, true) => by_rows!(
                    avx512,
                    2,
                    count,
                    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                    (rows, panel, ahead, k, tile)
                ),
                (Isa::Avx512, false) => by_rows!(
                    avx512,
                    1,
                    count,
                    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                    (rows, panel, ahead, k, tile)
                ),
                (_, true) => by_rows!(avx2, 2, count, [1, 2, 3, 4, 5, 6], (rows, panel, ahead, k, tile)),
                (_, false) => by_rows!(avx2, 1, count, [1, 2, 3, 4, 5, 6], (rows, panel, ahead, k, tile)),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!(
            "no shape is of another machine: {:?}",
            (count, rows.start, panel, ahead, k, width, tile)
        )
    }
}

/// A kernel: the same text for each width of vector.
macro_rules! kernel {
    ($name:ident, $features:literal, $vector:ty, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $fma:ident, $store:ident) => {
        /// # Safety
        /// As for [`Shape::multiply`], with `R` rows and `V` vectors.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const V: usize>(
            rows: Rows,
            panel: *const f32,
            ahead: *const f32,
            k: usize,
            (tile, adds): (*mut f32, bool),
        ) {
            let mut sums = [[$zero(); V]; R];
            if adds {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller's: R rows of V vectors are there.
                        *sum = unsafe { $load(tile.add((row * V + vector) * $lanes)) };
                    }
                }
            }
            let starts: [*const f32; R] =
                std::array::from_fn(|row| rows.start.wrapping_add(row * rows.row_stride));
            for term in 0..k {
                let at = panel.wrapping_add(term * V * $lanes);
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(term * $lanes).cast());
                // SAFETY: the caller's: term is below k.
                let columns: [$vector; V] =
                    std::array::from_fn(|vector| unsafe { $load(at.add(vector * $lanes)) });
                for row in 0..R {
                    // SAFETY: the caller's.
                    let number = $splat(unsafe { *starts[row].add(term * rows.k_stride) });
                    for vector in 0..V {
                        sums[row][vector] = $fma(number, columns[vector], sums[row][vector]);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    // SAFETY: the caller's: R rows of V vectors fit.
                    unsafe { $store(tile.add((row * V + vector) * $lanes), *sum) };
                }
            }
        }
    };
}

kernel!(
    avx512,
    "avx512f",
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_storeu_ps
);
kernel!(
    avx2,
    "avx2,fma",
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_storeu_ps
);
