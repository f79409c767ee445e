//! Leaves and movements, on each dtype.

use graph::{DType, NodeId, Op};

use super::maker::ints;
use super::values::{UNIT, Values};
use super::{Maker, Row, Tolerance, row};

pub fn rows() -> Vec<Row> {
    let moves = "moves numbers: there is nothing to round";
    let exact = Tolerance::Exact;
    vec![
        row(Op::Const, 24, constant, exact, 0, "the f32 nearest to the number"),
        row(Op::Iota, 24, iota, exact, 0, "small whole numbers"),
        row(Op::Reshape, 40, reshape, exact, 2, moves),
        row(Op::Permute, 40, permute, exact, 2, moves),
        row(Op::Broadcast, 40, broadcast, exact, 2, moves),
        row(Op::Slice, 40, slice, exact, 2, moves),
        row(Op::Pad, 40, pad, exact, 2, moves),
        row(Op::Concat, 40, concat, exact, 2, moves),
    ]
}

fn dtype_of(m: &Maker) -> DType {
    DType::ALL[(m.seed / 2) as usize % 4]
}

fn operand(m: &mut Maker, dims: &[usize]) -> NodeId {
    let values = if m.differentiates { UNIT } else { Values::Any };
    let dtype = dtype_of(m);
    m.operand(dtype, dims, values)
}

fn constant(m: &mut Maker, _: Op) -> Vec<NodeId> {
    let (dtype, dims) = (dtype_of(m), m.dims(0..=8));
    let value = Values::Any.draw(dtype, &mut m.stream);
    let x = m.graph.constant(value, dtype, &dims);
    let other = operand(m, &dims);
    let mask = m.operand(DType::Bool, &dims, Values::Any);
    vec![x, m.emit(Op::Select, &[mask, x, other], &[], &[])]
}

fn iota(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(1..=8);
    let dtype = DType::ALL[(m.seed % 3) as usize];
    let attributes = [&[m.below(dims.len()), dtype as usize], &dims[..]].concat();
    let x = m.emit(op, &[], &ints(&attributes), &[]);
    let other = m.operand(dtype, &dims, Values::Whole(0, 9));
    vec![x, m.emit(Op::Add, &[x, other], &[], &[])]
}

/// To other factors, up to eight of them, with ones between.
fn reshape(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(0..=8);
    let x = operand(m, &dims);
    let (mut left, mut to) = (dims.iter().product::<usize>(), Vec::new());
    while to.len() < 7 && (left > 1 || m.below(3) > 0) {
        let factors: Vec<usize> = (1..=left.min(64)).filter(|factor| left.is_multiple_of(*factor)).collect();
        let factor = m.pick(&factors);
        to.push(factor);
        left /= factor;
    }
    if left > 1 {
        to.push(left);
    }
    vec![m.emit(op, &[x], &ints(&to), &[])]
}

fn permute(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(0..=8);
    let (x, axes) = (operand(m, &dims), m.order(dims.len()));
    vec![m.emit(op, &[x], &ints(&axes), &[])]
}

fn broadcast(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(0..=8);
    let inner: Vec<usize> = dims.iter().map(|dim| if m.below(2) == 0 { 1 } else { *dim }).collect();
    let x = operand(m, &inner);
    vec![m.emit(op, &[x], &ints(&dims), &[])]
}

fn slice(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(0..=8);
    let x = operand(m, &dims);
    let ranges: Vec<usize> = dims
        .iter()
        .flat_map(|dim| {
            let start = m.below(*dim);
            [start, 1 + m.below(dim - start)]
        })
        .collect();
    vec![m.emit(op, &[x], &ints(&ranges), &[])]
}

fn pad(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(0..=6);
    let x = operand(m, &dims);
    let margins: Vec<usize> = (0..2 * dims.len()).map(|_| m.pick(&[0, 0, 1, 2])).collect();
    let fill = Values::Whole(0, 1).draw(dtype_of(m), &mut m.stream);
    vec![m.emit(op, &[x], &ints(&margins), &[fill])]
}

/// Up to five operands, one of them perhaps twice.
fn concat(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(1..=8);
    let axis = m.below(dims.len());
    let mut parts: Vec<NodeId> = (0..1 + m.below(4))
        .map(|_| {
            let mut part = dims.clone();
            part[axis] = m.pick(&[1, 2, dims[axis]]);
            operand(m, &part)
        })
        .collect();
    if m.below(3) == 0 {
        parts.push(parts[0]);
    }
    vec![m.emit(op, &parts, &[axis as i64], &[])]
}
