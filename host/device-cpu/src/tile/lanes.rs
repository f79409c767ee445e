//! Inner loops over views, 16 lanes at a time: load a group, compute, store it.
//!
//! All functions here are `#[inline(always)]` so that each instruction set's build of the step interpreter
//! (`isa.rs`) vectorises its own copy. The mask in an operand's offset is more than a broadcast: it keeps the compiler
//! from vectorising across groups, which would break updates in place and gain nothing.

use super::program::{LANES, View};
use crate::abreast::Abreast;

pub type Group<T> = [T; LANES];

/// # Safety
/// 16 elements at `ptr` are readable.
#[inline(always)]
pub unsafe fn load<T: Copy>(ptr: *const T) -> Group<T> {
    // SAFETY: the caller's.
    unsafe { ptr.cast::<Group<T>>().read_unaligned() }
}

/// # Safety
/// 16 elements at `ptr` are writable.
#[inline(always)]
pub unsafe fn store<T: Copy>(ptr: *mut T, group: Group<T>) {
    // SAFETY: the caller's.
    unsafe { ptr.cast::<Group<T>>().write_unaligned(group) }
}

#[inline(always)]
pub fn map2<T: Copy>(a: Group<T>, b: Group<T>, f: impl Fn(T, T) -> T) -> Group<T> {
    let mut out = a;
    for lane in 0..LANES {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

/// One row of groups where no operand needs more than one row step.
#[inline(always)]
fn flatten<const COUNT: usize>(
    views: [View; COUNT],
    (rows, groups): (usize, usize),
) -> ([View; COUNT], usize, usize) {
    let width = (groups * LANES) as isize;
    // A lone group is read alike with and without a mask, so that its rows may follow each other as groups.
    let is_flat = |view: &View| {
        if groups == 1 {
            view.row_step == width || view.row_step == 0
        } else {
            view.row_step == if view.mask == 0 { 0 } else { width }
        }
    };
    if rows == 1 {
        return (views, rows, groups);
    }
    // By `Iterator::all` this is a call.
    let mut are_flat = true;
    for view in &views {
        are_flat &= is_flat(view);
    }
    if !are_flat {
        return (views, rows, groups);
    }
    let as_groups = |view: View| View { mask: if view.row_step == 0 { 0 } else { usize::MAX }, ..view };
    (if groups == 1 { views.map(as_groups) } else { views }, 1, rows * groups)
}

/// # Safety
/// Each view holds `rows` x `groups` groups; `out` equals an argument's memory or is apart from it.
#[inline(always)]
pub unsafe fn unary<A: Copy, R: Copy + Default>(
    out: View,
    a: View,
    extent: (usize, usize),
    f: impl Fn(A) -> R,
) {
    let ([out, a], rows, groups) = flatten([out, a], extent);
    for row in 0..rows as isize {
        // SAFETY: the caller's; row and group are within the extent.
        unsafe {
            let out = out.ptr.cast::<R>().offset(row * out.row_step);
            let a_row = a.ptr.cast::<A>().offset(row * a.row_step);
            for group in 0..groups {
                let x = load(a_row.add((group * LANES) & a.mask));
                let mut result = [R::default(); LANES];
                for lane in 0..LANES {
                    result[lane] = f(x[lane]);
                }
                store(out.add(group * LANES), result);
            }
        }
    }
}

/// # Safety
/// As for [`unary`].
#[inline(always)]
pub unsafe fn binary<A: Copy, R: Copy + Default>(
    out: View,
    [a, b]: [View; 2],
    extent: (usize, usize),
    f: impl Fn(A, A) -> R,
) {
    let ([out, a, b], rows, groups) = flatten([out, a, b], extent);
    for row in 0..rows as isize {
        // SAFETY: the caller's; row and group are within the extent.
        unsafe {
            let out = out.ptr.cast::<R>().offset(row * out.row_step);
            let a_row = a.ptr.cast::<A>().offset(row * a.row_step);
            let b_row = b.ptr.cast::<A>().offset(row * b.row_step);
            for group in 0..groups {
                let x = load(a_row.add((group * LANES) & a.mask));
                let y = load(b_row.add((group * LANES) & b.mask));
                let mut result = [R::default(); LANES];
                for lane in 0..LANES {
                    result[lane] = f(x[lane], y[lane]);
                }
                store(out.add(group * LANES), result);
            }
        }
    }
}

/// Where the first argument is not 0 the second, else the third.
///
/// # Safety
/// As for [`unary`].
#[inline(always)]
pub unsafe fn select(out: View, [condition, yes, no]: [View; 3], extent: (usize, usize)) {
    let ([out, condition, yes, no], rows, groups) = flatten([out, condition, yes, no], extent);
    for row in 0..rows as isize {
        // SAFETY: the caller's; row and group are within the extent.
        unsafe {
            let out = out.ptr.offset(row * out.row_step);
            let condition_row = condition.ptr.offset(row * condition.row_step);
            let yes_row = yes.ptr.offset(row * yes.row_step);
            let no_row = no.ptr.offset(row * no.row_step);
            for group in 0..groups {
                let holds = load(condition_row.add((group * LANES) & condition.mask));
                let x = load(yes_row.add((group * LANES) & yes.mask));
                let y = load(no_row.add((group * LANES) & no.mask));
                let mut result = [0; LANES];
                for lane in 0..LANES {
                    result[lane] = if holds[lane] != 0 { x[lane] } else { y[lane] };
                }
                store(out.add(group * LANES), result);
            }
        }
    }
}

/// A formula of one number with `N` groups abreast; `rest` is the same formula for the groups that are left over.
///
/// # Safety
/// As for [`unary`].
#[expect(
    clippy::needless_range_loop,
    reason = "by iterators the lanes of arrays of arrays are not vectorised"
)]
#[inline(always)]
pub unsafe fn formula<const N: usize, const FUSES: bool>(
    out: View,
    a: View,
    extent: (usize, usize),
    f: impl Fn(Abreast<N, FUSES>) -> Abreast<N, FUSES>,
    rest: impl Fn(Abreast<1, FUSES>) -> Abreast<1, FUSES>,
) {
    let ([out, a], rows, groups) = flatten([out, a], extent);
    let whole = if N == 1 { 0 } else { groups / N * N };
    for row in 0..rows as isize {
        // SAFETY: the caller's; row and group are within the extent.
        unsafe {
            let out = out.ptr.cast::<f32>().offset(row * out.row_step);
            let a_row = a.ptr.cast::<f32>().offset(row * a.row_step);
            for first in (0..whole).step_by(N) {
                let mut x = [[0.0; LANES]; N];
                for chain in 0..N {
                    x[chain] = load(a_row.add(((first + chain) * LANES) & a.mask));
                }
                let mut results = x;
                for lane in 0..LANES {
                    let mut numbers = Abreast([0.0; N]);
                    for chain in 0..N {
                        numbers.0[chain] = x[chain][lane];
                    }
                    let numbers = f(numbers);
                    for chain in 0..N {
                        results[chain][lane] = numbers.0[chain];
                    }
                }
                for chain in 0..N {
                    store(out.add((first + chain) * LANES), results[chain]);
                }
            }
            for group in whole..groups {
                let x = load(a_row.add((group * LANES) & a.mask));
                let mut result = [0.0; LANES];
                for lane in 0..LANES {
                    result[lane] = rest(Abreast([x[lane]])).0[0];
                }
                store(out.add(group * LANES), result);
            }
        }
    }
}

/// Words from four words.
///
/// # Safety
/// As for [`unary`].
#[inline(always)]
pub unsafe fn quaternary(
    out: View,
    args: [View; 4],
    extent: (usize, usize),
    f: impl Fn(u32, u32, u32, u32) -> u32,
) {
    let [a, b, c, d] = args;
    let ([out, a, b, c, d], rows, groups) = flatten([out, a, b, c, d], extent);
    for row in 0..rows as isize {
        // SAFETY: the caller's; row and group are within the extent.
        unsafe {
            let out = out.ptr.offset(row * out.row_step);
            let [a_row, b_row, c_row, d_row] = args.map(|arg| arg.ptr.offset(row * arg.row_step));
            for group in 0..groups {
                let x = load(a_row.add((group * LANES) & a.mask));
                let y = load(b_row.add((group * LANES) & b.mask));
                let z = load(c_row.add((group * LANES) & c.mask));
                let w = load(d_row.add((group * LANES) & d.mask));
                let mut result = [0; LANES];
                for lane in 0..LANES {
                    result[lane] = f(x[lane], y[lane], z[lane], w[lane]);
                }
                store(out.add(group * LANES), result);
            }
        }
    }
}
