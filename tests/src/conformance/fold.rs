//! Reductions and contractions.

use graph::{DType, NodeId, Op};

use super::maker::ints;
use super::values::{UNIT, Values};
use super::{Maker, Row, Tolerance, row};

pub fn rows() -> Vec<Row> {
    let dot = row(Op::Dot, 80, dot, Tolerance::Terms, 2, "a sum of the contracted products");
    vec![
        row(Op::Sum, 64, reduce, Tolerance::Terms, 2, "a sum of the folded elements"),
        row(Op::ReduceMax, 64, reduce, Tolerance::Exact, 1, "chooses"),
        // A result has up to 20,000 elements, and the cotangent of a repeated addend is the sum of all.
        Row { tolerances: [dot.tolerances[0], Tolerance::Scaled(1e-4), Tolerance::Scaled(4e-4)], ..dot },
    ]
}

/// Any axes. Some rows are so long that they are cut into blocks.
fn reduce(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = match m.seed % 16 {
        7 => vec![2, 70_000],
        9 => vec![1200, 17],
        _ => m.dims(0..=8),
    };
    let axes: Vec<usize> = (0..dims.len()).filter(|_| m.below(2) == 0).collect();
    m.terms = axes.iter().map(|axis| dims[*axis]).product();
    let values = match op {
        Op::Sum => UNIT,
        _ if m.differentiates => Values::Whole(-2, 2),
        _ => Values::Special,
    };
    let x = m.operand(DType::F32, &dims, values);
    vec![m.emit(op, &[x], &ints(&axes), &[])]
}

/// Up to two batch, contracted and free axes, in any order in either operand; an addend for some.
fn dot(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let sizes = |m: &mut Maker, most: usize, from: &[usize]| -> Vec<usize> {
        (0..m.below(most + 1)).map(|_| m.pick(from)).collect()
    };
    let batch = sizes(m, 2, &[1, 2, 3]);
    let contract = match m.below(8) {
        0 => vec![m.pick(&[257, 600])],
        _ => sizes(m, 2, &[1, 2, 5, 16, 17, 33]),
    };
    let free = [0, 1].map(|_| match m.below(8) {
        0 => vec![m.pick(&[33, 65])],
        _ => sizes(m, 2, &[1, 1, 3, 8, 16, 17]),
    });
    m.terms = contract.iter().product();
    // Axes of an operand are batch, contract, free, in an order of its own.
    let (pairs, folded) = (batch.len(), contract.len());
    let mut operand = |free: &[usize]| {
        let dims = [&batch[..], &contract, free].concat();
        let order = m.order(dims.len());
        let mut axes = vec![0; dims.len()];
        order.iter().enumerate().for_each(|(to, from)| axes[*from] = to);
        let moved: Vec<usize> = order.iter().map(|from| dims[*from]).collect();
        (m.operand(DType::F32, &moved, UNIT), axes)
    };
    let ((x, of_x), (y, of_y)) = (operand(&free[0]), operand(&free[1]));
    let axes = [
        &[pairs, folded][..],
        &of_x[..pairs],
        &of_y[..pairs],
        &of_x[pairs..pairs + folded],
        &of_y[pairs..pairs + folded],
    ]
    .concat();
    let alpha = m.pick(&[1.0, 0.5, -0.3]);
    let product = m.emit(op, &[x, y], &ints(&axes), &[alpha]);
    if m.below(2) == 0 {
        return vec![product];
    }
    let dims = m.graph.dims(product).to_vec();
    let c = m.operand(DType::F32, &dims, UNIT);
    let beta = m.pick(&[1.0, -0.5, 0.0]);
    vec![m.emit(op, &[x, y, c], &ints(&axes), &[alpha, beta])]
}
