//! Times attention, forward with backward, as hand kernels and decomposed, side by side in one run:
//!
//!     cargo run --release -p host-tests --example attention -- [threads] [largest T that is decomposed too]
//!
//! Medians and best times, since other work may share the machine. FLOPs count the pairs that a causal mask shows:
//! 2 products forward, 5 backward.

use std::time::Instant;

use compiler::{Options, compile};
use device_cpu::Cpu;
use graph::{DType, Graph, Op, Ty, grad};
use plan::{Device, DeviceCaps, PlanSet, StateLayout};

/// Batch, heads, tokens, width of a head.
const SHAPES: [[usize; 4]; 5] =
    [[64, 8, 256, 16], [1, 8, 1024, 64], [1, 8, 2048, 64], [1, 8, 4096, 64], [1, 8, 8192, 64]];

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut next = |default| match arguments.next() {
        Some(number) => number.map_err(|error| error.to_string()),
        None => Ok(default),
    };
    let (threads, longest) = (next(2)?, next(4096)?);
    for shape in SHAPES {
        let [batch, heads, tokens, width] = shape;
        let flops = 7.0 * (batch * heads * tokens * tokens * width) as f64;
        let kernels = Cpu::caps();
        let decomposed = DeviceCaps { attention: None, ..Cpu::caps() };
        for (name, caps) in [("kernels", kernels), ("decomposed", decomposed)] {
            if name == "decomposed" && tokens > longest {
                continue;
            }
            let (arena, mut times) = measure(shape, &caps, threads)?;
            times.sort_by(f64::total_cmp);
            let (median, best) = (times[times.len() / 2], times[0]);
            println!(
                "B{batch} H{heads} T{tokens} D{width} {name}: median {:.2} ms, best {:.2} ms, {:.0} GFLOP/s, arena {} MiB",
                median * 1e3,
                best * 1e3,
                flops / median / 1e9,
                arena >> 20
            );
        }
    }
    Ok(())
}

/// Bytes of the arena, and seconds of each replay.
fn measure(
    [batch, heads, tokens, width]: [usize; 4],
    caps: &DeviceCaps,
    threads: usize,
) -> Result<(usize, Vec<f64>), String> {
    let mut graph = Graph::default();
    // As a projection leaves them: heads of a token one after another.
    let mut operand = |name: &str| {
        let x = graph.input(name, Ty::new(DType::F32, &[batch, tokens, heads, width]));
        graph.emit(Op::Permute, &[x], &[0, 2, 1, 3], &[])
    };
    let [q, k, v, weights] = ["q", "k", "v", "weights"].map(&mut operand);
    let y = graph.emit(Op::Attention, &[q, k, v], &[], &[1.0 / (width as f64).sqrt()]);
    let product = graph.emit(Op::Mul, &[y, weights], &[], &[]);
    let sum = graph.emit(Op::Sum, &[product], &[0, 1, 2, 3], &[]);
    let loss = graph.emit(Op::Reshape, &[sum], &[], &[]);
    for (name, ct) in ["ct_q", "ct_k", "ct_v"].into_iter().zip(grad(&mut graph, loss, &[q, k, v])) {
        let ct = ct.ok_or("an operand without a cotangent")?;
        let lying = graph.emit(Op::Permute, &[ct], &[0, 2, 1, 3], &[]);
        graph.output(name, lying);
    }
    let plan = compile("attention", &graph, &StateLayout::default(), caps, Options::default())
        .map_err(|error| error.to_string())?;
    let arena = plan.arena_bytes;
    let mut cpu = Cpu::new(threads);
    cpu.load(PlanSet { states: StateLayout::default(), plans: vec![plan] }).map_err(|e| e.to_string())?;
    let wave = |i: usize| ((i * 7919 % 1009) as f32 / 500.0 - 1.0).to_le_bytes();
    let bytes: Vec<u8> = (0..batch * heads * tokens * width).flat_map(wave).collect();
    for input in 0..4 {
        cpu.upload(0, input, &bytes).map_err(|error| error.to_string())?;
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || (start.elapsed().as_secs_f64() < 3.0 && times.len() < 60) {
        let before = Instant::now();
        cpu.replay(0).map_err(|error| error.to_string())?;
        times.push(before.elapsed().as_secs_f64());
    }
    Ok((arena, times))
}
