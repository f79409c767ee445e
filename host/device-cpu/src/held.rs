//! Products with sixteen rows of one operand, or of the result, held in registers while all rows of another pass by.
//!
//! In attention a block of keys meets sixteen queries in the lanes: scores need sums of few terms (the width of a head)
//! and weighted values few rows, so a tile of a usual product would spend as long on its borders as on its sums. Here the
//! queries, or the sums over keys, stay where they are, and the other operand is read number by number where it lies.

use crate::lanes::{LANES, Lanes};
use crate::product::Out;

/// Rows that are held.
pub const HELD: usize = 16;

/// The body for each of the sixteen values of its variable.
macro_rules! each_term {
    ($i:ident, $body:block) => {
        each_term!($i, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($i:ident, $body:block, $($value:literal)*) => {
        $({
            let $i = $value;
            $body
        })*
    };
}

/// Rows of sixteen numbers, `row` floats apart.
#[derive(Clone, Copy)]
pub struct Numbers {
    pub ptr: *const f32,
    pub row: usize,
}

impl Numbers {
    /// From another row and number on.
    pub fn at(self, row: usize, number: usize) -> Numbers {
        Numbers { ptr: self.ptr.wrapping_add(row * self.row + number), ..self }
    }

    pub fn from(self, row: usize) -> Numbers {
        self.at(row, 0)
    }
}

/// For each row j of `a`: `done(j, first(j) + sum over i < 16 of a[j, i] b[i])`, the terms in order of i.
///
/// # Safety
/// `count` rows of `a` and sixteen of `b`, `b_row` floats apart, are readable; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn each_row<L: Lanes>(
    count: usize,
    a: Numbers,
    (b, b_row): (*const f32, usize),
    first: impl Fn(usize) -> L,
    mut done: impl FnMut(usize, L),
) {
    // SAFETY: the caller's.
    unsafe {
        if L::SUMS >= HELD {
            let mut held = [L::splat(0.0); HELD];
            for (i, held) in held.iter_mut().enumerate() {
                *held = L::load(b.add(i * b_row));
            }
            let whole = count / 8 * 8;
            for j in (0..whole).step_by(8) {
                rows::<L, 8>(j, a, |i| held[i], &first, &mut done);
            }
            for j in whole..count {
                rows::<L, 1>(j, a, |i| held[i], &first, &mut done);
            }
            return;
        }
        let load = |i| L::load(b.add(i * b_row));
        let most = L::SUMS;
        let whole = count / most * most;
        for j in (0..whole).step_by(most) {
            match most {
                4 => rows::<L, 4>(j, a, load, &first, &mut done),
                _ => rows::<L, 2>(j, a, load, &first, &mut done),
            }
        }
        for j in whole..count {
            rows::<L, 1>(j, a, load, &first, &mut done);
        }
    }
}

#[inline(always)]
unsafe fn rows<L: Lanes, const R: usize>(
    start: usize,
    a: Numbers,
    b: impl Fn(usize) -> L,
    first: &impl Fn(usize) -> L,
    done: &mut impl FnMut(usize, L),
) {
    // SAFETY: the caller's.
    unsafe {
        let from = a.ptr.add(start * a.row);
        let mut sums = [L::splat(0.0); R];
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = first(start + r);
        }
        // Written out, since what is held is in registers only if each use names it.
        each_term!(i, {
            let b = b(i);
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = L::splat(*from.add(r * a.row + i)).fma(b, *sum);
            }
        });
        for (r, sum) in sums.into_iter().enumerate() {
            done(start + r, sum);
        }
    }
}

/// `c[i] += sum over j of a[j, i] w[j]` for sixteen rows i of sixteen lanes, the terms in order of j; rows of `w` follow
/// one another.
///
/// # Safety
/// `count` rows of `a` and `w` are readable and sixteen of `c` writable; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn add_rows<L: Lanes>(count: usize, a: Numbers, w: *const f32, c: Out) {
    // SAFETY: the caller's.
    unsafe {
        match L::SUMS {
            HELD => sums::<L, HELD>(count, a, w, c),
            most => {
                for first in (0..HELD).step_by(most) {
                    let a = Numbers { ptr: a.ptr.add(first), ..a };
                    let c = Out { ptr: c.ptr.add(first * c.row), ..c };
                    match most {
                        4 => sums::<L, 4>(count, a, w, c),
                        _ => sums::<L, 2>(count, a, w, c),
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn sums<L: Lanes, const R: usize>(count: usize, a: Numbers, w: *const f32, c: Out) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [L::splat(0.0); R];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = L::load(c.ptr.add(i * c.row));
        }
        for j in 0..count {
            let (from, weight) = (a.ptr.add(j * a.row), L::load(w.add(j * LANES)));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = L::splat(*from.add(i)).fma(weight, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            sum.store(c.ptr.add(i * c.row));
        }
    }
}
