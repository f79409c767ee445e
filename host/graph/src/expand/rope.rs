//! Rotary positions.

use ops::{DType, Op};

use crate::Var;

/// Pairs dimension i with i + D/2 and turns the pair by position / theta^(2i/D) (Su et al. 2021, eq. 34).
pub fn rope<'b>(x: Var<'b>, positions: Var<'b>, theta: f64) -> Var<'b> {
    let dims = x.dims();
    let (tokens, half) = (dims[2], dims[3] / 2);
    let builder = x.builder();
    // One row of angles for each position; of the batch too, where its rows have positions of their own.
    let rows = positions.dims().iter().product::<usize>() / tokens;
    let shape = [rows, 1, tokens, half];
    let exponent = builder.iota(3, DType::F32, &[1, 1, 1, half]).scale(-2.0 / dims[3] as f64 * theta.ln());
    let positions = positions.cast(DType::F32).reshape(&[rows, 1, tokens, 1]).broadcast(&shape);
    let angle = positions * exponent.unary(Op::Exp).broadcast(&shape);
    let halves: Vec<(usize, usize)> = dims[..3].iter().map(|dim| (0, *dim)).collect();
    let part = |start: usize| x.slice(&[&halves[..], &[(start, half)]].concat());
    let (a, b) = (part(0), part(half));
    let (cos, sin) = (angle.unary(Op::Cos).like(a), angle.unary(Op::Sin).like(a));
    builder.concat(&[a * cos - b * sin, a * sin + b * cos], 3)
}
