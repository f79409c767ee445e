//! Where the numbers of an operand come from. Each is exact in its dtype, so that a device and the interpreter start
//! from the same values.

use data::Stream;
use graph::DType;

/// A range of numbers that suits an operand.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Uniform between two numbers.
    Within(f64, f64),
    /// Whole numbers from `.0` to `.1`: ties, ids, positions. In u32 and bool their distance from `.0`.
    Whole(i64, i64),
    /// Floats of both signs from 2^-n to 2^n, and some zeros of both signs and ones.
    Wide(u32),
    /// The same without negative numbers.
    Positive(u32),
    /// [`Values::Wide`] with some NaNs and infinities.
    Special,
    /// Any 32 bits, or any truth value: with the smallest and largest integers more often than chance has them.
    Any,
}

pub const UNIT: Values = Values::Within(-1.0, 1.0);

impl Values {
    pub fn draw(self, dtype: DType, stream: &mut Stream) -> f64 {
        match dtype {
            DType::F32 => f64::from(self.float(stream) as f32),
            DType::Bool => stream.below(2) as f64,
            _ => self.integer(dtype, stream),
        }
    }

    fn float(self, stream: &mut Stream) -> f64 {
        match self {
            Values::Within(low, high) => low + (high - low) * stream.uniform(),
            Values::Whole(low, high) => (low + stream.below((high - low + 1) as u64) as i64) as f64,
            Values::Special if stream.below(8) == 0 => {
                [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][stream.below(3) as usize]
            }
            Values::Wide(_) if stream.below(6) == 0 => [0.0, -0.0, 1.0, -1.0][stream.below(4) as usize],
            Values::Positive(_) if stream.below(6) == 0 => stream.below(2) as f64,
            Values::Wide(n) => magnitude(n, stream) * if stream.below(2) == 0 { 1.0 } else { -1.0 },
            Values::Positive(n) => magnitude(n, stream),
            Values::Special | Values::Any => Values::Wide(20).float(stream),
        }
    }

    fn integer(self, dtype: DType, stream: &mut Stream) -> f64 {
        match (self, dtype) {
            (Values::Whole(low, high), DType::I32) => {
                (low + stream.below((high - low + 1) as u64) as i64) as f64
            }
            (Values::Whole(low, high), _) => stream.below((high - low + 1) as u64) as f64,
            (_, DType::I32) if stream.below(4) == 0 => {
                f64::from([i32::MIN, i32::MAX, -1, 0, 1, i32::MIN + 1][stream.below(6) as usize])
            }
            (_, DType::I32) => f64::from(stream.next_u32() as i32),
            _ if stream.below(4) == 0 => {
                f64::from([0, 1, 31, 32, u32::MAX, 1 << 31][stream.below(6) as usize])
            }
            _ => f64::from(stream.next_u32()),
        }
    }
}

fn magnitude(n: u32, stream: &mut Stream) -> f64 {
    ((2.0 * stream.uniform() - 1.0) * f64::from(n)).exp2()
}
