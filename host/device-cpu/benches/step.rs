//! Speed of the CPU device on the clusters of one training step: those of preset `craft-1m` (64 x 256 characters, model
//! width 128, hidden width 512, dropout 0.2), as fusion leaves them.
//!
//! `cargo bench -p device-cpu --bench step [-- PART OF A NAME]`. Besides the time it prints the bytes that a launch reads
//! and writes by that time.

#[path = "support/kernels.rs"]
mod kernels;
mod support;

use device_cpu::Cpu;
use ops::{DType, Op};
use plan::*;

use kernels::*;
use support::*;

const TOKENS: usize = 64 * 256;
const WIDTH: usize = 128;
const HIDDEN: usize = 512;

fn main() {
    for threads in [1, 2] {
        println!("{}", Cpu::new(threads).describe());
        random_words(threads);
        gelu(threads);
        gelu_backward(threads);
        norm(threads);
        norm_backward(threads);
    }
}

/// A cluster whose bindings have these lengths.
fn cluster(name: &str, threads: usize, kernel: TileKernel, lengths: &[usize]) {
    if !wanted(name) {
        return;
    }
    let points = kernel.points();
    let launch = |slots: &[Slot]| LaunchOp::Tile { kernel: 0, bindings: slots.to_vec() };
    let seconds = time(threads, vec![kernel], lengths, launch);
    let bytes = 4 * lengths.iter().sum::<usize>();
    let rate = bytes as f64 / seconds * 1e-9;
    println!(
        "  {name:<44} {:9.3} ms {:8.3} ns/element {rate:7.1} GB/s",
        seconds * 1e3,
        seconds * 1e9 / points as f64
    );
}

fn word(bits: u32) -> Value {
    value(Expr::Const(bits), DType::U32)
}

/// The words of a dropout mask.
fn random_words(threads: usize) {
    let one = |binding| value(Expr::Load { binding, at: Affine::new(0, vec![0]), gather: None }, DType::U32);
    let values = vec![
        value(Expr::Iota(Affine::new(0, vec![1])), DType::U32),
        one(0),
        one(1),
        word(0),
        value(Expr::Apply { op: Op::Rand, args: vec![0, 1, 2, 3] }, DType::U32),
    ];
    let count = TOKENS * WIDTH;
    let kernel = kernel(&[count], Template::Map, values, vec![store(2, &[1], 4)]);
    cluster("random words", threads, kernel, &[1, 1, count]);
}

/// x / 2 (1 + erf(x / sqrt 2)).
fn gelu(threads: usize) {
    let values = vec![
        load(0, &[1]),
        constant(0.5),
        apply(Op::Mul, &[0, 1]),
        constant(std::f32::consts::FRAC_1_SQRT_2),
        apply(Op::Mul, &[0, 3]),
        apply(Op::Erf, &[4]),
        constant(1.0),
        apply(Op::Add, &[5, 6]),
        apply(Op::Mul, &[2, 7]),
    ];
    let count = TOKENS * HIDDEN;
    let kernel = kernel(&[count], Template::Map, values, vec![store(1, &[1], 8)]);
    cluster("GELU", threads, kernel, &[count, count]);
}

fn gelu_backward(threads: usize) {
    let values = vec![
        load(0, &[1]),
        constant(std::f32::consts::FRAC_1_SQRT_2),
        apply(Op::Mul, &[0, 1]),
        apply(Op::Erf, &[2]),
        constant(1.0),
        apply(Op::Add, &[3, 4]),
        load(1, &[1]),
        apply(Op::Mul, &[6, 5]),
        constant(0.5),
        apply(Op::Mul, &[0, 8]),
        apply(Op::Mul, &[6, 9]),
        apply(Op::Mul, &[2, 2]),
        apply(Op::Neg, &[11]),
        apply(Op::Exp, &[12]),
        constant(std::f32::consts::FRAC_2_SQRT_PI),
        apply(Op::Mul, &[13, 14]),
        apply(Op::Mul, &[10, 15]),
        apply(Op::Mul, &[16, 1]),
        apply(Op::Mul, &[7, 8]),
        apply(Op::Add, &[17, 18]),
    ];
    let count = TOKENS * HIDDEN;
    let kernel = kernel(&[count], Template::Map, values, vec![store(2, &[1], 19)]);
    cluster("GELU backward", threads, kernel, &[count, count, count]);
}

const ROWS: [i64; 2] = [WIDTH as i64, 1];

/// Dropout of `x` by the words `mask`: 0, or x / 0.8. Appends seven values; the last is the result.
fn dropout(values: &mut Vec<Value>, mask: ValueId, x: ValueId) -> ValueId {
    let first = values.len();
    values.extend([
        word(8),
        value(Expr::Apply { op: Op::Shr, args: vec![mask, first] }, DType::U32),
        word(3_355_444),
        apply(Op::Lt, &[first + 1, first + 2]),
        constant(0.8),
        constant(0.0),
        apply(Op::Div, &[x, first + 4]),
        apply(Op::Select, &[first + 3, first + 5, first + 6]),
    ]);
    first + 7
}

fn mask_load(binding: usize) -> Value {
    value(Expr::Load { binding, at: Affine::new(0, ROWS.to_vec()), gather: None }, DType::U32)
}

/// Dropout, residual sum and layer norm, with what the backward pass needs.
fn norm(threads: usize) {
    let mut values = vec![mask_load(0), load(1, &ROWS), load(2, &ROWS)];
    let dropped = dropout(&mut values, 0, 1);
    let sum = values.len();
    let mean = constant(1.0 / WIDTH as f32);
    values.extend([
        apply(Op::Add, &[2, dropped]),
        reduce(Op::Sum, sum),
        mean,
        apply(Op::Mul, &[sum + 1, sum + 2]),
        apply(Op::Sub, &[sum, sum + 3]),
        apply(Op::Mul, &[sum + 4, sum + 4]),
        reduce(Op::Sum, sum + 5),
        apply(Op::Mul, &[sum + 6, sum + 2]),
        constant(1e-5),
        apply(Op::Add, &[sum + 7, sum + 8]),
        apply(Op::Sqrt, &[sum + 9]),
        apply(Op::Recip, &[sum + 10]),
        apply(Op::Mul, &[sum + 4, sum + 11]),
        load(3, &[0, 1]),
        apply(Op::Mul, &[sum + 12, sum + 13]),
    ]);
    let stores = vec![
        store(4, &ROWS, sum),
        store(5, &[1, 0], sum + 11),
        store(6, &ROWS, sum + 12),
        store(7, &ROWS, sum + 14),
    ];
    let kernel = kernel(&[TOKENS, WIDTH], Template::RowReduce { reduced: 1 }, values, stores);
    let count = TOKENS * WIDTH;
    cluster(
        "dropout, sum, norm",
        threads,
        kernel,
        &[count, count, count, WIDTH, count, TOKENS, count, count],
    );
}

fn norm_backward(threads: usize) {
    let mut values = vec![
        load(0, &ROWS),
        load(1, &[0, 1]),
        apply(Op::Mul, &[0, 1]),
        reduce(Op::Sum, 2),
        constant(1.0 / WIDTH as f32),
        apply(Op::Mul, &[3, 4]),
        apply(Op::Sub, &[2, 5]),
        load(2, &ROWS),
        apply(Op::Mul, &[2, 7]),
        reduce(Op::Sum, 8),
        apply(Op::Mul, &[9, 4]),
        apply(Op::Mul, &[7, 10]),
        apply(Op::Sub, &[6, 11]),
        load(3, &[1, 0]),
        apply(Op::Mul, &[12, 13]),
        load(4, &ROWS),
        apply(Op::Add, &[15, 14]),
        mask_load(5),
    ];
    let dropped = dropout(&mut values, 17, 16);
    let stores = vec![store(6, &ROWS, 16), store(7, &ROWS, dropped)];
    let kernel = kernel(&[TOKENS, WIDTH], Template::RowReduce { reduced: 1 }, values, stores);
    let count = TOKENS * WIDTH;
    cluster(
        "norm, sum, dropout backward",
        threads,
        kernel,
        &[count, WIDTH, count, TOKENS, count, count, count, count],
    );
}
