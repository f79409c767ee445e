//! The gated delta rule in chunks of tokens, forward and backward, without a tensor of tokens times tokens or a copy of
//! split heads.
//!
//! A task takes one head of one sequence through all its chunks, everything of a chunk in scratch memory. Where there are
//! few heads, the value columns of each are dealt out to several tasks: columns of the state do not depend on each other.
//! Tasks, and the order of each sum, depend on the shape alone; tasks write disjoint memory.

mod backward;
mod block;
mod chunk;
mod forward;
mod gates;
mod solve;

use std::ops::Range;

use plan::{DeltaCaps, DeltaRule, DeltaRuleGrad, DeltaShape};

use crate::lanes::{LANES, Lanes, on_isa};
use crate::place::{Memory, Scratch};
use crate::pool::TaskPanicked;
use crate::product::Left;
use crate::team::Team;
use crate::tile::Isa;
use backward::Sinks;

/// Tokens of a chunk. Products with the state cost the same for any; those within a chunk, the triangle among them, cost
/// in proportion to it, and passes over the state the less the longer it is.
const CHUNK: usize = 32;
/// Tasks wanted, where value columns allow: enough for a few threads.
const TASKS: usize = 4;
/// Fewest groups of value columns of a task: what depends on queries and keys alone is done again by each.
const FEWEST: usize = 2;
/// Multiply-adds below which handing tasks out costs more than it saves.
const SMALL: usize = 1 << 16;
/// Tokens of a task that adds up what other tasks found.
const TOKENS_OF_SUMS: usize = 256;
/// Largest width of a head: beyond it a state leaves the second level of cache, and library products win.
const MAX_WIDTH: usize = 256;

/// All shapes up to a width, the smallest ones too: one launch replaces hundreds of a decomposition.
pub const CAPS: DeltaCaps = DeltaCaps { max_width: MAX_WIDTH };

/// What a task works on.
struct Part {
    batch: usize,
    head: usize,
    /// Value columns.
    columns: Range<usize>,
}

/// How a shape is cut into parts.
#[derive(Clone, Copy)]
struct Cut {
    shape: DeltaShape,
    /// Parts of a head, and value columns of each but the last.
    splits: usize,
    columns: usize,
}

impl Cut {
    fn of(shape: &DeltaShape) -> Cut {
        let groups = shape.value_width.div_ceil(LANES);
        let wanted = TASKS.div_ceil(shape.batch * shape.heads);
        let each = groups.div_ceil(wanted).max(FEWEST).min(groups);
        Cut { shape: *shape, splits: groups.div_ceil(each), columns: each * LANES }
    }

    fn pairs(&self) -> usize {
        self.shape.batch * self.shape.heads
    }

    fn part(&self, task: usize) -> Part {
        let (pair, split) = (task / self.splits, task % self.splits);
        let start = split * self.columns;
        let columns = start..self.shape.value_width.min(start + self.columns);
        Part { batch: pair / self.shape.heads, head: pair % self.shape.heads, columns }
    }

    fn key_row(&self) -> usize {
        self.shape.width.next_multiple_of(LANES)
    }

    /// Floats of scratch for a task, backward.
    fn backward(&self) -> usize {
        backward::scratch(self.shape.tokens.div_ceil(CHUNK), self.key_row(), self.columns)
    }

    /// Floats of the sums of one task, where several add to the same.
    fn sums(&self) -> usize {
        if self.splits == 1 { 0 } else { self.shape.tokens * (2 * self.shape.width + 2) }
    }

    /// Where a task leaves its sums.
    fn sinks(&self, sums: *mut f32) -> Sinks {
        let DeltaShape { tokens, width, .. } = self.shape;
        let sink = |first, row| Some(Left { ptr: sums.wrapping_add(first).cast_const(), row, column: 1 });
        let rows = tokens * width;
        [sink(0, width), sink(rows, width), sink(2 * rows, 1), sink(2 * rows + tokens, 1)]
    }
}

/// Floats of scratch a forward launch needs.
pub fn scratch(launch: &DeltaRule, threads: usize) -> usize {
    let cut = Cut::of(&launch.shape);
    threads * forward::scratch(cut.key_row(), cut.columns)
}

/// Floats of scratch a backward launch needs.
pub fn grad_scratch(launch: &DeltaRuleGrad, threads: usize) -> usize {
    let cut = Cut::of(&launch.shape);
    threads * cut.backward() + cut.pairs() * cut.splits * cut.sums()
}

fn share(
    team: &mut Team<'_>,
    shape: &DeltaShape,
    tasks: usize,
    task: &(dyn Fn(usize, usize) + Sync),
) -> Result<(), TaskPanicked> {
    let DeltaShape { batch, heads, tokens, width, value_width } = *shape;
    team.share(tasks, batch * heads * tokens * width * value_width < SMALL, task)
}

/// # Safety
/// `memory` holds the slots of a launch that passed `Plan::validate`, and nobody else uses them meanwhile; `scratch` has
/// as many floats as [`scratch`] says for this pool's threads. `isa` is available.
pub unsafe fn run(
    launch: &DeltaRule,
    memory: Memory,
    scratch: *mut f32,
    isa: Isa,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    let cut = Cut::of(&launch.shape);
    let floats = forward::scratch(cut.key_row(), cut.columns);
    let (memory, scratch) = (&memory, &Scratch(scratch));
    share(team, &launch.shape, cut.pairs() * cut.splits, &|worker, task| {
        let work = Work::Forward(launch);
        // SAFETY: the caller's; each task has its own columns, each worker its own scratch.
        unsafe { dispatch(isa, &work, memory, &cut.part(task), scratch.part(worker, floats)) };
    })
}

/// # Safety
/// As for [`run`], with [`grad_scratch`].
pub unsafe fn run_grad(
    launch: &DeltaRuleGrad,
    memory: Memory,
    scratch: *mut f32,
    isa: Isa,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    let shape = &launch.shape;
    let cut = Cut::of(shape);
    let (floats, sum_floats) = (cut.backward(), cut.sums());
    let all_sums = &Scratch(scratch.wrapping_add(team.threads() * floats));
    let (memory, scratch) = (&memory, &Scratch(scratch));
    // SAFETY: the caller's; the head lies in the tensor.
    let results = |part: &Part| {
        [0, 1, 3, 4].map(|index: usize| {
            launch.cts[index].map(|heads| unsafe { memory.head(&heads, part.batch, part.head) })
        })
    };
    share(team, shape, cut.pairs() * cut.splits, &|worker, task| {
        let part = cut.part(task);
        let sinks = if cut.splits == 1 { results(&part) } else { cut.sinks(all_sums.part(task, sum_floats)) };
        let work = Work::Backward(launch, sinks);
        // SAFETY: the caller's; each task has its own columns and sums, each worker its own scratch.
        unsafe { dispatch(isa, &work, memory, &part, scratch.part(worker, floats)) };
    })?;
    if cut.splits == 1 {
        return Ok(());
    }
    let pieces = shape.tokens.div_ceil(TOKENS_OF_SUMS);
    share(team, shape, cut.pairs() * pieces, &|_, task| {
        let (pair, first) = (task / pieces, task % pieces * TOKENS_OF_SUMS);
        let tokens = first..shape.tokens.min(first + TOKENS_OF_SUMS);
        let first = pair * cut.splits;
        let (to, widths) = (results(&cut.part(first)), [shape.width, shape.width, 1, 1]);
        for part in 0..cut.splits {
            let from = cut.sinks(all_sums.part(first + part, sum_floats));
            // SAFETY: the caller's; the tasks above have ended, and each of these has its own tokens.
            unsafe { add_up(&from, part > 0, &to, widths, tokens.clone()) };
        }
    })
}

/// Writes what a part comes to, or adds it to what is there.
unsafe fn add_up(from: &Sinks, adds: bool, to: &Sinks, widths: [usize; 4], tokens: Range<usize>) {
    for (index, width) in widths.into_iter().enumerate() {
        let (Some(from), Some(to)) = (from[index], to[index]) else { continue };
        for token in tokens.clone() {
            for d in 0..width {
                // SAFETY: the caller's; the token lies in both.
                unsafe {
                    let value = *from.ptr.add(token * from.row + d * from.column);
                    let to = to.ptr.cast_mut().add(token * to.row + d * to.column);
                    *to = if adds { *to + value } else { value };
                }
            }
        }
    }
}

/// What a launch does, and where tasks leave what several add to.
enum Work<'a> {
    Forward(&'a DeltaRule),
    Backward(&'a DeltaRuleGrad, Sinks),
}

unsafe fn dispatch(isa: Isa, work: &Work, memory: &Memory, part: &Part, scratch: *mut f32) {
    // SAFETY: the caller's, who has the instruction set.
    unsafe { on_isa!(isa, on(work: &Work, memory: &Memory, part: &Part, scratch: *mut f32)) }
}

#[inline(always)]
unsafe fn on<L: Lanes>(work: &Work, memory: &Memory, part: &Part, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        match work {
            Work::Forward(launch) => forward::task::<L>(launch, memory, part, scratch),
            Work::Backward(launch, sinks) => backward::task::<L>(launch, memory, part, sinks, scratch),
        }
    }
}
