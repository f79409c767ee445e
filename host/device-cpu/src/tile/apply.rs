//! The element-wise ops of the table, one row each.
//!
//! Where the table leaves room: `Max` and `Min` of a NaN and a number give the number; integers wrap;
//! an integer divided by 0 is 0, and so is its remainder; a float out of an integer's range saturates and a NaN becomes 0; the low five bits
//! of a shift count are used.

use ops::{DType, Op};

use super::lanes::{binary, formula, quaternary, select, unary};
use super::program::View;
use crate::math;

/// Whether [`apply`] has this op for a first (Select: second) argument of this dtype.
pub fn supports(op: Op, dtype: DType) -> bool {
    use DType::*;
    match op {
        Op::Copy | Op::Cast | Op::Bitcast | Op::Select | Op::Eq => true,
        Op::Recip | Op::Sqrt | Op::Exp | Op::Log | Op::Sin | Op::Cos | Op::Tanh | Op::Erf | Op::Floor => {
            dtype == F32
        }
        Op::Neg | Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem => dtype != Bool,
        Op::Max | Op::Min | Op::Lt => true,
        Op::And | Op::Or | Op::Xor => dtype != F32,
        Op::Shl | Op::Shr | Op::Rand => dtype == U32,
        _ => false,
    }
}

/// Arguments, by position; those an op does not have repeat the last.
pub struct Operands {
    pub out: View,
    pub args: [View; 4],
    pub dtype: DType,
    pub to: DType,
    pub extent: (usize, usize),
}

/// `N` groups pass through a long formula abreast; `FUSES` is of [`Abreast`](crate::abreast::Abreast).
///
/// # Safety
/// The views hold `extent` groups each; `out` equals an argument's memory or is apart from it.
#[inline(always)]
pub unsafe fn apply<const N: usize, const FUSES: bool>(op: Op, operands: &Operands) {
    let Operands { out, args, dtype, to, extent } = *operands;
    let [a, b, c, _] = args;
    let pair = [a, b];
    macro_rules! unary {
        ($from:ty, $f:expr) => {
            // SAFETY: the caller's.
            unsafe {
                unary(
                    out,
                    a,
                    extent,
                    #[inline(always)]
                    |x: $from| $f(x),
                )
            }
        };
    }
    macro_rules! formula {
        ($f:path) => {
            // SAFETY: the caller's.
            unsafe {
                formula::<N, FUSES>(
                    out,
                    a,
                    extent,
                    #[inline(always)]
                    |x| $f(x),
                    #[inline(always)]
                    |x| $f(x),
                )
            }
        };
    }
    macro_rules! binary {
        ($from:ty, $f:expr) => {
            // SAFETY: the caller's.
            unsafe {
                binary(
                    out,
                    pair,
                    extent,
                    #[inline(always)]
                    |x: $from, y: $from| $f(x, y),
                )
            }
        };
    }
    // bool is stored as u32 0 or 1; two's complement lets i32 and u32 share what wraps.
    macro_rules! by_dtype {
        ($float:expr, $signed:expr, $unsigned:expr) => {
            match dtype {
                DType::F32 => binary!(f32, $float),
                DType::I32 => binary!(i32, $signed),
                DType::U32 | DType::Bool => binary!(u32, $unsigned),
            }
        };
    }
    match op {
        Op::Neg if dtype == DType::F32 => unary!(f32, |x: f32| -x),
        Op::Neg => unary!(i32, i32::wrapping_neg),
        Op::Recip => unary!(f32, |x: f32| 1.0 / x),
        Op::Sqrt => unary!(f32, f32::sqrt),
        Op::Exp => formula!(math::exp),
        Op::Log => formula!(math::log),
        Op::Sin => unary!(f32, math::sin),
        Op::Cos => unary!(f32, math::cos),
        Op::Tanh => formula!(math::tanh),
        Op::Erf => formula!(math::erf),
        Op::Floor => unary!(f32, math::floor),
        Op::Cast => match (dtype, to) {
            (DType::F32, DType::I32) => unary!(f32, |x: f32| x as i32),
            (DType::F32, DType::U32) => unary!(f32, |x: f32| x as u32),
            (DType::F32, DType::Bool) => unary!(f32, |x: f32| (x != 0.0) as u32),
            (DType::I32, DType::F32) => unary!(i32, |x: i32| x as f32),
            (_, DType::F32) => unary!(u32, |x: u32| x as f32),
            (_, DType::Bool) => unary!(u32, |x: u32| (x != 0) as u32),
            _ => unary!(u32, |x: u32| x),
        },
        Op::Copy | Op::Bitcast => unary!(u32, |x: u32| x),
        Op::Add => by_dtype!(|x: f32, y: f32| x + y, i32::wrapping_add, u32::wrapping_add),
        Op::Sub => by_dtype!(|x: f32, y: f32| x - y, i32::wrapping_sub, u32::wrapping_sub),
        Op::Mul => by_dtype!(|x: f32, y: f32| x * y, i32::wrapping_mul, u32::wrapping_mul),
        Op::Div => by_dtype!(
            |x: f32, y: f32| x / y,
            |x: i32, y: i32| if y == 0 { 0 } else { x.wrapping_div(y) },
            |x: u32, y: u32| x.checked_div(y).unwrap_or(0)
        ),
        Op::Rem => by_dtype!(
            |x: f32, y: f32| x % y,
            |x: i32, y: i32| if y == 0 { 0 } else { x.wrapping_rem(y) },
            |x: u32, y: u32| x.checked_rem(y).unwrap_or(0)
        ),
        Op::Max => by_dtype!(|x: f32, y: f32| if x > y || y.is_nan() { x } else { y }, Ord::max, Ord::max),
        Op::Min => by_dtype!(|x: f32, y: f32| if x < y || y.is_nan() { x } else { y }, Ord::min, Ord::min),
        Op::Lt => {
            by_dtype!(|x: f32, y: f32| (x < y) as u32, |x: i32, y: i32| (x < y) as u32, |x: u32, y: u32| (x
                < y)
                as u32)
        }
        Op::Eq if dtype == DType::F32 => binary!(f32, |x: f32, y: f32| (x == y) as u32),
        Op::Eq => binary!(u32, |x: u32, y: u32| (x == y) as u32),
        Op::And => binary!(u32, |x: u32, y: u32| x & y),
        Op::Or => binary!(u32, |x: u32, y: u32| x | y),
        Op::Xor => binary!(u32, |x: u32, y: u32| x ^ y),
        Op::Shl => binary!(u32, u32::wrapping_shl),
        Op::Shr => binary!(u32, u32::wrapping_shr),
        // SAFETY: the caller's.
        Op::Select => unsafe { select(out, [a, b, c], extent) },
        // SAFETY: the caller's.
        Op::Rand => unsafe { quaternary(out, args, extent, ops::random_word) },
        // `compile` refuses every other op.
        _ => {}
    }
}
