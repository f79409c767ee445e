//! Sixteen floats as one value: the arithmetic of hand kernels, once for each instruction set.
//!
//! Autovectorisation cannot be trusted with two dozen accumulators, so the types here are registers. Every function is
//! inlined into a caller that has the instruction set enabled; nothing else makes them fast, or sound.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

use crate::product::{Left, Out, Right};

/// Floats of one value.
pub const LANES: usize = 16;

/// Calls `function::<L>(arguments)` compiled for an instruction set, which the caller knows to be there.
macro_rules! on_isa {
    ($isa:expr, $($function:ident)::+ ( $($argument:ident: $type:ty),* $(,)? )) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn on_avx512($($argument: $type),*) {
            // SAFETY: the caller's.
            unsafe { $($function)::+::<$crate::lanes::Avx512>($($argument),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn on_avx2($($argument: $type),*) {
            // SAFETY: the caller's.
            unsafe { $($function)::+::<$crate::lanes::Avx2>($($argument),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::tile::Isa::Avx512 => on_avx512($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::tile::Isa::Avx2 => on_avx2($($argument),*),
            _ => $($function)::+::<$crate::lanes::Portable>($($argument),*),
        }
    }};
}
pub(crate) use on_isa;

/// Numbers below this are masked scores.
const HALF_MASKED: f32 = -5e29;

/// 2^r on [-1/2, 1/2] within an ulp or so: Cephes exp2f, highest power first.
const EXP2: [f32; 7] =
    [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0];
/// Below this exp2 gives 0: its result would be subnormal.
const LOWEST: f32 = -126.0;

/// # Safety
/// Each function needs the instruction set of its type; pointers are good for sixteen floats.
pub trait Lanes: Copy {
    /// Most rows of a register tile that is 1, 2, 3 or 4 values wide; 0 where such a tile has no room.
    const ROWS: [usize; 4];
    /// Most sums that are formed side by side where each is one value.
    const SUMS: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(ptr: *const f32) -> Self;
    unsafe fn store(self, ptr: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self * factor + term
    unsafe fn fma(self, factor: Self, term: Self) -> Self;
    /// The larger one; `other` where one is no number.
    unsafe fn max(self, other: Self) -> Self;
    /// Itself, or 0 for what is below any true score.
    unsafe fn unmasked(self) -> Self;
    /// Itself where low <= at < high, else `other`.
    unsafe fn keep(self, at: Self, low: Self, high: Self, other: f32) -> Self;
    /// 2^x for x up to 127; NaN stays NaN.
    unsafe fn exp2(self) -> Self;
    /// Columns of sixteen rows.
    #[inline(always)]
    unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut block = [[0.0f32; LANES]; LANES];
        let mut columns = rows;
        // SAFETY: the caller's; rows of the block are sixteen floats.
        unsafe {
            for (row, to) in rows.into_iter().zip(&mut block) {
                row.store(to.as_mut_ptr());
            }
            for (index, column) in columns.iter_mut().enumerate() {
                let values = block.map(|row| row[index]);
                *column = Self::load(values.as_ptr());
            }
        }
        columns
    }

    /// [`product`], compiled for this instruction set.
    unsafe fn product(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool);
}

/// Asks for `count` floats from `start` on, which are needed soon. Any address will do.
#[inline(always)]
pub fn fetch(start: *const f32, count: usize) {
    for line in (0..count).step_by(LANES) {
        let next = start.wrapping_add(line);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch of any address is without effect on results, and every x86-64 has it.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(next.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = next;
    }
}
