//! A scalar evaluator of tile kernels that follows the plan's contract word by word, one point after another.
//!
//! It shares the element-wise mathematics with the device (tested apart, in `math`), and nothing else.

use ops::{DType, Op};
use plan::{Affine, Expr, Template, TileKernel};

use crate::abreast::Abreast;
use crate::math;

/// The bits of a formula of one number.
fn formula(formula: fn(Abreast<1, true>) -> Abreast<1, true>, x: f32) -> u32 {
    formula(Abreast([x])).0[0].to_bits()
}

/// Runs a kernel on the words of its bindings.
pub fn evaluate(kernel: &TileKernel, bindings: &mut [Vec<u32>]) {
    let points: Vec<Vec<usize>> = (0..kernel.points()).map(|point| unravel(point, &kernel.dims)).collect();
    let mut values: Vec<Vec<u32>> = Vec::new();
    for value in &kernel.values {
        let result: Vec<u32> = match &value.expr {
            Expr::Const(bits) => vec![*bits; points.len()],
            Expr::Iota(at) => points
                .iter()
                .map(|index| match value.dtype {
                    DType::F32 => (place(at, index) as f32).to_bits(),
                    _ => place(at, index) as u32,
                })
                .collect(),
            Expr::Load { binding, at, gather } => points
                .iter()
                .enumerate()
                .map(|(point, index)| {
                    let moved = gather.map_or(0, |gather| {
                        let id = i64::from(values[gather.index][point] as i32);
                        gather.stride * id.clamp(0, gather.limit as i64 - 1)
                    });
                    bindings[*binding][(place(at, index) + moved) as usize]
                })
                .collect(),
            Expr::Apply { op, args } => {
                let dtype = kernel.values[args[if *op == Op::Select { 1 } else { 0 }]].dtype;
                let at = |point: usize| args.iter().map(|arg| values[*arg][point]).collect::<Vec<u32>>();
                (0..points.len()).map(|point| apply(*op, &at(point), dtype, value.dtype)).collect()
            }
            Expr::Reduce { op, arg } => reduce(kernel, &points, *op, &values[*arg]),
        };
        values.push(result);
    }
    for store in &kernel.stores {
        for (point, index) in points.iter().enumerate() {
            bindings[store.binding][place(&store.at, index) as usize] = values[store.value][point];
        }
    }
}

fn unravel(mut point: usize, dims: &[usize]) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    for axis in (0..dims.len()).rev() {
        index[axis] = point % dims[axis];
        point /= dims[axis];
    }
    index
}

fn place(at: &Affine, index: &[usize]) -> i64 {
    at.offset + at.strides.iter().zip(index).map(|(stride, i)| stride * *i as i64).sum::<i64>()
}

/// The reduced value at every point.
fn reduce(kernel: &TileKernel, points: &[Vec<usize>], op: Op, arg: &[u32]) -> Vec<u32> {
    let rank = kernel.dims.len();
    let reduced = match kernel.template {
        Template::Map => 0..0,
        Template::RowReduce { reduced } => rank - reduced..rank,
        Template::ColReduce { outer, reduced } => outer..outer + reduced,
    };
    let key = |index: &[usize]| {
        let mut key = index.to_vec();
        key[reduced.clone()].fill(0);
        key
    };
    let mut rows: std::collections::HashMap<Vec<usize>, Vec<f32>> = Default::default();
    for (point, index) in points.iter().enumerate() {
        rows.entry(key(index)).or_default().push(f32::from_bits(arg[point]));
    }
    let is_row = matches!(kernel.template, Template::RowReduce { .. });
    let totals: std::collections::HashMap<Vec<usize>, f32> = rows
        .into_iter()
        .map(|(key, row)| (key, if is_row { row_total(op, &row) } else { column_total(op, &row) }))
        .collect();
    points.iter().map(|index| totals[&key(index)].to_bits()).collect()
}

fn identity(op: Op) -> f32 {
    if op == Op::Sum { 0.0 } else { f32::NEG_INFINITY }
}

fn fold(op: Op, total: f32, x: f32) -> f32 {
    match op {
        Op::Sum => total + x,
        _ if x > total => x,
        _ => total,
    }
}

fn row_total(op: Op, row: &[f32]) -> f32 {
    if row.len() > 65_536 {
        return row.chunks(8192).fold(identity(op), |total, block| fold(op, total, lanes_total(op, block)));
    }
    lanes_total(op, row)
}

fn lanes_total(op: Op, row: &[f32]) -> f32 {
    let mut lanes = [identity(op); 16];
    row.iter().enumerate().for_each(|(i, x)| lanes[i % 16] = fold(op, lanes[i % 16], *x));
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = fold(op, lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

fn column_total(op: Op, rows: &[f32]) -> f32 {
    let block = |rows: &[f32]| rows.iter().fold(identity(op), |total, x| fold(op, total, *x));
    rows.chunks(256).fold(identity(op), |total, rows| fold(op, total, block(rows)))
}

fn apply(op: Op, args: &[u32], dtype: DType, to: DType) -> u32 {
    let float = |index: usize| f32::from_bits(args[index]);
    let signed = |index: usize| args[index] as i32;
    let x = args[0];
    let y = args.get(1).copied().unwrap_or(0);
    match (op, dtype) {
        (Op::Copy | Op::Bitcast, _) => x,
        (Op::Select, _) => args[if x != 0 { 1 } else { 2 }],
        (Op::Cast, DType::F32) => match to {
            DType::F32 => x,
            DType::I32 => float(0) as i32 as u32,
            DType::U32 => float(0) as u32,
            DType::Bool => (float(0) != 0.0) as u32,
        },
        (Op::Cast, from) => match (from, to) {
            (DType::I32, DType::F32) => (signed(0) as f32).to_bits(),
            (_, DType::F32) => (x as f32).to_bits(),
            (_, DType::Bool) => (x != 0) as u32,
            _ => x,
        },
        (Op::Neg, DType::F32) => (-float(0)).to_bits(),
        (Op::Recip, _) => (1.0 / float(0)).to_bits(),
        (Op::Sqrt, _) => float(0).sqrt().to_bits(),
        (Op::Exp, _) => formula(math::exp, float(0)),
        (Op::Log, _) => formula(math::log, float(0)),
        (Op::Sin, _) => math::sin(float(0)).to_bits(),
        (Op::Cos, _) => math::cos(float(0)).to_bits(),
        (Op::Tanh, _) => formula(math::tanh, float(0)),
        (Op::Erf, _) => formula(math::erf, float(0)),
        (Op::Floor, _) => float(0).floor().to_bits(),
        (Op::Add, DType::F32) => (float(0) + float(1)).to_bits(),
        (Op::Sub, DType::F32) => (float(0) - float(1)).to_bits(),
        (Op::Mul, DType::F32) => (float(0) * float(1)).to_bits(),
        (Op::Div, DType::F32) => (float(0) / float(1)).to_bits(),
        (Op::Rem, DType::F32) => (float(0) % float(1)).to_bits(),
        (Op::Rem, _) if y == 0 => 0,
        (Op::Rem, DType::I32) => signed(0).wrapping_rem(signed(1)) as u32,
        (Op::Rem, _) => x % y,
        (Op::Max, DType::F32) => {
            if float(0) > float(1) || float(1).is_nan() {
                x
            } else {
                y
            }
        }
        (Op::Min, DType::F32) => {
            if float(0) < float(1) || float(1).is_nan() {
                x
            } else {
                y
            }
        }
        (Op::Lt, DType::F32) => (float(0) < float(1)) as u32,
        (Op::Eq, DType::F32) => (float(0) == float(1)) as u32,
        (Op::Neg, _) => x.wrapping_neg(),
        (Op::Add, _) => x.wrapping_add(y),
        (Op::Sub, _) => x.wrapping_sub(y),
        (Op::Mul, _) => x.wrapping_mul(y),
        (Op::Div, _) if y == 0 => 0,
        (Op::Div, DType::I32) => signed(0).wrapping_div(signed(1)) as u32,
        (Op::Div, _) => x / y,
        (Op::Max, DType::I32) => signed(0).max(signed(1)) as u32,
        (Op::Max, _) => x.max(y),
        (Op::Min, DType::I32) => signed(0).min(signed(1)) as u32,
        (Op::Min, _) => x.min(y),
        (Op::Lt, DType::I32) => (signed(0) < signed(1)) as u32,
        (Op::Lt, _) => (x < y) as u32,
        (Op::Eq, _) => (x == y) as u32,
        (Op::And, _) => x & y,
        (Op::Or, _) => x | y,
        (Op::Xor, _) => x ^ y,
        (Op::Rand, _) => ops::random_word(x, y, args[2], args[3]),
        (Op::Shl, _) => x << (y % 32),
        (Op::Shr, _) => x >> (y % 32),
        _ => panic!("the generator makes no {op} of {dtype}"),
    }
}
