//! The element-wise ops of the table as WGSL expressions, one row each, and constants.
//!
//! WGSL has truth values of its own that cannot be stored; ours are u32, 0 or 1. Where the table leaves room the answers
//! are the CPU device's: `Max` and `Min` of a NaN and a number give the number, an integer divided by 0 is 0 and so is
//! its remainder, a float out of an integer's range saturates and a NaN becomes 0.

use ops::{DType, Op};

/// The WGSL type that holds a dtype.
pub fn type_of(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::I32 => "i32",
        DType::U32 | DType::Bool => "u32",
    }
}

/// Stored bits as a value of a dtype.
pub fn from_bits(dtype: DType, bits: &str) -> String {
    match dtype {
        DType::U32 | DType::Bool => bits.to_string(),
        _ => format!("bitcast<{}>({bits})", type_of(dtype)),
    }
}

/// A value as the bits that are stored.
pub fn to_bits(dtype: DType, value: &str) -> String {
    match dtype {
        DType::U32 | DType::Bool => value.to_string(),
        _ => format!("bitcast<u32>({value})"),
    }
}

/// A constant by its bits. What WGSL has no literal for passes through a function, so that nobody folds it into an error.
pub fn constant(dtype: DType, bits: u32) -> String {
    match dtype {
        DType::F32 => float(f32::from_bits(bits)),
        DType::I32 if bits <= i32::MAX as u32 => format!("{bits}i"),
        DType::I32 => format!("signed_of({bits}u)"),
        DType::U32 | DType::Bool => format!("{bits}u"),
    }
}

/// A float literal.
pub fn float(x: f32) -> String {
    if x.is_normal() || x.to_bits() == 0 { format!("{x:?}f") } else { format!("float_of({}u)", x.to_bits()) }
}

/// An op of names or constants; `from` is the dtype of its first (Select: second) argument, `to` the result's. None for
/// what no kernel holds.
pub fn apply(op: Op, args: &[String], from: DType, to: DType) -> Option<String> {
    use DType::*;
    let x = args.first()?;
    let y = args.get(1).map_or("", String::as_str);
    let is_float = from == F32;
    let call = |name: &str| format!("{name}({x})");
    let call_2 = |name: &str| format!("{name}({x}, {y})");
    let infix = |symbol: &str| format!("{x} {symbol} {y}");
    let truth = |condition: String| format!("select(0u, 1u, {condition})");
    Some(match op {
        Op::Copy => x.clone(),
        Op::Neg => format!("-{x}"),
        Op::Recip => format!("1.0f / {x}"),
        Op::Sqrt => call("sqrt"),
        Op::Exp => call("exponential"),
        Op::Log => call("logarithm"),
        Op::Sin => call("sine"),
        Op::Cos => call("cosine"),
        Op::Tanh => call("hyperbolic_tangent"),
        Op::Erf => call("error_function"),
        Op::Floor => call("floor"),
        Op::Bitcast => format!("bitcast<{}>({x})", type_of(to)),
        Op::Cast => match (from, to) {
            (F32, F32) | (I32, I32) | (U32 | Bool, U32) | (Bool, Bool) => x.clone(),
            (F32, I32) => call("to_signed"),
            (F32, U32) => call("to_unsigned"),
            (F32, Bool) => truth(format!("(bitcast<u32>({x}) << 1u) != 0u")),
            (_, F32) => call("f32"),
            (_, I32) | (I32, U32) => format!("bitcast<{}>({x})", type_of(to)),
            (I32, Bool) => truth(format!("{x} != 0i")),
            (U32, Bool) => truth(format!("{x} != 0u")),
        },
        Op::Add => infix("+"),
        Op::Sub => infix("-"),
        Op::Mul => infix("*"),
        Op::Div if is_float => infix("/"),
        Op::Div => call_2(if from == I32 { "quotient_i32" } else { "quotient_u32" }),
        Op::Rem if is_float => call_2("remainder_f32"),
        Op::Rem => call_2(if from == I32 { "remainder_i32" } else { "remainder_u32" }),
        Op::Max => call_2(if is_float { "larger" } else { "max" }),
        Op::Min => call_2(if is_float { "smaller" } else { "min" }),
        Op::Lt => truth(infix("<")),
        Op::Eq => truth(infix("==")),
        Op::And => infix("&"),
        Op::Or => infix("|"),
        Op::Xor => infix("^"),
        Op::Shl => format!("{x} << ({y} & 31u)"),
        Op::Shr => format!("{x} >> ({y} & 31u)"),
        Op::Select => format!("select({}, {y}, {x} != 0u)", args.get(2)?),
        Op::Rand => format!("random_word({x}, {y}, {}, {})", args.get(2)?, args.get(3)?),
        _ => return None,
    })
}
