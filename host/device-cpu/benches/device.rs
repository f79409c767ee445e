//! Speed of the CPU device on the shapes that a small transformer's training is made of: GFLOP/s of products,
//! milliseconds and nanoseconds per element of clusters, on one thread and on two.
//!
//! `cargo bench -p device-cpu [-- PART OF A NAME]`. The first line gives the machine; the best of several runs is
//! printed.

#[path = "support/apart.rs"]
mod apart;
#[path = "support/kernels.rs"]
mod kernels;
mod support;

use device_cpu::Cpu;
use ops::{DType, Op};
use plan::*;

use apart::time_apart;
use kernels::*;
use support::*;

fn main() {
    for threads in [1, 2] {
        println!("{}", Cpu::new(threads).describe());
        products(threads);
        symmetric(threads);
        softmax(threads);
        adamw(threads);
        column_sum(threads);
        square_sum(threads);
        rms_norm(threads);
        transpose(threads);
        scatter(threads);
        single_ops(threads);
    }
}

fn report(name: &str, elements: usize, seconds: f64) {
    println!("  {name:<44} {:9.3} ms {:8.3} ns/element", seconds * 1e3, seconds * 1e9 / elements as f64);
}

fn tile(name: &str, threads: usize, kernel: TileKernel, lengths: &[usize]) {
    if !wanted(name) {
        return;
    }
    let points = kernel.points();
    let launch = |slots: &[Slot]| LaunchOp::Tile { kernel: 0, bindings: slots.to_vec() };
    report(name, points, time(threads, vec![kernel], lengths, launch));
}

fn products(threads: usize) {
    let plain = |m, n, k| (m, n, k, (k, 1), (n, 1), (n, 1), vec![]);
    let batch = |count, a, b, out| GemmBatch { count, a, b, c: 0, out };
    // [B, T, H, D] heads in place: B = 64, T = 256, H = 8, D = 16.
    let heads = |a: [usize; 2], b: [usize; 2], out: [usize; 2]| {
        vec![batch(64, a[0], b[0], out[0]), batch(8, a[1], b[1], out[1])]
    };
    let (model, scores) = ([256 * 128, 16], [8 * 65536, 65536]);
    let dense = [8 * 4096, 4096];
    let turned = |m, n, k| (m, n, k, (k, 1), (1, k), (n, 1), vec![]);
    let gradient = |m, n, k| (m, n, k, (1, m), (n, 1), (n, 1), vec![]);
    let stack = |count, m, n, k| (m, n, k, (k, 1), (n, 1), (n, 1), vec![batch(count, m * k, k * n, m * n)]);
    let forms = [
        ("512x64x64", plain(512, 64, 64)),
        ("512x64x64, b transposed", turned(512, 64, 64)),
        ("64x64x512, a transposed", gradient(64, 64, 512)),
        ("512x64x256", plain(512, 64, 256)),
        ("512x256x64, b transposed", turned(512, 256, 64)),
        ("64x256x512, a transposed", gradient(64, 256, 512)),
        // Chunks of a memory.
        ("16x256x1024", plain(16, 256, 1024)),
        ("16x256x1024, b transposed", turned(16, 256, 1024)),
        ("64x256x1024, b transposed", turned(64, 256, 1024)),
        ("4 of 16x256x1024", stack(4, 16, 256, 1024)),
        ("2048x128x128", plain(2048, 128, 128)),
        ("128x128x2048, a transposed", gradient(128, 128, 2048)),
        ("512x128x2048, a transposed", gradient(512, 128, 2048)),
        ("2048x768x768", plain(2048, 768, 768)),
        ("2048x768x768, b transposed", turned(2048, 768, 768)),
        ("1024x512x512", plain(1024, 512, 512)),
        ("1024x512x512, b transposed", turned(1024, 512, 512)),
        ("1024x2048x512", plain(1024, 2048, 512)),
        ("1024x512x2048, b transposed", turned(1024, 512, 2048)),
        ("512x512x1024, a transposed", gradient(512, 512, 1024)),
        ("512x2048x1024, a transposed", gradient(512, 2048, 1024)),
        ("2048x512x1024, a transposed", gradient(2048, 512, 1024)),
        ("8192x512x1024, a transposed", gradient(8192, 512, 1024)),
        ("8 of 512x2048x512", stack(8, 512, 2048, 512)),
        ("16 of 512x512x512", stack(16, 512, 512, 512)),
        ("16384x128x128", plain(16384, 128, 128)),
        ("16384x128x128, b transposed", turned(16384, 128, 128)),
        ("16384x128x512", plain(16384, 128, 512)),
        ("16384x512x128, b transposed", turned(16384, 512, 128)),
        ("128x128x16384, a transposed", gradient(128, 128, 16384)),
        ("128x512x16384, a transposed", gradient(128, 512, 16384)),
        ("512x128x16384, a transposed", gradient(512, 128, 16384)),
        ("43x128x16384, a transposed", gradient(43, 128, 16384)),
        ("16384x43x128, b transposed", turned(16384, 43, 128)),
        ("512 of 256x256x16", (256, 256, 16, (16, 1), (1, 16), (256, 1), heads(dense, dense, scores))),
        (
            "512 of 256x256x16, heads in place",
            (256, 256, 16, (128, 1), (1, 128), (256, 1), heads(model, model, scores)),
        ),
        ("512 of 256x16x256", (256, 16, 256, (256, 1), (16, 1), (16, 1), heads(scores, dense, dense))),
        (
            "512 of 256x16x256, heads in place",
            (256, 16, 256, (256, 1), (128, 1), (128, 1), heads(scores, model, model)),
        ),
        (
            "512 of 256x16x256, a transposed, heads",
            (256, 16, 256, (1, 256), (128, 1), (128, 1), heads(scores, model, model)),
        ),
    ];
    for (name, (m, n, k, a, b, out, axes)) in forms.into_iter().filter(|form| wanted(form.0)) {
        let count: usize = axes.iter().map(|axis| axis.count).product();
        let length = |rows: usize, columns: usize| rows * columns * count;
        let seconds = time_apart(threads, &[length(m, k), length(k, n), length(m, n)], |slots| {
            let matrix = |slot, (row_stride, col_stride)| Matrix { slot, row_stride, col_stride };
            let [a, b, out] = [matrix(slots[0], a), matrix(slots[1], b), matrix(slots[2], out)];
            LaunchOp::Gemm(Gemm {
                m,
                n,
                k,
                alpha: 1.0,
                beta: 0.0,
                a,
                b,
                c: None,
                out,
                batch: axes.clone(),
                symmetric: false,
            })
        });
        let gflops = 2e-9 * (m * n * k * count) as f64 / seconds;
        println!("  {name:<44} {:9.3} ms {gflops:8.1} GFLOP/s", seconds * 1e3);
    }
}

/// What Muon squares: X X' and A A of stacks of matrices. GFLOP/s count the whole result, half of which is mirrored.
fn symmetric(threads: usize) {
    for (count, m, k) in [(24, 128, 128), (6, 128, 512), (8, 512, 512), (4, 512, 2048)] {
        for of_itself in [false, true] {
            let what = if of_itself { "square of symmetric" } else { "X X' of" };
            let name = format!("{count} times {what} {m}x{k}");
            if !wanted(&name) || (of_itself && m != k) {
                continue;
            }
            let seconds = time_apart(threads, &[count * m * k, count * m * m], |slots| {
                let matrix = |slot, row_stride, col_stride| Matrix { slot, row_stride, col_stride };
                let (a, out) = (matrix(slots[0], k, 1), matrix(slots[1], m, 1));
                let b = if of_itself { a } else { matrix(slots[0], 1, k) };
                let batch = vec![GemmBatch { count, a: m * k, b: m * k, c: 0, out: m * m }];
                LaunchOp::Gemm(Gemm {
                    m,
                    n: m,
                    k,
                    alpha: 1.0,
                    beta: 0.0,
                    a,
                    b,
                    c: None,
                    out,
                    batch,
                    symmetric: true,
                })
            });
            let gflops = 2e-9 * (m * m * k * count) as f64 / seconds;
            println!("  {name:<44} {:9.3} ms {gflops:8.1} GFLOP/s", seconds * 1e3);
        }
    }
}

/// Causal softmax of scaled scores, out of place.
fn softmax(threads: usize) {
    let strides = [8 * 65536, 65536, 256, 1];
    let iota = |axis: usize| {
        let mut strides = vec![0; 4];
        strides[axis] = 1;
        value(Expr::Iota(Affine::new(0, strides)), DType::I32)
    };
    let values = vec![
        load(0, &strides),
        constant(0.25),
        apply(Op::Mul, &[0, 1]),
        iota(2),
        iota(3),
        apply(Op::Lt, &[3, 4]),
        constant(-1e30),
        apply(Op::Select, &[5, 6, 2]),
        reduce(Op::ReduceMax, 7),
        apply(Op::Sub, &[7, 8]),
        apply(Op::Exp, &[9]),
        reduce(Op::Sum, 10),
        apply(Op::Recip, &[11]),
        apply(Op::Mul, &[10, 12]),
    ];
    let dims = [64, 8, 256, 256];
    let kernel = kernel(&dims, Template::RowReduce { reduced: 1 }, values, vec![store(1, &strides, 13)]);
    tile("causal softmax [64, 8, 256, 256]", threads, kernel, &[1 << 25, 1 << 25]);
    let values = vec![
        load(0, &strides),
        load(1, &strides),
        apply(Op::Mul, &[0, 1]),
        reduce(Op::Sum, 2),
        apply(Op::Sub, &[1, 3]),
        apply(Op::Mul, &[0, 4]),
    ];
    let backward =
        kernels::kernel(&dims, Template::RowReduce { reduced: 1 }, values, vec![store(2, &strides, 5)]);
    tile("softmax backward [64, 8, 256, 256]", threads, backward, &[1 << 25, 1 << 25, 1 << 25]);
}

/// Parameter, gradient, both moments, with a learning rate that arrives as a tensor of one element.
fn adamw(threads: usize) {
    for (count, name) in
        [(1 << 16, "AdamW over 64k, in cache"), (1 << 24, "AdamW over 16M (28 bytes an element)")]
    {
        let values = vec![
            load(0, &[1]),
            load(1, &[1]),
            load(2, &[1]),
            load(3, &[1]),
            load(4, &[0]),
            constant(0.9),
            constant(0.1),
            constant(0.999),
            constant(0.001),
            apply(Op::Mul, &[2, 5]),
            apply(Op::Mul, &[1, 6]),
            apply(Op::Add, &[9, 10]),
            apply(Op::Mul, &[3, 7]),
            apply(Op::Mul, &[1, 1]),
            apply(Op::Mul, &[13, 8]),
            apply(Op::Add, &[12, 14]),
            apply(Op::Sqrt, &[15]),
            apply(Op::Add, &[16, 8]),
            apply(Op::Div, &[11, 17]),
            apply(Op::Mul, &[0, 6]),
            apply(Op::Add, &[18, 19]),
            apply(Op::Mul, &[20, 4]),
            apply(Op::Sub, &[0, 21]),
        ];
        let stores = vec![store(0, &[1], 22), store(2, &[1], 11), store(3, &[1], 15)];
        let kernel = kernel(&[count], Template::Map, values, stores);
        tile(name, threads, kernel, &[count, count, count, count, 1]);
    }
    const COUNT: usize = 1 << 24;
    let values = vec![load(0, &[1]), load(1, &[1]), apply(Op::Add, &[0, 1])];
    let add = kernels::kernel(&[COUNT], Template::Map, values, vec![store(0, &[1], 2)]);
    tile("x += y over 16M (12 bytes an element)", threads, add, &[COUNT, COUNT]);
}

/// Gradient of a norm's gain: sum over rows of ct * x * r, r per row.
fn column_sum(threads: usize) {
    for width in [128, 512] {
        let strides = [width, 1];
        let values = vec![
            load(0, &strides),
            load(1, &strides),
            load(2, &[1, 0]),
            apply(Op::Mul, &[0, 1]),
            apply(Op::Mul, &[3, 2]),
            reduce(Op::Sum, 4),
        ];
        let template = Template::ColReduce { outer: 0, reduced: 1 };
        let kernel = kernel(&[16384, width as usize], template, values, vec![store(3, &[0, 1], 5)]);
        let count = 16384 * width as usize;
        tile(
            &format!("gain gradient [16384, {width}]"),
            threads,
            kernel,
            &[count, count, 16384, width as usize],
        );
    }
}

fn square_sum(threads: usize) {
    const COUNT: usize = 1 << 24;
    let values = vec![load(0, &[0, 1]), apply(Op::Mul, &[0, 0]), reduce(Op::Sum, 1)];
    let kernel = kernel(&[1, COUNT], Template::RowReduce { reduced: 1 }, values, vec![store(1, &[0, 0], 2)]);
    tile("sum of squares of 16M", threads, kernel, &[COUNT, 1]);
}

fn rms_norm(threads: usize) {
    for width in [16, 128, 512] {
        let strides = [width, 1];
        let values = vec![
            load(0, &strides),
            load(1, &[0, 1]),
            constant(1.0 / width as f32),
            constant(1e-5),
            apply(Op::Mul, &[0, 0]),
            reduce(Op::Sum, 4),
            apply(Op::Mul, &[5, 2]),
            apply(Op::Add, &[6, 3]),
            apply(Op::Sqrt, &[7]),
            apply(Op::Recip, &[8]),
            apply(Op::Mul, &[0, 9]),
            apply(Op::Mul, &[10, 1]),
        ];
        let rows = (1 << 21) / width as usize;
        let kernel = kernel(
            &[rows, width as usize],
            Template::RowReduce { reduced: 1 },
            values,
            vec![store(2, &strides, 11)],
        );
        tile(&format!("RMSNorm [{rows}, {width}]"), threads, kernel, &[1 << 21, width as usize, 1 << 21]);
    }
}

fn transpose(threads: usize) {
    let copy = |dims: &[usize], from: &[i64], to: &[i64]| {
        kernel(dims, Template::Map, vec![load(0, from), apply(Op::Copy, &[0])], vec![store(1, to, 1)])
    };
    let kernel = copy(&[2048, 2048], &[1, 2048], &[2048, 1]);
    tile("transpose [2048, 2048]", threads, kernel, &[1 << 22, 1 << 22]);
    let kernel = copy(&[64, 8, 256, 16], &[32768, 16, 128, 1], &[32768, 4096, 16, 1]);
    tile("heads [64, 256, 8, 16] to [64, 8, 256, 16]", threads, kernel, &[1 << 21, 1 << 21]);
}

fn scatter(threads: usize) {
    let name = "scatter of [16384, 128] into 4096 rows";
    if !wanted(name) {
        return;
    }
    let (rows, width, count) = (4096, 128, 16384);
    let seconds = time(threads, vec![], &[rows * width, count, count * width], |slots| {
        LaunchOp::ScatterAdd(ScatterAdd {
            out: slots[0],
            ids: slots[1],
            source: slots[2],
            rows,
            width,
            count,
        })
    });
    report(name, count * width, seconds);
}

/// One op over operands that stay in the second-level cache, many times: what a step of the tile machine costs.
fn single_ops(threads: usize) {
    const REPEAT: usize = 40;
    let unary = [Op::Neg, Op::Recip, Op::Sqrt, Op::Exp, Op::Log, Op::Sin, Op::Tanh, Op::Erf, Op::Floor];
    let binary = [Op::Add, Op::Mul, Op::Div, Op::Max, Op::Lt];
    for op in unary.into_iter().chain(binary) {
        let name = format!("{op} in cache");
        if !wanted(&name) {
            continue;
        }
        let mut values = vec![load(0, &[1])];
        for step in 0..REPEAT {
            let args =
                if op.row().arity.0 == 1 { vec![step] } else { vec![if op == Op::Lt { 0 } else { step }, 0] };
            values.push(apply(op, &args));
        }
        let last = if op == Op::Lt { 1 } else { REPEAT };
        if op == Op::Lt {
            values.truncate(2);
        }
        let repeats = values.len() - 1;
        let kernel = kernel(&[65536], Template::Map, values, vec![store(1, &[1], last)]);
        let launch = |slots: &[Slot]| LaunchOp::Tile { kernel: 0, bindings: slots.to_vec() };
        let seconds = time(threads, vec![kernel], &[65536, 65536], launch);
        report(&name, 65536 * repeats, seconds);
    }
}
