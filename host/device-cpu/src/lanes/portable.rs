//! Sixteen floats as an array, for machines without wide registers that we know.

use super::{EXP2, HALF_MASKED, LANES, LOWEST, Lanes};
use crate::product::{Left, Out, Right, product};

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
    const SUMS: usize = 2;

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
    unsafe fn keep(self, at: Portable, low: Portable, high: Portable, other: f32) -> Portable {
        let is_seen = |lane: usize| low.0[lane] <= at.0[lane] && at.0[lane] < high.0[lane];
        Portable(std::array::from_fn(|lane| if is_seen(lane) { self.0[lane] } else { other }))
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
