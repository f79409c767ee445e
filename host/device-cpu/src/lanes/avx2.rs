//! Sixteen floats as two registers of AVX2, with FMA.

use std::arch::x86_64::*;

use super::{EXP2, HALF_MASKED, LOWEST, Lanes};
use crate::product::{Left, Out, Right, product};

/// AVX2 with FMA: two registers.
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

// SAFETY of every block below: the caller's, who has AVX2 and FMA and gives pointers to sixteen floats.
impl Lanes for Avx2 {
    const ROWS: [usize; 4] = [6, 0, 0, 0];
    const SUMS: usize = 4;

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
    unsafe fn keep(self, at: Avx2, low: Avx2, high: Avx2, other: f32) -> Avx2 {
        // SAFETY: see above.
        unsafe {
            let kept = |x, at, low, high| {
                let seen = _mm256_and_ps(
                    _mm256_cmp_ps::<_CMP_LE_OQ>(low, at),
                    _mm256_cmp_ps::<_CMP_LT_OQ>(at, high),
                );
                _mm256_blendv_ps(_mm256_set1_ps(other), x, seen)
            };
            Avx2(kept(self.0, at.0, low.0, high.0), kept(self.1, at.1, low.1, high.1))
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

#[target_feature(enable = "avx2,fma")]
unsafe fn product_avx2(extents: [usize; 3], a: Left, b: Right, c: Out, adds: bool) {
    // SAFETY: the caller's.
    unsafe { product::<Avx2>(extents, a, b, c, adds) }
}
