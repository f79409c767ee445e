//! A head through all its chunks, forward: a product with the state for what tokens find in it, a triangular system for
//! what they write, a product for the state after them (Yang et al. 2024, arXiv 2412.06464, section 3.3).
//!
//! With X the values less what the state before the chunk gives for the keys, the errors Y (values less what the state
//! at its token gives) solve Y = X + N U, where U = beta Y is what is written. States lie as [K, V] here.

use plan::{DeltaRule, Heads};

use crate::lanes::{LANES, Lanes};
use crate::place::Memory;

use super::Part;
use super::block::{Block, Space};
use super::chunk::{Chunk, Head, add_lower, columns_from, rows_from};

/// Scratch of a task.
struct Scratch {
    chunk: Chunk,
    errors: Block,
    written: Block,
    out: Block,
    /// [K, V].
    state: Block,
    /// [V, K].
    turned: Block,
}

impl Scratch {
    fn new(space: &mut Space, key_row: usize, value_row: usize) -> Scratch {
        let chunk = Chunk::new(space, key_row);
        let [errors, written, out] = [(); 3].map(|()| space.block(super::CHUNK, value_row));
        let state = space.block(key_row, value_row);
        Scratch { chunk, errors, written, out, state, turned: space.block(value_row, key_row) }
    }
}

/// Floats that [`task`] needs for heads of these padded widths.
pub fn scratch(key_row: usize, value_row: usize) -> usize {
    Space::count(|space| Scratch::new(space, key_row, value_row))
}

/// # Safety
/// `memory` holds the slots of a validated launch, of which nobody else writes these columns; `scratch` has as many floats
/// as [`scratch`] says; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn task<L: Lanes>(launch: &DeltaRule, memory: &Memory, part: &Part, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        let head = Head::new(&launch.shape, &launch.operands, memory, part);
        let scratch = Scratch::new(&mut Space(scratch), head.key_row, head.value_row);
        let Scratch { chunk, errors, written, out, state, turned } = scratch;
        let groups = head.value_row / LANES;
        read_state::<L>(&head, turned, state);
        for index in 0..head.chunks() {
            let (first, count) = head.tokens_of(index);
            let across = chunk.load_keys::<L>(&head, first, count);
            write::<L>(&head, &chunk, (first, count), state, errors, written);
            if let Some(to) = &launch.out {
                chunk.load_queries::<L>(&head, first, count);
                let extents = [count, groups, head.width];
                L::product(extents, chunk.q_start.left(), state.right(), out.out(), false);
                add_lower::<L>([count, groups], chunk.weights, written, out);
                let to = columns_from(memory.head(to, part.batch, part.head), part.columns.start);
                out.write::<L>(rows_from(to, first), count, head.values);
            }
            advance::<L>(&head, &chunk, (count, across), written, [state, state]);
        }
        if let Some(last) = &launch.last {
            write_state::<L>(&head, state, turned, last, memory, part);
        }
    }
}

/// A matrix [V, K] of the launch as [K, V], by way of `turned`.
///
/// # Safety
/// As for [`task`].
#[inline(always)]
pub unsafe fn read_state<L: Lanes>(head: &Head, turned: Block, to: Block) {
    // SAFETY: the caller's.
    unsafe {
        turned.fill::<L>(head.state, head.values, head.width);
        turned.turn::<L>([head.value_row / LANES, head.key_row / LANES], to);
    }
}

/// The way back, to the task's columns of `heads`.
///
/// # Safety
/// As for [`task`].
#[inline(always)]
pub unsafe fn write_state<L: Lanes>(
    head: &Head,
    state: Block,
    turned: Block,
    heads: &Heads,
    memory: &Memory,
    part: &Part,
) {
    // SAFETY: the caller's.
    unsafe {
        state.turn::<L>([head.key_row / LANES, head.value_row / LANES], turned);
        let to = rows_from(memory.head(heads, part.batch, part.head), part.columns.start);
        turned.write::<L>(to, head.values, head.width);
    }
}

/// Errors and what is written, of a chunk whose keys are loaded.
///
/// # Safety
/// As for [`task`].
#[inline(always)]
pub unsafe fn write<L: Lanes>(
    head: &Head,
    chunk: &Chunk,
    (first, count): (usize, usize),
    state: Block,
    errors: Block,
    written: Block,
) {
    let groups = head.value_row / LANES;
    // SAFETY: the caller's.
    unsafe {
        errors.fill::<L>(rows_from(head.v, first), count, head.values);
        let extents = [count, groups, head.width];
        L::product(extents, chunk.k_start.left(), state.right(), errors.out(), true);
        super::solve::solve::<L, false>([count, groups], chunk.overlaps, chunk.beta, errors, written);
    }
}

/// The state after a chunk from the one before, which may be the same block.
///
/// # Safety
/// As for [`task`].
#[inline(always)]
pub unsafe fn advance<L: Lanes>(
    head: &Head,
    chunk: &Chunk,
    (count, across): (usize, f32),
    written: Block,
    [before, after]: [Block; 2],
) {
    // SAFETY: the caller's.
    unsafe {
        before.scale_all::<L>(head.key_row, across, after);
        let extents = [head.width, head.value_row / LANES, count];
        L::product(extents, chunk.k_end.turned(), written.right(), after.out(), true);
    }
}
