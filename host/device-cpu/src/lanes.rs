//! Sixteen floats as one value: the arithmetic of hand kernels, once for each instruction set.
//!
//! Autovectorisation cannot be trusted with two dozen accumulators, so the types here are registers. Every function is
//! inlined into a caller that has the instruction set enabled; nothing else makes them fast, or sound.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::product::{Left, Out, Right, product};

/// Floats of one value.
pub const LANES: usize = 16;

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

/// For machines without the others.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(self, other: Portable, f: impl Fn(f32, f32) -> f32) -> Portable {
        Portable(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

impl Lanes for Portable {
    const ROWS: [usize; 4] = [2, 0, 0, 0];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Portable {
        Portable([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Portable {
        // SAFETY: the caller's.
        Portable(unsafe { ptr.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: the caller's.
        unsafe { ptr.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Portable) -> Portable {
        self.map(other, |x, y| x + y)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Portable) -> Portable {
        self.map(other, |x, y| x - y)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Portable) -> Portable {
        self.map(other, |x, y| x * y)
    }

    #[inline(always)]
    unsafe fn fma(self, factor: Portable, term: Portable) -> Portable {
        self.map(factor, |x, y| x * y).map(term, |x, y| x + y)
    }

    #[inline(always)]
    unsafe fn max(self, other: Portable) -> Portable {
        self.map(other, |x, y| if x > y { x } else { y })
    }

    #[inline(always)]
    unsafe fn unmasked(self) -> Portable {
        self.map(self, |x, _| if x > HALF_MASKED { x } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn exp2(self) -> Portable {
        // x + ROUND - ROUND is x rounded, and the low bits of x + ROUND hold it.
        const ROUND: f32 = 12_582_912.0;
        self.map(self, |x, _| {
            let clamped = x.clamp(LOWEST, 127.0);
            let shifted = clamped + ROUND;
            let r = clamped - (shifted - ROUND);
            let p = EXP2[1..].iter().fold(EXP2[0], |p, factor| p * r + factor);
            let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
            let bounded = if x < LOWEST { 0.0 } else { scaled };
            if x.is_nan() { x } else { bounded }
        })
    }

    unsafe fn product(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
        // SAFETY: the caller's.
        unsafe { product::<Portable>(extents, a, b, c, adds) }
    }
}

/// Whether an instruction set of the tile machine has what the kernels need beyond it.
#[cfg(target_arch = "x86_64")]
pub fn has_fma() -> bool {
    is_x86_feature_detected!("fma")
}

/// AVX2 with FMA: two registers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

#[cfg(target_arch = "x86_64")]
// SAFETY of every block below: the caller's, who has AVX2 and FMA and gives pointers to sixteen floats.
impl Lanes for Avx2 {
    const ROWS: [usize; 4] = [6, 0, 0, 0];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_loadu_ps(ptr), _mm256_loadu_ps(ptr.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(ptr, self.0);
            _mm256_storeu_ps(ptr.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn fma(self, factor: Avx2, term: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Avx2) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn unmasked(self) -> Avx2 {
        // SAFETY: see above.
        unsafe {
            let bound = _mm256_set1_ps(HALF_MASKED);
            let kept = |x: __m256| _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_GT_OQ>(x, bound));
            Avx2(kept(self.0), kept(self.1))
        }
    }

    #[inline(always)]
    unsafe fn exp2(self) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2(exp2_avx2(self.0), exp2_avx2(self.1)) }
    }

    unsafe fn product(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
        // SAFETY: see above.
        unsafe { product_avx2(extents, a, b, c, adds) }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2_avx2(x: __m256) -> __m256 {
    // The smaller one is x where x is no number.
    let bounded = _mm256_min_ps(_mm256_set1_ps(127.0), x);
    let whole = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(bounded);
    let r = _mm256_sub_ps(bounded, whole);
    let mut p = _mm256_set1_ps(EXP2[0]);
    for factor in &EXP2[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*factor));
    }
    let power = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(whole));
    let scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    _mm256_and_ps(scaled, _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(LOWEST)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn product_avx2(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
    // SAFETY: the caller's.
    unsafe { product::<Avx2>(extents, a, b, c, adds) }
}

/// AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
// SAFETY of every block below: the caller's, who has AVX-512 and gives pointers to sixteen floats.
impl Lanes for Avx512 {
    const ROWS: [usize; 4] = [12, 12, 8, 6];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_loadu_ps(ptr)) }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(ptr, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn fma(self, factor: Avx512, term: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_fmadd_ps(self.0, factor.0, term.0)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Avx512) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn unmasked(self) -> Avx512 {
        // SAFETY: see above.
        unsafe {
            let is_true = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_set1_ps(HALF_MASKED));
            Avx512(_mm512_maskz_mov_ps(is_true, self.0))
        }
    }

    #[inline(always)]
    unsafe fn exp2(self) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512(exp2_avx512(self.0)) }
    }

    #[inline(always)]
    unsafe fn transpose(rows: [Avx512; LANES]) -> [Avx512; LANES] {
        // SAFETY: see above.
        unsafe { transpose_avx512(rows) }
    }

    unsafe fn product(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
        // SAFETY: see above.
        unsafe { product_avx512(extents, a, b, c, adds) }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2_avx512(x: __m512) -> __m512 {
    let whole = _mm512_roundscale_ps::<0>(x);
    let r = _mm512_sub_ps(x, whole);
    let mut p = _mm512_set1_ps(EXP2[0]);
    for factor in &EXP2[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*factor));
    }
    let is_large = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(LOWEST));
    _mm512_maskz_scalef_ps(is_large, p, whole)
}

/// Pairs of rows, then fours, then fours of fours.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(rows: [Avx512; LANES]) -> [Avx512; LANES] {
    let mut fours = rows;
    for first in (0..LANES).step_by(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[first + row].0);
        let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (low_too, high_too) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let halves = [(low, low_too), (high, high_too)];
        for (half, (x, y)) in halves.into_iter().enumerate() {
            let (x, y) = (_mm512_castps_pd(x), _mm512_castps_pd(y));
            fours[first + 2 * half].0 = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            fours[first + 2 * half + 1].0 = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    }
    let mut columns = fours;
    for column in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|four| fours[four + column].0);
        let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (even_too, odd_too) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        columns[column].0 = _mm512_shuffle_f32x4::<0x88>(even, even_too);
        columns[4 + column].0 = _mm512_shuffle_f32x4::<0x88>(odd, odd_too);
        columns[8 + column].0 = _mm512_shuffle_f32x4::<0xdd>(even, even_too);
        columns[12 + column].0 = _mm512_shuffle_f32x4::<0xdd>(odd, odd_too);
    }
    columns
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn product_avx512(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
    // SAFETY: the caller's.
    unsafe { product::<Avx512>(extents, a, b, c, adds) }
}
