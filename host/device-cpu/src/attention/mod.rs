//! Attention without a tensor of queries times keys, forward and backward.
//!
//! A task takes blocks of queries through all keys they see. Tasks, and the order of each sum, depend on the shape
//! alone; tasks write disjoint memory. Parts of the keys that a mask hides from a block as a whole are skipped.

mod backward;
mod forward;
mod packed;
mod rows;
mod sight;

use std::ops::Range;

use plan::{Attention, AttentionCaps, AttentionGrad, AttentionShape};

use crate::lanes::{LANES, Lanes, Portable, on_isa};
use crate::place::{Memory, Scratch};
use crate::pool::TaskPanicked;
use crate::team::Team;
use crate::tile::Isa;
use backward::Sums;
use packed::{Packed, is_whole};
use rows::Cut;

/// Rows of a block of queries, whose keys are found and packed together.
const ROWS: usize = 64;
/// Groups of lanes of such a block.
const GROUPS: usize = ROWS / LANES;
/// Keys of a block: their scores for a group of lanes, and they themselves, stay in the first level of cache.
const KEYS: usize = 64;
/// What a hidden score is set to: its exponential is 0.
const MASKED: f32 = -1e30;
/// Tasks wanted: enough for as many threads.
const TASKS: usize = 16;
/// Tasks of which several heads of a sequence are one, so that what one of them fetches ahead is of use to the next.
const MANY_TASKS: usize = 64;
/// Multiply-adds below which handing tasks out costs more than it saves.
const SMALL: usize = 1 << 18;
/// Keys of a task that adds up sums.
const KEYS_OF_SUMS: usize = 256;
/// Largest width of a head: beyond it packed queries leave the caches, and library products win.
const MAX_WIDTH: usize = 512;

/// All shapes up to a width, the smallest ones too: one launch replaces six or more of a decomposition.
pub const CAPS: AttentionCaps = AttentionCaps { max_width: MAX_WIDTH };

/// Floats of scratch a forward launch needs.
pub fn scratch(launch: &Attention, threads: usize) -> usize {
    threads * forward_scratch(&launch.shape)
}

fn forward_scratch(shape: &AttentionShape) -> usize {
    forward::scratch(shape) + packed::scratch(shape)
}

/// Floats of scratch a backward launch needs.
pub fn grad_scratch(launch: &AttentionGrad, threads: usize) -> usize {
    let shape = &launch.shape;
    let tasks = shape.batch * shape.groups * splits(shape);
    let sums = if splits(shape) > 1 { tasks } else { threads };
    threads * backward_scratch(shape) + sums * Sums::floats(shape)
}

fn backward_scratch(shape: &AttentionShape) -> usize {
    backward::scratch(shape) + packed::scratch(shape)
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

/// How many consecutive heads of a sequence make a task, of `heads` that it has.
fn heads_of_task(batch: usize, heads: usize) -> usize {
    (1..=heads)
        .rev()
        .find(|each| heads.is_multiple_of(*each) && batch * heads / each >= MANY_TASKS)
        .unwrap_or(1)
}

/// How many consecutive blocks of queries make a task: a run's or those of several, if there are enough, so that their
/// keys are packed once; else each is one.
fn blocks_of_task(shape: &AttentionShape) -> usize {
    let cut = Cut::of(shape);
    let is_one = !is_whole(shape) || shape.batch * cut.runs < TASKS;
    if is_one { 1 } else { heads_of_task(shape.batch, cut.runs) * cut.blocks() }
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
    let blocks = shape.batch * Cut::of(shape).runs * Cut::of(shape).blocks();
    let each = blocks_of_task(shape);
    let (memory, scratch, floats) = (&memory, &Scratch(scratch), forward_scratch(shape));
    share(team, shape, blocks / each, &|worker, task| {
        let blocks = task * each..(task + 1) * each;
        let scratch = scratch.part(worker, floats);
        // SAFETY: the caller's; each task has its own rows, each worker its own scratch.
        unsafe {
            on_isa!(
                isa,
                forward_task(launch: &Attention, memory: &Memory, blocks: Range<usize>, scratch: *mut f32)
            )
        };
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
    let splits = splits(shape);
    let (sum_floats, floats) = (Sums::floats(shape), backward_scratch(shape));
    let all_sums = &Scratch(scratch.wrapping_add(team.threads() * floats));
    let (memory, scratch) = (&memory, &Scratch(scratch));
    let pairs = shape.batch * shape.groups;
    let each = if splits > 1 { 1 } else { heads_of_task(shape.batch, shape.groups) };
    share(team, shape, pairs / each * splits, &|worker, task| {
        let share =
            Share { pairs: task / splits * each..(task / splits + 1) * each, part: task % splits, splits };
        let sums = all_sums.part(if splits > 1 { task } else { worker }, sum_floats);
        let scratch = scratch.part(worker, floats);
        // SAFETY: the caller's; each task has its own rows, and sums that no other uses at that time.
        unsafe {
            on_isa!(
                isa,
                backward_task(
                    launch: &AttentionGrad,
                    memory: &Memory,
                    share: Share,
                    sums: *mut f32,
                    scratch: *mut f32,
                )
            )
        };
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
        unsafe {
            backward::finish::<Portable>(
                launch,
                memory,
                (pair / shape.groups, pair % shape.groups),
                keys,
                parts,
            )
        };
    })
}

/// Consecutive blocks of queries, counted over [batch, run, block].
#[inline(always)]
unsafe fn forward_task<L: Lanes>(
    launch: &Attention,
    memory: &Memory,
    blocks: Range<usize>,
    scratch: *mut f32,
) {
    let shape = &launch.shape;
    let cut = Cut::of(shape);
    let of_packed = scratch.wrapping_add(forward::scratch(shape));
    let mut current: Option<((usize, usize), Packed<'_>)> = None;
    for index in blocks {
        let (run, block) = (index / cut.blocks(), index % cut.blocks());
        // Under a causal mask later blocks are larger: they go first.
        let rows = cut.block(run / cut.runs, run % cut.runs, cut.blocks() - 1 - block);
        let head = (rows.batch, rows.group(shape));
        // SAFETY: the caller's.
        unsafe {
            if current.as_ref().is_none_or(|(of, _)| *of != head) {
                let packed = Packed::head::<L>(shape, memory, [&launch.k, &launch.v], head, of_packed);
                current = Some((head, packed));
            }
            let Some((_, packed)) = &current else { return };
            rows.fetch_next(shape, memory, &[&launch.q], &[&launch.k, &launch.v]);
            forward::block::<L>(launch, memory, &rows, packed, scratch);
        }
    }
}

/// What a backward task does of some heads for keys and values, counted over [batch, group].
struct Share {
    pairs: Range<usize>,
    /// Every `splits`-th block of queries from this one on.
    part: usize,
    splits: usize,
}

#[inline(always)]
unsafe fn backward_task<L: Lanes>(
    launch: &AttentionGrad,
    memory: &Memory,
    share: Share,
    sums: *mut f32,
    scratch: *mut f32,
) {
    let shape = &launch.shape;
    let (cut, count) = (Cut::of(shape), blocks_of_group(shape));
    let runs = cut.runs / shape.groups;
    let of_packed = scratch.wrapping_add(backward::scratch(shape));
    for pair in share.pairs {
        let head = (pair / shape.groups, pair % shape.groups);
        // SAFETY: the caller's.
        unsafe {
            std::slice::from_raw_parts_mut(sums, Sums::floats(shape)).fill(0.0);
            let packed = Packed::head::<L>(shape, memory, [&launch.k, &launch.v], head, of_packed);
            for index in (share.part..count).step_by(share.splits) {
                let run = head.1 * runs + index / cut.blocks();
                let rows = cut.block(head.0, run, index % cut.blocks());
                let of_queries = [&launch.q, &launch.ct_out, &launch.out];
                rows.fetch_next(shape, memory, &of_queries, &[&launch.k, &launch.v]);
                backward::block::<L>(launch, memory, &rows, &packed, Sums::at(shape, sums), scratch);
            }
            if share.splits == 1 {
                backward::finish::<L>(launch, memory, head, 0..shape.keys, (sums, 1));
            }
        }
    }
}
