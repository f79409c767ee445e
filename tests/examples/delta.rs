//! Times the gated delta rule, forward with backward, as hand kernels and decomposed, side by side in one run:
//!
//!     cargo run --release -p host-tests --example delta -- [threads] [largest T that is decomposed too]
//!
//! Medians and best times, since other work may share the machine. Batch, heads
//! and width are those of the bench `delta-rule` but in the last line; heads of a token lie one after another.

use std::time::Instant;

use compiler::{Options, compile};
use device_cpu::Cpu;
use graph::{DType, Graph, Op, Ty, grad};
use plan::{Device, DeviceCaps, PlanSet, StateLayout};

/// Batch, heads, tokens, width of a head.
const SHAPES: [[usize; 4]; 7] = [
    [2, 4, 2048, 64],
    [2, 4, 4096, 64],
    [2, 4, 8192, 64],
    [2, 4, 16384, 64],
    [2, 4, 32768, 64],
    [2, 4, 65536, 64],
    [1, 1, 16384, 64],
];

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut next = |default| match arguments.next() {
        Some(number) => number.map_err(|error| error.to_string()),
        None => Ok(default),
    };
    let (threads, longest) = (next(2)?, next(2048)?);
    for shape in SHAPES {
        let [batch, heads, tokens, width] = shape;
        for (name, caps) in
            [("kernels", Cpu::caps()), ("decomposed", DeviceCaps { delta: None, ..Cpu::caps() })]
        {
            if name == "decomposed" && tokens > longest {
                continue;
            }
            let (arena, mut times) = measure(shape, &caps, threads)?;
            times.sort_by(f64::total_cmp);
            println!(
                "B{batch} H{heads} T{tokens} D{width} {name}: median {:.2} ms, best {:.2} ms, arena {} MiB",
                times[times.len() / 2] * 1e3,
                times[0] * 1e3,
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
    let shapes =
        [("q", width), ("k", width), ("v", width), ("weights", width), ("log_alpha", 1), ("beta", 1)];
    let [q, k, v, weights, log_alpha, beta] = shapes.map(|(name, last)| {
        let x = graph.input(name, Ty::new(DType::F32, &[batch, tokens, heads, last]));
        let x = graph.emit(Op::Permute, &[x], &[0, 2, 1, 3], &[]);
        match last {
            1 => graph.emit(Op::Reshape, &[x], &[batch, heads, tokens].map(|dim| dim as i64), &[]),
            _ => x,
        }
    });
    let state = graph.constant(0.0, DType::F32, &[batch, heads, width, width]);
    let operands = [q, k, v, log_alpha, beta, state];
    let both = graph.emit(Op::GatedDeltaRule, &operands, &[64], &[]);
    let y = graph.emit(Op::Result, &[both], &[0], &[]);
    let product = graph.emit(Op::Mul, &[y, weights], &[], &[]);
    let sum = graph.emit(Op::Sum, &[product], &[0, 1, 2, 3], &[]);
    let loss = graph.emit(Op::Reshape, &[sum], &[], &[]);
    graph.output("loss", loss);
    for (index, ct) in grad(&mut graph, loss, &operands[..5]).into_iter().enumerate() {
        let ct = ct.ok_or("an operand without a cotangent")?;
        let lies = match index {
            3 | 4 => ct,
            _ => graph.emit(Op::Permute, &[ct], &[0, 2, 1, 3], &[]),
        };
        graph.output(&format!("ct{index}"), lies);
    }
    let plan = compile("delta", &graph, &StateLayout::default(), caps, Options::default())
        .map_err(|error| error.to_string())?;
    let arena = plan.arena_bytes;
    let inputs = plan.inputs.clone();
    let mut cpu = Cpu::new(threads);
    cpu.load(PlanSet { states: StateLayout::default(), plans: vec![plan] }).map_err(|e| e.to_string())?;
    let wave = |i: usize| (i * 7919 % 1009) as f32 / 500.0 - 1.0;
    for (index, input) in inputs.iter().enumerate() {
        let value = |i: usize| match &*input.name {
            "k" => wave(i) * (2.0 / width as f32).sqrt(),
            "log_alpha" => -0.05 * (1.0 + wave(i)),
            "beta" => 0.5 + 0.45 * wave(i),
            _ => wave(i),
        };
        let count = input.dims.iter().product();
        let bytes: Vec<u8> = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
        cpu.upload(0, index, &bytes).map_err(|error| error.to_string())?;
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
