//! The inner loop of a product: some rows of one operand, number by number, times vectors of columns of the other.
//!
//! `sums[r][x] = sum over k of rows[r, k] * columns[k, x]`, if need be added to what is there, the sums in order of k.
//! Columns lie side by side, in a packed panel or in the operand itself. Rows are read where they lie, at any strides. With
//! twelve rows of two vectors (six on AVX2) all registers are in use, and a number that was read once is used for two
//! vectors.

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

/// Columns, two vectors or one of them, of each term: packed, or where they lie.
#[derive(Clone, Copy)]
pub struct Columns {
    pub start: *const f32,
    pub k_stride: usize,
}

/// Where the sums of a tile go.
#[derive(Clone, Copy)]
pub struct Sums {
    pub start: *mut f32,
    pub row_stride: usize,
    /// Whether they are added to what is there.
    pub adds: bool,
    /// What becomes of the sums before they are written.
    pub end: Option<End>,
}

/// `alpha * sums`, or with a c `alpha * sums + beta * c`, its columns side by side.
#[derive(Clone, Copy)]
pub struct End {
    pub alpha: f32,
    pub c: Option<(f32, *const f32, usize)>,
}

/// Places to fetch into the first cache while a tile is computed, one a term. They need not be readable.
#[derive(Clone, Copy)]
pub struct Ahead {
    pub start: *const f32,
    pub stride: usize,
    pub count: usize,
}

impl Ahead {
    pub const NOTHING: Ahead = Ahead { start: std::ptr::null(), stride: 0, count: 0 };
}

/// The instance of a kernel for a number of rows that is known at run time.
macro_rules! by_rows {
    ($kernel:ident, $vectors:literal, $besides:literal, $count:ident, [$($rows:literal),*], $arguments:tt) => {
        match $count {
            $($rows => by_rows!(@call $kernel, $rows, $vectors, $besides, $arguments),)*
            _ => unreachable!("a tile has at most as many rows as the shape"),
        }
    };
    (@call $kernel:ident, $rows:literal, $vectors:literal, $besides:literal, ($($argument:expr),*)) => {
        $kernel::<$rows, $vectors, $besides>($($argument),*)
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

    /// Forms the sums of `count` rows (at most `self.rows`) and `width` columns.
    ///
    /// # Safety
    /// The shape is of this machine; `k` numbers of each row and `width` columns of as many terms are readable; `sums` can
    /// be written, read where they are added to, and so can be a `c`.
    pub unsafe fn multiply(
        &self,
        count: usize,
        rows: Rows,
        columns: Columns,
        (k, width): (usize, usize),
        sums: Sums,
        ahead: Ahead,
    ) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's.
        unsafe {
            match (self.isa, width == 2 * self.lanes, rows.row_stride == 1) {
                (Isa::Avx512, true, false) => by_rows!(
                    avx512,
                    2,
                    false,
                    count,
                    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                    (rows, columns, k, sums, ahead)
                ),
                (Isa::Avx512, true, true) => by_rows!(
                    avx512,
                    2,
                    true,
                    count,
                    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                    (rows, columns, k, sums, ahead)
                ),
                (Isa::Avx512, false, _) => by_rows!(
                    avx512,
                    1,
                    false,
                    count,
                    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                    (rows, columns, k, sums, ahead)
                ),
                (_, true, false) => {
                    by_rows!(avx2, 2, false, count, [1, 2, 3, 4, 5, 6], (rows, columns, k, sums, ahead))
                }
                (_, true, true) => {
                    by_rows!(avx2, 2, true, count, [1, 2, 3, 4, 5, 6], (rows, columns, k, sums, ahead))
                }
                (_, false, _) => {
                    by_rows!(avx2, 1, false, count, [1, 2, 3, 4, 5, 6], (rows, columns, k, sums, ahead))
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!(
            "no shape is of another machine: {:?}",
            (count, rows.start, columns.start, k, width, sums.start, ahead.start)
        )
    }
}

/// One term of all sums of a tile.
macro_rules! term {
    ($load:ident, $splat:ident, $fma:ident, $lanes:literal, $sums:ident, $columns:expr, $number:expr) => {
        let from: *const f32 = $columns;
        // SAFETY: the caller's: this term is one of k.
        let columns: [_; V] =
            std::array::from_fn(|vector| unsafe { $load(from.wrapping_add(vector * $lanes)) });
        for row in 0..R {
            // SAFETY: as above.
            let number = $splat(unsafe { *$number(row) });
            for vector in 0..V {
                $sums[row][vector] = $fma(number, columns[vector], $sums[row][vector]);
            }
        }
    };
}

/// A kernel: the same text for each width of vector.
macro_rules! kernel {
    ($name:ident, $features:literal, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $fma:ident, $times:ident, $plus:ident, $store:ident) => {
        /// `BESIDES` says that rows lie side by side, so that one address does for all.
        ///
        /// # Safety
        /// As for [`Shape::multiply`], with `R` rows and `V` vectors.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const V: usize, const BESIDES: bool>(
            rows: Rows,
            columns: Columns,
            k: usize,
            to: Sums,
            ahead: Ahead,
        ) {
            let mut sums = [[$zero(); V]; R];
            if to.adds {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller's: R rows of V vectors are there.
                        *sum = unsafe { $load(to.start.add(row * to.row_stride + vector * $lanes)) };
                    }
                }
            }
            let mut fetched = ahead.start;
            let mut from = columns.start;
            let mut term = 0;
            if BESIDES {
                let mut first = rows.start;
                while term + TOGETHER <= k {
                    if term < ahead.count {
                        for _ in 0..TOGETHER {
                            _mm_prefetch::<_MM_HINT_T0>(fetched.cast());
                            fetched = fetched.wrapping_add(ahead.stride);
                        }
                    }
                    for _ in 0..TOGETHER {
                        term!($load, $splat, $fma, $lanes, sums, from, |row| first.wrapping_add(row));
                        first = first.wrapping_add(rows.k_stride);
                        from = from.wrapping_add(columns.k_stride);
                    }
                    term += TOGETHER;
                }
            }
            let starts: [*const f32; R] =
                std::array::from_fn(|row| rows.start.wrapping_add(row * rows.row_stride));
            while term < k {
                if term < ahead.count {
                    _mm_prefetch::<_MM_HINT_T0>(fetched.cast());
                    fetched = fetched.wrapping_add(ahead.stride);
                }
                let at = term * rows.k_stride;
                term!($load, $splat, $fma, $lanes, sums, from, |row: usize| starts[row].wrapping_add(at));
                from = from.wrapping_add(columns.k_stride);
                term += 1;
            }
            if let Some(End { alpha, c }) = to.end {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = $times($splat(alpha), *sum);
                        if let Some((beta, c, stride)) = c {
                            // SAFETY: the caller's.
                            let c = unsafe { $load(c.add(row * stride + vector * $lanes)) };
                            *sum = $plus(*sum, $times($splat(beta), c));
                        }
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    // SAFETY: the caller's: R rows of V vectors fit.
                    unsafe { $store(to.start.add(row * to.row_stride + vector * $lanes), *sum) };
                }
            }
        }
    };
}

/// Terms of a round of rows that lie side by side.
#[cfg(target_arch = "x86_64")]
const TOGETHER: usize = 4;

kernel!(
    avx512,
    "avx512f",
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_mul_ps,
    _mm512_add_ps,
    _mm512_storeu_ps
);
kernel!(
    avx2,
    "avx2,fma",
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_mul_ps,
    _mm256_add_ps,
    _mm256_storeu_ps
);
