//! Attention without a tensor of queries times keys, forward and backward.
//!
//! A task takes blocks of queries through all keys they see. Tasks, and the order of each sum, depend on the shape
//! alone; tasks write disjoint memory. Parts of the keys that a mask hides from a block as a whole are skipped.

mod backward;
mod forward;
mod rows;
mod sight;

use plan::{Attention, AttentionCaps, AttentionGrad, AttentionShape};

#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx2, Avx512, has_fma};
use crate::lanes::{LANES, Portable};
use crate::place::{Memory, Scratch};
use crate::pool::TaskPanicked;
use crate::product::BLOCK_ROWS;
use crate::team::Team;
use crate::tile::Isa;
use backward::Sums;
use rows::{Cut, Rows};
use sight::Strip;

/// Rows of a block of queries: four registers of AVX-512, so that a tile of scores fills them.
const ROWS: usize = BLOCK_ROWS;
/// Groups of lanes of such a block.
const GROUPS: usize = ROWS / LANES;
/// Keys of a block: scores, packed queries and results of a usual width stay in the first level of cache.
const KEYS: usize = 64;
/// What a hidden score is set to: its exponential is 0.
const MASKED: f32 = -1e30;
/// Tasks wanted of a backward pass: enough for as many threads.
const TASKS: usize = 16;
/// Multiply-adds below which handing tasks out costs more than it saves.
const SMALL: usize = 1 << 18;
/// Keys of a task that adds up sums.
const KEYS_OF_SUMS: usize = 256;
/// Largest width of a head: beyond it packed queries leave the caches, and library products win.
const MAX_WIDTH: usize = 512;

const NO_STRIP: Strip = Strip { keys: 0..0, groups: 0..0, full: false };
const NO_STRIPS: [Strip; 4] = [NO_STRIP; 4];

/// All shapes up to a width, the smallest ones too: one launch replaces six or more of a decomposition.
pub const CAPS: AttentionCaps = AttentionCaps { max_width: MAX_WIDTH };

/// Floats of scratch a forward launch needs.
pub fn scratch(launch: &Attention, threads: usize) -> usize {
    threads * forward::scratch(&launch.shape)
}

/// Floats of scratch a backward launch needs.
pub fn grad_scratch(launch: &AttentionGrad, threads: usize) -> usize {
    let shape = &launch.shape;
    let tasks = shape.batch * shape.groups * splits(shape);
    let sums = if splits(shape) > 1 { tasks } else { threads };
    threads * backward::scratch(shape) + sums * Sums::floats(shape)
}

/// Among how many tasks the blocks of queries that share keys are dealt out, backward.
fn splits(shape: &AttentionShape) -> usize {
    TASKS.div_ceil(shape.batch * shape.groups).min(blocks_of_group(shape))
}

/// Blocks of queries that share keys.
fn blocks_of_group(shape: &AttentionShape) -> usize {
    let cut = Cut::of(shape);
    cut.runs / shape.groups * cut.blocks()
}

fn share(
    team: &mut Team<'_>,
    shape: &AttentionShape,
    tasks: usize,
    task: &(dyn Fn(usize, usize) + Sync),
) -> Result<(), TaskPanicked> {
    let AttentionShape { batch, heads, queries, keys, width, value_width, .. } = *shape;
    team.share(tasks, batch * heads * queries * keys * (width + value_width) < SMALL, task)
}

/// # Safety
/// `memory` holds the slots of a launch that passed `Plan::validate`, and nobody else uses them meanwhile; `scratch` has
/// as many floats as [`scratch`] says for this pool's threads. `isa` is available.
pub unsafe fn run(
    launch: &Attention,
    memory: Memory,
    scratch: *mut f32,
    isa: Isa,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    let shape = &launch.shape;
    let cut = Cut::of(shape);
    let blocks = cut.blocks();
    let (memory, scratch, floats) = (&memory, &Scratch(scratch), forward::scratch(shape));
    share(team, shape, shape.batch * cut.runs * blocks, &|worker, task| {
        let run = task / blocks;
        // Under a causal mask later blocks are larger: they go first.
        let rows = cut.block(run / cut.runs, run % cut.runs, blocks - 1 - task % blocks);
        // SAFETY: the caller's; each task has its own rows, each worker its own scratch.
        unsafe { forward_block(isa, launch, memory, &rows, scratch.part(worker, floats)) };
    })
}

/// # Safety
/// As for [`run`], with [`grad_scratch`].
pub unsafe fn run_grad(
    launch: &AttentionGrad,
    memory: Memory,
    scratch: *mut f32,
    isa: Isa,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    let shape = &launch.shape;
    let cut = Cut::of(shape);
    let (splits, count) = (splits(shape), blocks_of_group(shape));
    let (sum_floats, floats) = (Sums::floats(shape), backward::scratch(shape));
    let all_sums = &Scratch(scratch.wrapping_add(team.threads() * floats));
    let (memory, scratch) = (&memory, &Scratch(scratch));
    let pairs = shape.batch * shape.groups;
    let runs = cut.runs / shape.groups;
    share(team, shape, pairs * splits, &|worker, task| {
        let (pair, part) = (task / splits, task % splits);
        let (batch, group) = (pair / shape.groups, pair % shape.groups);
        let own = all_sums.part(if splits > 1 { task } else { worker }, sum_floats);
        // SAFETY: the caller's; each task has its own rows, and sums that no other uses at that time.
        unsafe {
            std::slice::from_raw_parts_mut(own, sum_floats).fill(0.0);
            for index in (part..count).step_by(splits) {
                let run = group * runs + index / cut.blocks();
                let rows = cut.block(batch, run, index % cut.blocks());
                let sums = Sums::at(shape, own);
                backward_block(isa, launch, memory, &rows, sums, scratch.part(worker, floats));
            }
            if splits == 1 {
                backward::finish(launch, memory, (batch, group), 0..shape.keys, (own, 1));
            }
        }
    })?;
    if splits == 1 {
        return Ok(());
    }
    let pieces = shape.keys.div_ceil(KEYS_OF_SUMS);
    share(team, shape, pairs * pieces, &|_, task| {
        let (pair, first) = (task / pieces, task % pieces * KEYS_OF_SUMS);
        let keys = first..shape.keys.min(first + KEYS_OF_SUMS);
        let parts = (all_sums.part(pair * splits, sum_floats), splits);
        // SAFETY: the caller's; the tasks above have ended, and each of these has its own keys.
        unsafe { backward::finish(launch, memory, (pair / shape.groups, pair % shape.groups), keys, parts) };
    })
}

unsafe fn forward_block(isa: Isa, launch: &Attention, memory: &Memory, rows: &Rows, scratch: *mut f32) {
    // SAFETY: the caller's, who has the instruction set.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => forward_avx512(launch, memory, rows, scratch),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if has_fma() => forward_avx2(launch, memory, rows, scratch),
            _ => forward::block::<Portable>(launch, memory, rows, scratch),
        }
    }
}

unsafe fn backward_block(
    isa: Isa,
    launch: &AttentionGrad,
    memory: &Memory,
    rows: &Rows,
    sums: Sums,
    scratch: *mut f32,
) {
    // SAFETY: the caller's, who has the instruction set.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => backward_avx512(launch, memory, rows, sums, scratch),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if has_fma() => backward_avx2(launch, memory, rows, sums, scratch),
            _ => backward::block::<Portable>(launch, memory, rows, sums, scratch),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn forward_avx512(launch: &Attention, memory: &Memory, rows: &Rows, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe { forward::block::<Avx512>(launch, memory, rows, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn forward_avx2(launch: &Attention, memory: &Memory, rows: &Rows, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe { forward::block::<Avx2>(launch, memory, rows, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn backward_avx512(
    launch: &AttentionGrad,
    memory: &Memory,
    rows: &Rows,
    sums: Sums,
    scratch: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe { backward::block::<Avx512>(launch, memory, rows, sums, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn backward_avx2(launch: &AttentionGrad, memory: &Memory, rows: &Rows, sums: Sums, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe { backward::block::<Avx2>(launch, memory, rows, sums, scratch) }
}
