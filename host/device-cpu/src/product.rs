//! The product that hand kernels with long sums are made of: single numbers of a strided matrix times rows of whole lanes.
//!
//! In the cross-entropy of a head tokens lie in the lanes and the head's rows are read one number at a time; in the delta
//! rule states are turned by reading them the other way. Neither needs a transposed copy. Sums of sixteen terms are those of `held`.

use crate::lanes::{LANES, Lanes};

/// Numbers from one row of a usual head to the next.
const USUAL_ROW: usize = 64;

/// Element (i, k) at `ptr + i * row + k * column`.
#[derive(Clone, Copy)]
pub struct Left {
    pub ptr: *const f32,
    pub row: usize,
    pub column: usize,
}

/// Row k at `ptr + k * row`, its elements one after another.
#[derive(Clone, Copy)]
pub struct Right {
    pub ptr: *const f32,
    pub row: usize,
}

/// Row i at `ptr + i * row`, its elements one after another.
#[derive(Clone, Copy)]
pub struct Out {
    pub ptr: *mut f32,
    pub row: usize,
}

/// Copies `rows` rows of `width` numbers to one after another, each filled up with zeros to whole lanes: rows that lie
/// a power of two apart, as those of one of several heads, would drive each other out of the cache.
///
/// # Safety
/// The rows are readable, `to` takes `rows` times the padded width, and the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn pack<L: Lanes>(from: Left, rows: usize, width: usize, to: *mut f32) -> Left {
    let row = width.next_multiple_of(LANES);
    let whole = if from.column == 1 { width / LANES * LANES } else { 0 };
    // SAFETY: the caller's.
    unsafe {
        for i in 0..rows {
            let (from_row, to_row) = (from.ptr.add(i * from.row), to.add(i * row));
            for d in (0..whole).step_by(LANES) {
                L::load(from_row.add(d)).store(to_row.add(d));
            }
            for d in whole..row {
                *to_row.add(d) = if d < width { *from_row.add(d * from.column) } else { 0.0 };
            }
        }
    }
    Left { ptr: to, row, column: 1 }
}

/// `c[m, n] = a[m, k] b[k, n]`, or added to c, for extents [m, n in groups of lanes, k]. Terms are added in the order
/// of k.
///
/// # Safety
/// The matrices are readable, c writable and apart from them; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn product<L: Lanes>([m, groups, k]: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
    let widest = if L::ROWS[3] > 0 { 4 } else { 1 };
    let mut done = 0;
    while done < groups {
        // Panels of near equal width.
        let left = groups - done;
        let width = left.div_ceil(left.div_ceil(widest));
        // SAFETY: the caller's; the panel lies in both matrices.
        unsafe {
            let b = Right { ptr: b.ptr.add(done * LANES), ..b };
            let c = Out { ptr: c.ptr.add(done * LANES), ..c };
            // With a stride that is known here, the addresses of a tile's rows are one register and constants.
            match a.row {
                1 => sized::<L>(width, [m, k], Left { row: 1, ..a }, b, c, adds),
                USUAL_ROW => sized::<L>(width, [m, k], Left { row: USUAL_ROW, ..a }, b, c, adds),
                _ => sized::<L>(width, [m, k], a, b, c, adds),
            }
        }
        done += width;
    }
}

#[inline(always)]
unsafe fn sized<L: Lanes>(width: usize, [m, k]: [usize; 2], a: Left, b: Right, c: Out, adds: bool) {
    // SAFETY: the caller's.
    unsafe {
        match width {
            1 => panel::<L, 1>(m, k, a, b, c, adds),
            2 if L::ROWS[1] > 0 => panel::<L, 2>(m, k, a, b, c, adds),
            3 if L::ROWS[2] > 0 => panel::<L, 3>(m, k, a, b, c, adds),
            _ if L::ROWS[3] > 0 => panel::<L, 4>(m, k, a, b, c, adds),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn panel<L: Lanes, const N: usize>(m: usize, k: usize, a: Left, b: Right, c: Out, adds: bool) {
    let most = L::ROWS[N - 1];
    let mut row = 0;
    while row < m {
        let left = (m - row).min(most);
        // SAFETY: the caller's; the rows lie in a and c.
        unsafe {
            let a = Left { ptr: a.ptr.add(row * a.row), ..a };
            let c = Out { ptr: c.ptr.add(row * c.row), ..c };
            row += match left {
                12.. if L::ROWS[N - 1] >= 12 => tile::<L, 12, N>(k, a, b, c, adds),
                8.. if L::ROWS[N - 1] >= 8 => tile::<L, 8, N>(k, a, b, c, adds),
                6.. if L::ROWS[N - 1] >= 6 => tile::<L, 6, N>(k, a, b, c, adds),
                4.. if L::ROWS[N - 1] >= 4 => tile::<L, 4, N>(k, a, b, c, adds),
                2.. => tile::<L, 2, N>(k, a, b, c, adds),
                _ => tile::<L, 1, N>(k, a, b, c, adds),
            };
        }
    }
}

/// M rows of N values, held in registers over the whole sum. Returns M.
#[inline(always)]
unsafe fn tile<L: Lanes, const M: usize, const N: usize>(
    k: usize,
    a: Left,
    b: Right,
    c: Out,
    adds: bool,
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[L::splat(0.0); N]; M];
        if adds {
            for (i, row) in sums.iter_mut().enumerate() {
                for (n, sum) in row.iter_mut().enumerate() {
                    *sum = L::load(c.ptr.add(i * c.row + n * LANES));
                }
            }
        }
        // A pointer for every three rows: one for each would run out of registers, one for all would be a chain of
        // additions.
        let mut from_a: [*const f32; 4] = std::array::from_fn(|three| a.ptr.wrapping_add(3 * three * a.row));
        let mut from_b = b.ptr;
        for _ in 0..k {
            let mut right = [L::splat(0.0); N];
            for (n, right) in right.iter_mut().enumerate() {
                *right = L::load(from_b.add(n * LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let left = L::splat(*from_a[i / 3].add(i % 3 * a.row));
                for (sum, right) in row.iter_mut().zip(right) {
                    *sum = left.fma(right, *sum);
                }
            }
            for from in &mut from_a {
                *from = from.wrapping_add(a.column);
            }
            from_b = from_b.wrapping_add(b.row);
        }
        for (i, row) in sums.into_iter().enumerate() {
            for (n, sum) in row.into_iter().enumerate() {
                sum.store(c.ptr.add(i * c.row + n * LANES));
            }
        }
    }
    M
}
