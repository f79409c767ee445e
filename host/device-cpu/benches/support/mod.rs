//! What the benches share: the best time of a launch, and which cases are asked for.

use std::time::Instant;

use device_cpu::Cpu;
use ops::DType;
use plan::*;

/// Best time of a set of one launch, in seconds, over random operands.
pub fn time(
    threads: usize,
    kernels: Vec<TileKernel>,
    lengths: &[usize],
    op: impl FnOnce(&[Slot]) -> LaunchOp,
) -> f64 {
    let mut offset = 0;
    let mut slots = Vec::new();
    for length in lengths {
        slots.push(Slot { region: Region::Arena, offset, bytes: length * 4 });
        offset += (length * 4).next_multiple_of(256);
    }
    let io =
        |slot: &Slot| IoSlot { name: "x".into(), dtype: DType::F32, dims: vec![slot.bytes / 4], slot: *slot };
    let plan = Plan {
        name: "bench".into(),
        inputs: slots.iter().map(io).collect(),
        outputs: vec![],
        kernels,
        guards: Vec::new(),
        launches: vec![Launch { label: "it".into(), op: op(&slots), guards: Vec::new() }],
        block_bytes: 0,
        arena_bytes: offset,
        live_bytes: offset,
        peak: Vec::new(),
        reads: vec![],
        writes: vec![],
    };
    let mut cpu = Cpu::new(threads);
    cpu.load(PlanSet { states: StateLayout::default(), plans: vec![plan] }).expect("a valid plan");
    let mut seed = 1u32;
    for (index, length) in lengths.iter().enumerate() {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32
        };
        let bytes: Vec<u8> = (0..*length).flat_map(|_| next().to_le_bytes()).collect();
        cpu.upload(0, index, &bytes).expect("it fits");
    }
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        cpu.replay(0).expect("no task panics");
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Whether the command line asks for this case.
pub fn wanted(name: &str) -> bool {
    let mut parts = std::env::args().skip(1).filter(|part| part != "--bench").peekable();
    parts.peek().is_none() || parts.any(|part| name.contains(&part))
}
