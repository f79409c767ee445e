//! Sixteen floats as one register of AVX-512.

use std::arch::x86_64::*;

use super::{EXP2, HALF_MASKED, LANES, LOWEST, Lanes};
use crate::product::{Left, Out, Right, product};

/// AVX-512.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

// SAFETY of every block below: the caller's, who has AVX-512 and gives pointers to sixteen floats.
impl Lanes for Avx512 {
    const ROWS: [usize; 4] = [12, 12, 8, 6];
    const SUMS: usize = 16;

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
    unsafe fn keep(self, at: Avx512, low: Avx512, high: Avx512, other: f32) -> Avx512 {
        // SAFETY: see above.
        unsafe {
            let from = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(low.0, at.0);
            let seen = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(from, at.0, high.0);
            Avx512(_mm512_mask_blend_ps(seen, _mm512_set1_ps(other), self.0))
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn product_avx512(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
    // SAFETY: the caller's.
    unsafe { product::<Avx512>(extents, a, b, c, adds) }
}
