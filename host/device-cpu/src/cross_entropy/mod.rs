//! Cross-entropy of hidden states and a language-model head without a tensor of tokens times vocabulary in the arena:
//! losses, cotangents of both operands, or all in one pass that forms the logits once.
//!
//! Tokens come in chunks. For each, a first pass goes through w block by block and leaves exponentials of the logits with
//! their largest and their sum for each token and block; from those follow the losses, and a factor for each token and
//! block that makes the exponentials cotangents of the logits; a second pass through w multiplies these with x and w.
//! Chunks, blocks and the order of each sum depend on the shape alone, and tasks write disjoint memory. Tokens lie along the
//! lanes, so that no sum goes across lanes; a token that is no number spoils no other's loss.

mod backward;
mod cut;
mod forward;

use std::ops::Range;

use plan::{CrossEntropy, CrossEntropyCaps};

use crate::lanes::{LANES, Lanes, on_isa};
use crate::place::Memory;
use crate::pool::TaskPanicked;
use crate::team::Team;
use crate::tile::Isa;
use cut::{Cut, PANEL, Places};

/// Logits of a few megabytes stay in the caches, where fused tiles are as quick, and a vocabulary of some hundred rows makes
/// too few blocks.
pub const CAPS: CrossEntropyCaps = CrossEntropyCaps { min_logits: 1 << 20, min_vocabulary: 1024 };

/// Multiply-adds of a product below which handing tasks out costs more than it saves.
const SMALL: usize = 1 << 19;
/// Most terms of a sum between two looks at its place in memory: panels of that length stay in the second cache.
const TERMS: usize = 512;
/// Rows that are multiplied with a panel before what comes later is asked for: a multiple of what every instruction set
/// holds in registers.
const STRIP: usize = 12;

/// What all tasks of a launch share.
struct Kernel<'l> {
    launch: &'l CrossEntropy,
    memory: Memory,
    cut: Cut,
    places: Places,
}

// SAFETY: tasks of one step write disjoint parts of the scratch and of the slots of the launch, and read others.
unsafe impl Sync for Kernel<'_> {}

/// What a task does with a chunk of tokens.
#[derive(Clone, Copy)]
enum Step {
    /// Packs a panel of x.
    Pack(usize),
    /// Leaves the exponentials of a group of blocks.
    Forward(usize),
    /// Finds the losses and factors of some lanes of tokens.
    Combine(usize),
    /// Adds a group of blocks to the cotangents.
    Backward(usize),
    /// Adds up the cotangents of a panel of tokens.
    Finish(usize),
}

/// Floats of scratch a launch needs.
pub fn scratch(launch: &CrossEntropy, threads: usize) -> usize {
    Places::new(launch, &Cut::of(launch), std::ptr::null_mut(), threads).1
}

/// # Safety
/// `memory` holds the slots of a launch that passed `Plan::validate`, and nobody else uses them meanwhile; `scratch` has
/// as many floats as [`scratch`] says for this pool's threads. `isa` is available.
pub unsafe fn run(
    launch: &CrossEntropy,
    memory: Memory,
    scratch: *mut f32,
    isa: Isa,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    let cut = Cut::of(launch);
    let (places, _) = Places::new(launch, &cut, scratch, team.threads());
    let kernel = &Kernel { launch, memory, cut, places };
    let is_small = cut.tokens * cut.width * cut.vocabulary < SMALL;
    let mut share = |tasks: usize, tokens: Range<usize>, step: fn(usize) -> Step| {
        // SAFETY: the caller's; the steps before have ended, and tasks of a step have blocks of their own.
        let task = |worker: usize, index: usize| unsafe {
            kernel.run(isa, worker, tokens.clone(), step(index));
        };
        team.share(tasks, is_small, &task)
    };
    for chunk in 0..cut.chunks() {
        let tokens = cut.chunk(chunk);
        let panels = tokens.len().div_ceil(PANEL);
        share(panels, tokens.clone(), Step::Pack)?;
        share(cut.groups(), tokens.clone(), Step::Forward)?;
        share(panels * PANEL / LANES, tokens.clone(), Step::Combine)?;
        if let Some(grad) = launch.grad {
            share(cut.groups(), tokens.clone(), Step::Backward)?;
            if grad.ct_x.is_some() {
                share(panels, tokens, Step::Finish)?;
            }
        }
    }
    Ok(())
}

impl Kernel<'_> {
    /// # Safety
    /// As for [`run`]; the steps that this one needs have ended.
    unsafe fn run(&self, isa: Isa, worker: usize, tokens: Range<usize>, step: Step) {
        let kernel = self;
        // SAFETY: the caller's, who has the instruction set.
        unsafe {
            on_isa!(isa, run_step(kernel: &Kernel, worker: usize, tokens: Range<usize>, step: Step));
        }
    }

    #[inline(always)]
    unsafe fn step<L: Lanes>(&self, worker: usize, tokens: Range<usize>, step: Step) {
        // SAFETY: the caller's.
        unsafe {
            match step {
                Step::Pack(panel) => self.pack(tokens, panel),
                Step::Forward(group) => self.forward::<L>(worker, tokens, group),
                Step::Combine(lanes) => self.combine::<L>(tokens, lanes * LANES),
                Step::Backward(group) => self.backward::<L>(worker, tokens, group),
                Step::Finish(panel) => self.finish(tokens, panel),
            }
        }
    }

    /// Panels of tokens in a chunk, the last filled up.
    fn panels(&self, tokens: &Range<usize>) -> usize {
        tokens.len().div_ceil(PANEL)
    }

    /// The target of a token; none if it is ignored.
    unsafe fn target(&self, token: usize) -> Option<usize> {
        let targets = &self.launch.targets;
        // SAFETY: the caller's: a validated launch has a target for each token.
        let target = unsafe { *self.memory.at(&targets.slot).cast::<i32>().add(token * targets.stride) };
        usize::try_from(target).ok().filter(|target| *target < self.cut.vocabulary)
    }

    /// Copies a block of w to one after another.
    unsafe fn pack_block(&self, block: Range<usize>, to: *mut f32) {
        let w = &self.launch.w;
        let from = self.memory.at(&w.slot).cast_const();
        for (index, row) in block.enumerate() {
            // SAFETY: the caller's: `to` takes a block of rows, and w has these.
            unsafe {
                let (from, to) = (from.add(row * w.stride), to.add(index * self.cut.row()));
                std::ptr::copy_nonoverlapping(from, to, self.cut.width);
            }
        }
    }
}

#[inline(always)]
unsafe fn run_step<L: Lanes>(kernel: &Kernel, worker: usize, tokens: Range<usize>, step: Step) {
    // SAFETY: the caller's.
    unsafe { kernel.step::<L>(worker, tokens, step) }
}
