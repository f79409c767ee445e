//! Tests of the device as a whole: random tile kernels against a scalar evaluator, to the bit; products, scatters
//! and hand kernels against plain loops.

mod attention;
mod cross_entropy;
mod delta;
mod generate;
mod kept;
mod kernels;
mod naive;
mod products;

use ops::DType;
use plan::{Device, IoSlot, Launch, LaunchOp, Plan, PlanSet, Region, Slot, TileKernel};

use crate::Cpu;
use crate::tile::Isa;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// In -2..2.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 22) as f32 - 2.0
    }
}

/// A plan of one launch whose operands are all inputs and outputs, one after another in the arena.
pub fn single(
    kernels: Vec<TileKernel>,
    op: impl FnOnce(&[Slot]) -> LaunchOp,
    operand_bytes: &[usize],
) -> PlanSet {
    let mut offset = 0;
    let mut slots = Vec::new();
    for bytes in operand_bytes {
        slots.push(Slot { region: Region::Arena, offset, bytes: *bytes });
        offset += bytes.next_multiple_of(256);
    }
    let io: Vec<IoSlot> = slots
        .iter()
        .map(|slot| IoSlot { name: "x".into(), dtype: DType::U32, dims: vec![slot.bytes / 4], slot: *slot })
        .collect();
    let plan = Plan {
        name: "single".into(),
        inputs: io.clone(),
        outputs: io,
        kernels,
        guards: Vec::new(),
        launches: vec![Launch { label: "it".into(), op: op(&slots), guards: Vec::new() }],
        block_bytes: 0,
        arena_bytes: offset,
        live_bytes: offset,
        peak: Vec::new(),
        reads: Vec::new(),
        writes: Vec::new(),
    };
    PlanSet { states: Default::default(), plans: vec![plan] }
}

/// Loads a set made by [`single`], uploads all operands, replays, and downloads them again.
pub fn run(set: &PlanSet, operands: &[Vec<u32>], threads: usize, isa: Isa) -> Vec<Vec<u32>> {
    let mut cpu = Cpu::with_isa(threads, isa);
    cpu.load(set.clone()).expect("the plan is valid");
    for (index, words) in operands.iter().enumerate() {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        cpu.upload(0, index, &bytes).expect("the operand fits");
    }
    cpu.replay(0).expect("no task panics");
    (0..operands.len())
        .map(|index| {
            let bytes = cpu.download(0, index).expect("it is an output");
            bytes
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                .collect()
        })
        .collect()
}
