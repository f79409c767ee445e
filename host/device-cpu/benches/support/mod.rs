//! What the benches share: the best time of a launch, and which cases are asked for.

use std::time::Instant;

use device_cpu::Cpu;
use ops::DType;
use plan::*;

/// Best time of a launch, in seconds, over random operands.
pub fn time(
    threads: usize,
    kernels: Vec<TileKernel>,
    lengths: &[usize],
    op: impl Fn(&[Slot]) -> LaunchOp,
) -> f64 {
    times(threads, kernels, lengths, 1, op)[0]
}

/// Times of a launch over some copies of random operands, the least first.
pub fn times(
    threads: usize,
    kernels: Vec<TileKernel>,
    lengths: &[usize],
    copies: usize,
    op: impl Fn(&[Slot]) -> LaunchOp,
) -> Vec<f64> {
    let mut offset = 0;
    let mut slots = Vec::new();
    for length in std::iter::repeat_n(lengths, copies).flatten() {
        slots.push(Slot { region: Region::Arena, offset, bytes: length * 4 });
        offset += (length * 4).next_multiple_of(256);
    }
    let io =
        |slot: &Slot| IoSlot { name: "x".into(), dtype: DType::F32, dims: vec![slot.bytes / 4], slot: *slot };
    let plan = |slots: &[Slot]| Plan {
        name: "bench".into(),
        inputs: slots.iter().map(io).collect(),
        outputs: vec![],
        kernels: kernels.clone(),
        guards: Vec::new(),
        launches: vec![Launch { label: "it".into(), op: op(slots), guards: Vec::new() }],
        block_bytes: 0,
        arena_bytes: offset,
        live_bytes: offset,
        peak: Vec::new(),
        reads: vec![],
        writes: vec![],
    };
    let mut cpu = Cpu::new(threads);
    let plans = slots.chunks(lengths.len()).map(plan).collect();
    cpu.load(PlanSet { states: StateLayout::default(), plans }).expect("a valid plan");
    let mut seed = 1u32;
    for (index, slot) in slots.iter().enumerate() {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32
        };
        let bytes: Vec<u8> = (0..slot.bytes / 4).flat_map(|_| next().to_le_bytes()).collect();
        cpu.upload(index / lengths.len(), index % lengths.len(), &bytes).expect("it fits");
    }
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.4 {
        for copy in 0..copies {
            let start = Instant::now();
            cpu.replay(copy).expect("no task panics");
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Whether the command line asks for this case.
pub fn wanted(name: &str) -> bool {
    let mut parts = std::env::args().skip(1).filter(|part| part != "--bench").peekable();
    parts.peek().is_none() || parts.any(|part| name.contains(&part))
}
