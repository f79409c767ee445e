//! What each element-wise op does to one element.

use ops::{DType, Op};

/// Value of an element-wise op; None for an op that has no scalar meaning. `from` is the dtype of the last operand,
/// `to` the result's.
pub fn scalar(op: Op, args: &[f64], from: DType, to: DType) -> Option<f64> {
    let truth = |holds: bool| f64::from(u8::from(holds));
    let x = *args.first()?;
    let y = args.get(1).copied().unwrap_or(0.0);
    Some(match op {
        Op::Neg => wrap(-x, to),
        Op::Recip => 1.0 / x,
        Op::Sqrt => x.sqrt(),
        Op::Exp => x.exp(),
        Op::Log => x.ln(),
        Op::Sin => x.sin(),
        Op::Cos => x.cos(),
        Op::Tanh => x.tanh(),
        Op::Erf => libm::erf(x),
        Op::Floor => x.floor(),
        Op::Copy => x,
        // Between integers the 32 bits stay, as where results wrap.
        Op::Cast if !from.is_float() && to != DType::Bool => wrap(x, to),
        Op::Cast => cast(x, to),
        Op::Bitcast => from_bits(to_bits(x, from), to),
        Op::Add => wrap(x + y, to),
        Op::Sub => wrap(x - y, to),
        Op::Mul => multiply(x, y, to),
        Op::Div if to.is_float() => x / y,
        Op::Div if y == 0.0 => 0.0,
        Op::Div => wrap((x / y).trunc(), to),
        Op::Rem if y == 0.0 && !to.is_float() => 0.0,
        Op::Rem => x % y,
        Op::Max => x.max(y),
        Op::Min => x.min(y),
        Op::Lt => truth(x < y),
        Op::Eq => truth(x == y),
        Op::And => bitwise(x, y, to, |a, b| a & b),
        Op::Or => bitwise(x, y, to, |a, b| a | b),
        Op::Xor => bitwise(x, y, to, |a, b| a ^ b),
        Op::Shl => bitwise(x, y, to, |a, b| a << (b & 31)),
        Op::Shr => bitwise(x, y, to, |a, b| a >> (b & 31)),
        Op::Select => args[if x != 0.0 { 1 } else { 2 }],
        Op::Rand => f64::from(ops::random_word(x as u32, y as u32, args[2] as u32, args[3] as u32)),
        _ => return None,
    })
}

fn cast(x: f64, to: DType) -> f64 {
    match to {
        DType::F32 => x,
        DType::I32 => f64::from(x as i32),
        DType::U32 => f64::from(x as u32),
        DType::Bool => f64::from(u8::from(x != 0.0)),
    }
}

/// Integer results wrap around at 32 bits.
fn wrap(x: f64, to: DType) -> f64 {
    match to {
        DType::I32 => f64::from(x as i64 as i32),
        DType::U32 => f64::from(x as i64 as u32),
        _ => x,
    }
}

fn multiply(x: f64, y: f64, to: DType) -> f64 {
    match to {
        DType::I32 => f64::from((x as i32).wrapping_mul(y as i32)),
        DType::U32 => f64::from((x as u32).wrapping_mul(y as u32)),
        _ => x * y,
    }
}

fn bitwise(x: f64, y: f64, dtype: DType, op: impl Fn(u32, u32) -> u32) -> f64 {
    from_bits(op(to_bits(x, dtype), to_bits(y, dtype)), dtype)
}

fn to_bits(x: f64, dtype: DType) -> u32 {
    match dtype {
        DType::F32 => (x as f32).to_bits(),
        DType::I32 => x as i32 as u32,
        DType::U32 | DType::Bool => x as u32,
    }
}

fn from_bits(bits: u32, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::from_bits(bits)),
        DType::I32 => f64::from(bits as i32),
        DType::U32 => f64::from(bits),
        DType::Bool => f64::from(bits & 1),
    }
}
