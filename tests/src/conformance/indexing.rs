//! Ops that read or write where integers say, inside and outside of the range, and ops that go along an axis.

use graph::{DType, NodeId, Op};

use super::values::{UNIT, Values};
use super::{Maker, Row, Tolerance, row};

pub fn rows() -> Vec<Row> {
    let moves = "moves numbers: there is nothing to round";
    vec![
        row(Op::Gather, 48, gather, Tolerance::Exact, 2, moves),
        row(Op::ScatterAdd, 40, scatter_add, Tolerance::Terms, 2, "a sum of the rows with one id"),
        row(Op::DynSlice, 40, dyn_slice, Tolerance::Exact, 2, moves),
        row(Op::DynUpdateSlice, 40, dyn_update_slice, Tolerance::Exact, 2, moves),
        row(Op::ArgMax, 40, arg_max, Tolerance::Exact, 0, "a place"),
        row(Op::CumSum, 40, cum_sum, Tolerance::Terms, 2, "a sum along the axis"),
    ]
}

fn dtype_of(m: &Maker) -> DType {
    DType::ALL[(m.seed / 2) as usize % 4]
}

fn numbers(m: &Maker) -> Values {
    if m.differentiates { UNIT } else { Values::Any }
}

/// Whole numbers of which some lie outside of 0..n.
fn around(n: usize) -> Values {
    Values::Whole(-2, n as i64 + 2)
}

fn gather(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (table, ids) = (m.dims(1..=5), m.dims(0..=3));
    let ids: Vec<usize> = ids.iter().map(|dim| (*dim).min(17)).collect();
    let (dtype, values) = (dtype_of(m), numbers(m));
    let x = m.operand(dtype, &table, values);
    let ids = m.operand(DType::I32, &ids, around(table[0]));
    vec![m.emit(op, &[x, ids], &[], &[])]
}

fn scatter_add(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (ids, row) = (m.dims(0..=3), m.dims(0..=3));
    let row: Vec<usize> = row.iter().map(|dim| (*dim).min(5)).collect();
    let rows = m.pick(&[1, 2, 7, 33, 300]);
    m.terms = ids.iter().product();
    let x = m.operand(DType::F32, &[&ids[..], &row].concat(), UNIT);
    let ids = m.operand(DType::I32, &ids, around(rows));
    vec![m.emit(op, &[x, ids], &[rows as i64], &[])]
}

fn dyn_slice(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(1..=8);
    let axis = m.below(dims.len());
    let length = 1 + m.below(dims[axis]);
    let (dtype, values) = (dtype_of(m), numbers(m));
    let x = m.operand(dtype, &dims, values);
    let start = m.operand(DType::I32, &[], around(dims[axis]));
    vec![m.emit(op, &[x, start], &[axis as i64, length as i64], &[])]
}

fn dyn_update_slice(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(1..=8);
    let axis = m.below(dims.len());
    let mut inner = dims.clone();
    inner[axis] = 1 + m.below(dims[axis]);
    let (dtype, values) = (dtype_of(m), numbers(m));
    let (x, update) = (m.operand(dtype, &dims, values), m.operand(dtype, &inner, values));
    let start = m.operand(DType::I32, &[], around(dims[axis]));
    vec![m.emit(op, &[x, update, start], &[axis as i64], &[])]
}

/// Ties among whole numbers; NaNs and infinities.
fn arg_max(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(1..=8);
    let axis = m.below(dims.len()) as i64;
    let values = if m.seed.is_multiple_of(2) { Values::Whole(-1, 1) } else { Values::Special };
    let x = m.operand(DType::F32, &dims, values);
    vec![m.emit(op, &[x], &[axis], &[])]
}

fn cum_sum(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let mut dims = m.dims(1..=8);
    let axis = m.below(dims.len());
    if dims.len() == 1 && m.below(2) == 0 {
        dims[axis] = 700;
    }
    m.terms = dims[axis];
    let x = m.operand(DType::F32, &dims, UNIT);
    let reverse = m.below(2) as i64;
    vec![m.emit(op, &[x], &[axis as i64, reverse], &[])]
}
