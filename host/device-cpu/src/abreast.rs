//! Numbers that pass through one formula side by side.
//!
//! A polynomial is one long chain of operations that wait for each other. A machine looks ahead by some hundred
//! operations, which is one or two groups of lanes of a long formula: most of its units then idle (measured: `erf` at a
//! third of the throughput). Where several groups pass in step, operation by operation, the chains fill each other's
//! waiting. A formula is written once over [`Abreast`]; each number's result is the same for any `N`.

use std::ops::{Add, Div, Mul, Sub};

/// `N` numbers, one per chain.
#[derive(Clone, Copy)]
pub struct Abreast<const N: usize>(pub [f32; N]);

impl<const N: usize> Abreast<N> {
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
        impl<const N: usize> $trait for Abreast<N> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                self.with(other, #[inline(always)] |x, y| x $symbol y)
            }
        }

        impl<const N: usize> $trait<f32> for Abreast<N> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, constant: f32) -> Self {
                self.map(#[inline(always)] |x| x $symbol constant)
            }
        }

        impl<const N: usize> $trait<Abreast<N>> for f32 {
            type Output = Abreast<N>;
            #[inline(always)]
            fn $name(self, numbers: Abreast<N>) -> Abreast<N> {
                numbers.map(#[inline(always)] |x| self $symbol x)
            }
        }
    };
}

operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);
