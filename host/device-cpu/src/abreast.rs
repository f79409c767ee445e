//! Numbers that pass through one formula side by side.
//!
//! A polynomial is one long chain of operations that wait for each other. A machine looks ahead by some hundred
//! operations, which is one or two groups of lanes of a long formula: most of its units then idle (measured: `erf` at a
//! third of the throughput). Where several groups pass in step, operation by operation, the chains fill each other's
//! waiting. A formula is written once over [`Abreast`]; each number's result is the same for any `N`.

use std::ops::{Add, Div, Mul, Sub};

/// `N` numbers, one per chain. `FUSES`: the code they pass through is compiled for a machine with an instruction that
/// fuses a product and a sum; else the same result is found without.
#[derive(Clone, Copy)]
pub struct Abreast<const N: usize, const FUSES: bool>(pub [f32; N]);

/// Whether every machine that this build runs on fuses.
pub const FUSES: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// A number for each chain.
pub trait Each: Copy {
    fn at(self, chain: usize) -> f32;
}

impl Each for f32 {
    #[inline(always)]
    fn at(self, _: usize) -> f32 {
        self
    }
}

impl<const N: usize, const FUSES: bool> Each for Abreast<N, FUSES> {
    #[inline(always)]
    fn at(self, chain: usize) -> f32 {
        self.0[chain]
    }
}

impl<const N: usize, const FUSES: bool> Abreast<N, FUSES> {
    /// `self * factor + term`, rounded once.
    #[inline(always)]
    pub fn fma(self, factor: impl Each, term: impl Each) -> Self {
        let mut result = self;
        for chain in 0..N {
            let (x, y, z) = (self.0[chain], factor.at(chain), term.at(chain));
            result.0[chain] = if FUSES { x.mul_add(y, z) } else { fused(x, y, z) };
        }
        result
    }

    #[inline(always)]
    pub fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut result = self;
        for chain in 0..N {
            result.0[chain] = f(self.0[chain]);
        }
        result
    }

    #[inline(always)]
    pub fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = self;
        for chain in 0..N {
            result.0[chain] = f(self.0[chain], other.0[chain]);
        }
        result
    }

    /// For each number, that of `yes` where the condition holds for it, else that of `no`.
    #[inline(always)]
    pub fn choose(self, condition: impl Fn(f32) -> bool, yes: Self, no: Self) -> Self {
        let mut result = self;
        for chain in 0..N {
            result.0[chain] = if condition(self.0[chain]) { yes.0[chain] } else { no.0[chain] };
        }
        result
    }
}

macro_rules! operator {
    ($trait:ident, $name:ident, $symbol:tt) => {
        impl<const N: usize, const FUSES: bool> $trait for Abreast<N, FUSES> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                self.with(other, #[inline(always)] |x, y| x $symbol y)
            }
        }

        impl<const N: usize, const FUSES: bool> $trait<f32> for Abreast<N, FUSES> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, constant: f32) -> Self {
                self.map(#[inline(always)] |x| x $symbol constant)
            }
        }

        impl<const N: usize, const FUSES: bool> $trait<Abreast<N, FUSES>> for f32 {
            type Output = Abreast<N, FUSES>;
            #[inline(always)]
            fn $name(self, numbers: Abreast<N, FUSES>) -> Abreast<N, FUSES> {
                numbers.map(#[inline(always)] |x| self $symbol x)
            }
        }
    };
}

operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

/// x * y + z rounded once, in double precision, where a product is exact: the sum is rounded to odd, so that rounding it
/// once more to single precision cannot err (Boldo and Melquiond 2008, doi 10.1109/TC.2007.70819).
#[inline(always)]
fn fused(x: f32, y: f32, z: f32) -> f32 {
    let (product, z) = (f64::from(x) * f64::from(y), f64::from(z));
    let sum = product + z;
    // What rounding lost, exactly (Knuth's sum of two).
    let of_z = sum - product;
    let lost = (product - (sum - of_z)) + (z - of_z);
    let bits = sum.to_bits();
    // Away from what was lost when the last bit is even: towards it in magnitude, by one unit.
    let towards = if (lost > 0.0) == (sum > 0.0) { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    let is_exact = lost == 0.0 || !lost.is_finite() || bits & 1 == 1;
    (if is_exact { sum } else { f64::from_bits(towards) }) as f32
}

#[cfg(test)]
mod tests {
    use super::fused;

    #[test]
    fn fusing_without_the_instruction_gives_its_bits() {
        let mut state = 1u64;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let check = |x: f32, y: f32, z: f32| {
            let (ours, want) = (fused(x, y, z), x.mul_add(y, z));
            assert!(ours.to_bits() == want.to_bits() || ours.is_nan() && want.is_nan(), "{x:e} {y:e} {z:e}");
        };
        for _ in 0..300_000 {
            // Any floats; then such whose sum cancels or meets the middle between two floats.
            let [x, y, z] = [word(), word(), word()].map(f32::from_bits);
            check(x, y, z);
            let [x, y] = [word(), word()].map(|bits| f32::from_bits(bits >> 9 | 0x3f80_0000));
            let scale = f32::from_bits((100 + word() % 40) << 23);
            check(x, y, -(x * y));
            check(x, y, scale * f32::from_bits(word() >> 9 | 0x3f80_0000));
            check(
                x,
                f32::from_bits(0x3f80_0000 | word() & 0xff),
                f32::from_bits((word() & 0x8000_0000) | 0x3380_0000),
            );
        }
    }
}
