//! Regions, marks, and States that are read while they are written.

use graph::{Builder, DType, NodeId, Op, ScanOptions, Var};

use super::maker::ints;
use super::values::{UNIT, Values};
use super::{Maker, Row, Tolerance, row};

pub fn rows() -> Vec<Row> {
    let loops = "some hundred roundings of numbers below 2, one after another";
    let (exact, scaled) = (Tolerance::Exact, Tolerance::Scaled(1e-5));
    vec![
        row(Op::State, 32, in_place, exact, 0, "moves numbers: there is nothing to round"),
        row(Op::Write, 32, swapped, exact, 0, "moves numbers: there is nothing to round"),
        row(Op::StopGrad, 16, marked, Tolerance::Ulps(1.0), 2, "one product"),
        row(Op::Save, 16, marked, Tolerance::Ulps(1.0), 2, "one product"),
        row(Op::Scan, 40, scan, scaled, 2, loops),
        row(Op::When, 40, when, scaled, 2, loops),
        row(Op::Result, 24, several, scaled, 2, loops),
    ]
}

/// `old` with its rows in the opposite order.
fn reversed(m: &mut Maker, old: NodeId) -> NodeId {
    let rows = m.graph.dims(old)[0];
    let count = m.emit(Op::Iota, &[], &[0, DType::I32 as i64, rows as i64], &[]);
    let last = m.graph.constant(rows as f64 - 1.0, DType::I32, &[rows]);
    let ids = m.emit(Op::Sub, &[last, count], &[], &[]);
    m.emit(Op::Gather, &[old, ids], &[], &[])
}

/// A State replaced by a choice among itself, itself moved, and an input; its old value is read by others.
fn in_place(m: &mut Maker, _: Op) -> Vec<NodeId> {
    let dtype = DType::ALL[(m.seed / 2) as usize % 4];
    let dims = m.dims(1..=4);
    let old = m.state(dtype, &dims, Values::Any);
    let fresh = m.operand(dtype, &dims, Values::Any);
    let mask = m.operand(DType::Bool, &dims, Values::Any);
    let moved = match m.below(3) {
        0 => reversed(m, old),
        1 => {
            // Element by element at its own place after all, through two movements.
            let total: usize = dims.iter().product();
            let flat = m.emit(Op::Reshape, &[old], &[total as i64], &[]);
            m.emit(Op::Reshape, &[flat], &ints(&dims), &[])
        }
        _ => {
            let mut first: Vec<usize> = dims.iter().flat_map(|dim| [0, *dim]).collect();
            first[1] = 1;
            let row = m.emit(Op::Slice, &[old], &ints(&first), &[]);
            m.emit(Op::Broadcast, &[row], &ints(&dims), &[])
        }
    };
    let new = m.emit(Op::Select, &[mask, moved, fresh], &[], &[]);
    m.graph.write(old, new);
    let axes = m.order(dims.len());
    let turned = m.emit(Op::Permute, &[old], &ints(&axes), &[]);
    let both = m.emit(Op::Concat, &[old, new], &[0], &[]);
    vec![turned, both, old, new]
}

/// Two or three States that take each other's values.
fn swapped(m: &mut Maker, _: Op) -> Vec<NodeId> {
    let dtype = DType::ALL[(m.seed / 2) as usize % 4];
    let dims = m.dims(1..=4);
    let count = 2 + m.below(2);
    let states: Vec<NodeId> = (0..count).map(|_| m.state(dtype, &dims, Values::Any)).collect();
    let mask = m.operand(DType::Bool, &dims, Values::Any);
    for (index, state) in states.iter().enumerate() {
        let other = states[(index + 1) % count];
        let new = match m.below(3) {
            0 => other,
            1 => reversed(m, other),
            _ => m.emit(Op::Select, &[mask, *state, other], &[], &[]),
        };
        m.graph.write(*state, new);
    }
    let some = m.emit(Op::Select, &[mask, states[0], states[1]], &[], &[]);
    if m.below(2) == 0 { vec![some] } else { vec![some, states[0]] }
}

/// x * mark(y).
fn marked(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(0..=8);
    let (x, y) = (m.operand(DType::F32, &dims, UNIT), m.operand(DType::F32, &dims, UNIT));
    let mark = m.emit(op, &[y], &[], &[]);
    vec![m.emit(Op::Mul, &[x, mark], &[], &[]), mark]
}

/// tanh(w s + x) + s / 2, over any shape.
fn step<'b>(w: Var<'b>, s: Var<'b>, x: Var<'b>) -> Var<'b> {
    (w * s + x).unary(Op::Tanh) + s.scale(0.5)
}

fn looped(m: &mut Maker, length: usize) -> Vec<NodeId> {
    let dims: Vec<usize> = m.dims(0..=3).iter().map(|dim| (*dim).min(17)).collect();
    let (w, start) = (m.operand(DType::F32, &dims, UNIT), m.operand(DType::F32, &dims, UNIT));
    let xs = m.operand(DType::F32, &[&[length], &dims[..]].concat(), UNIT);
    let options = ScanOptions { reverse: m.below(2) == 0, recompute: m.below(2) == 0 };
    let folds = m.below(2) == 0 && !dims.is_empty();
    // The second carry counts, and a step reads its index.
    let count = m.graph.constant(0.0, DType::I32, &[]);
    let inside = m.graph.open_scan(length, &[start, count], &[xs], options);
    let [index, carry, count, x] = inside[..] else { return Vec::new() };
    let results = Builder::with(&mut m.graph, |b| {
        let (w, s, x) = (b.var(w), b.var(carry), b.var(x));
        let next = step(w, s, x);
        let count = b.var(count).binary(Op::Add, b.var(index));
        let y = if folds { x * next.sum(&[0]).scale(0.1).like(x) } else { x * next };
        [next.id, count.id, y.id]
    });
    m.graph.close_region(&results)
}

fn scan(m: &mut Maker, _: Op) -> Vec<NodeId> {
    let length = m.pick(&[1, 2, 3, 5, 9, 16, 17]);
    looped(m, length)
}

/// Only some of the results of a loop are read.
fn several(m: &mut Maker, _: Op) -> Vec<NodeId> {
    let length = m.pick(&[1, 2, 4]);
    let results = looped(m, length);
    let first = m.below(results.len());
    results.into_iter().skip(first).step_by(2).collect()
}

/// A body that is due or not, by a counter from outside, and by the index of a loop around it.
fn when(m: &mut Maker, _: Op) -> Vec<NodeId> {
    let dims: Vec<usize> = m.dims(0..=3).iter().map(|dim| (*dim).min(17)).collect();
    let [w, x, old, other] = [0, 1, 2, 3].map(|_| m.operand(DType::F32, &dims, UNIT));
    let counter = m.input(DType::I32, &[], Values::Whole(-4, 9));
    let period = 1 + m.below(4);
    let offset = m.below(period);
    let length = m.pick(&[1, 3, 5]);
    let loops = m.below(2) == 0;
    let olds = if loops {
        let inside = m.graph.open_scan(length, &[old, other], &[], ScanOptions::default());
        (inside[0], inside[1], inside[2])
    } else {
        (counter, old, other)
    };
    let (counter, old, other) = olds;
    let inside = m.graph.open_when(counter, period, offset, &[old, other]);
    let body = Builder::with(&mut m.graph, |b| {
        let (first, second) = (b.var(inside[0]), b.var(inside[1]));
        let next = step(b.var(w), first, b.var(x));
        [next.id, (second * next).scale(0.5).id]
    });
    let results = m.graph.close_region(&body);
    if loops { m.graph.close_region(&results) } else { results }
}
