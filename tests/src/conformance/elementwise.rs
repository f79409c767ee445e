//! Element-wise ops, on each dtype they take.

use graph::{Class, DType, NodeId, Op};

use super::values::{UNIT, Values};
use super::{Maker, Row, Tolerance, row};

const NUMBERS: &[DType] = &[DType::F32, DType::I32, DType::U32];
const WORDS: &[DType] = &[DType::I32, DType::U32, DType::Bool];

pub fn rows() -> Vec<Row> {
    let ops = Op::ALL.iter().copied().filter(|op| op.row().class == Class::Elementwise);
    ops.map(|op| {
        let (value, reason) = tolerance(op);
        row(op, 24, make, value, order(op), reason)
    })
    .collect()
}

fn tolerance(op: Op) -> (Tolerance, &'static str) {
    match op {
        Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Recip | Op::Sqrt => {
            (Tolerance::Ulps(1.0), "rounded to one of the two nearest")
        }
        Op::Exp | Op::Log | Op::Sin | Op::Cos => (Tolerance::Ulps(1.0), "the stated error of the polynomial"),
        Op::Tanh | Op::Erf => (Tolerance::Ulps(2.0), "the stated error of the polynomial"),
        Op::Cast => (Tolerance::Ulps(0.5), "integers beyond 2^24 are rounded to floats"),
        _ => (Tolerance::Exact, "chooses, compares, moves bits or counts: there is nothing to round"),
    }
}

/// How often the op can be differentiated with numbers to show for it.
fn order(op: Op) -> usize {
    match op {
        Op::Neg | Op::Recip | Op::Sqrt | Op::Exp | Op::Log | Op::Sin | Op::Cos | Op::Tanh | Op::Erf => 2,
        Op::Copy | Op::Add | Op::Sub | Op::Mul | Op::Div => 2,
        Op::Max | Op::Min | Op::Rem | Op::Select => 1,
        _ => 0,
    }
}

fn dtypes(op: Op) -> &'static [DType] {
    match op {
        Op::Neg => &[DType::F32, DType::I32],
        Op::Cast | Op::Copy | Op::Lt | Op::Eq | Op::Select => &DType::ALL,
        Op::Bitcast | Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem | Op::Max | Op::Min => NUMBERS,
        Op::And | Op::Or | Op::Xor => WORDS,
        Op::Shl | Op::Shr | Op::Rand => &[DType::U32],
        _ => &[DType::F32],
    }
}

/// Numbers of one operand: in cases with derivatives such as keep those small, else what the op is defined on.
fn values(op: Op, operand: usize, tame: bool) -> Values {
    match (op, tame) {
        (Op::Recip, true) => Values::Within(0.5, 3.0),
        (Op::Div | Op::Rem, true) if operand == 1 => Values::Within(0.7, 3.0),
        (Op::Sqrt | Op::Log, true) => Values::Within(0.5, 4.0),
        (Op::Max | Op::Min, true) => Values::Whole(-2, 2),
        (_, true) => Values::Within(-1.5, 1.5),
        (Op::Sqrt | Op::Log, false) => Values::Positive(120),
        (Op::Exp, false) => Values::Within(-100.0, 100.0),
        (Op::Sin | Op::Cos, false) => Values::Wide(28),
        (Op::Tanh | Op::Erf, false) => Values::Wide(6),
        (Op::Lt | Op::Eq, false) if operand == 1 => Values::Whole(-2, 2),
        (Op::Max | Op::Min | Op::Lt | Op::Eq, false) => Values::Special,
        (Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem, false) => Values::Wide(70),
        (Op::Shl | Op::Shr, false) if operand == 1 => Values::Whole(0, 40),
        (Op::Floor | Op::Cast, false) => Values::Wide(34),
        _ => Values::Any,
    }
}

fn make(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let list = dtypes(op);
    // Every dtype has its turn, in cases of even seeds and of odd ones.
    let dtype = list[(m.seed / 2) as usize % list.len()];
    let tame = m.differentiates && dtype.is_float();
    let dims = m.dims(0..=8);
    if op == Op::Select {
        let mask = m.operand(DType::Bool, &dims, Values::Any);
        let [x, y] = [0, 1].map(|_| m.operand(dtype, &dims, if tame { UNIT } else { Values::Any }));
        return vec![m.emit(op, &[mask, x, y], &[], &[])];
    }
    let operands: Vec<NodeId> = (0..op.row().arity.0)
        .map(|operand| {
            let small_integers = !dtype.is_float() && m.below(2) == 0;
            let values = if small_integers { Values::Whole(-3, 3) } else { values(op, operand, tame) };
            m.operand(dtype, &dims, values)
        })
        .collect();
    let to: Vec<DType> = match op {
        Op::Cast => DType::ALL.into_iter().filter(|to| *to != dtype).collect(),
        Op::Bitcast => NUMBERS.iter().copied().filter(|to| *to != dtype).collect(),
        _ => return vec![m.emit(op, &operands, &[], &[])],
    };
    to.into_iter().map(|to| m.emit(op, &operands, &[to as i64], &[])).collect()
}
