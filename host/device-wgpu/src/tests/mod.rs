//! The device as a whole: kernels that naga accepts without any device, and their results where there is an adapter.

mod attention;
mod cross_entropy;
mod elementwise;
mod launches;
mod limits;
mod speed;

use ops::DType;
use plan::{Device, DeviceError, IoSlot, Launch, LaunchOp, Plan, PlanSet, Region, Slot, TileKernel};

use crate::{Adapter, Tiles, Wgpu, adapters, sources};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In -2..2.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 22) as f32 - 2.0
    }
}

/// A plan of one launch whose operands are all inputs and outputs, one after another in the arena.
fn single(
    kernels: Vec<TileKernel>,
    op: impl FnOnce(&[Slot]) -> LaunchOp,
    operand_words: &[usize],
) -> PlanSet {
    let mut offset = 0;
    let mut slots = Vec::new();
    for words in operand_words {
        slots.push(Slot { region: Region::Arena, offset, bytes: words * 4 });
        offset += (words * 4).next_multiple_of(256);
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
        launches: vec![Launch { label: "layers.0: It".into(), op: op(&slots), guards: Vec::new() }],
        block_bytes: 0,
        arena_bytes: offset,
        live_bytes: offset,
        peak: Vec::new(),
        reads: Vec::new(),
        writes: Vec::new(),
    };
    PlanSet { states: Default::default(), plans: vec![plan] }
}

/// Every kernel of a set passes naga with nothing but baseline WGSL.
fn valid(set: &PlanSet, tiles: Tiles) {
    for source in sources(set, tiles).expect("the set can be printed") {
        let module = naga::front::wgsl::parse_str(&source.text)
            .unwrap_or_else(|error| panic!("{}\n{}", source.text, error.emit_to_string(&source.text)));
        let mut validator = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::empty(),
        );
        if let Err(error) = validator.validate(&module) {
            panic!("{}\n{}", source.text, error.emit_to_string(&source.text));
        }
        assert!(source.storage_buffers <= 8);
    }
}

/// Any adapter, software too; the notice says why a test shows nothing without one.
fn any_adapter() -> Option<Adapter> {
    let found = adapters().into_iter().next();
    if found.is_none() {
        println!("skipped: no adapter; on Debian mesa-vulkan-drivers gives a software one");
    }
    found
}

/// Uploads all operands, replays twice, and downloads them: the second replay must give the bits of the first.
fn run(adapter: &Adapter, set: &PlanSet, operands: &[Vec<u32>]) -> Result<Vec<Vec<u32>>, DeviceError> {
    let mut device = Wgpu::new(adapter.clone());
    device.load(set.clone())?;
    let mut runs = Vec::new();
    for _ in 0..2 {
        for (index, words) in operands.iter().enumerate() {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            device.upload(0, index, &bytes)?;
        }
        device.replay(0)?;
        let read = |index: usize| -> Result<Vec<u32>, DeviceError> {
            let bytes = device.download(0, index)?;
            Ok(bytes
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                .collect())
        };
        runs.push((0..operands.len()).map(read).collect::<Result<Vec<_>, _>>()?);
    }
    assert!(runs[0] == runs[1], "two replays differ");
    Ok(runs.remove(0))
}
