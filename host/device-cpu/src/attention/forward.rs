//! A block of queries against all keys it sees, block by block with running maxima and sums (Dao et al. 2022, arXiv
//! 2205.14135, algorithm 1).
//!
//! Queries lie along the lanes: the statistics of a row are numbers of its lane, and no sum ever goes across lanes.
//! Scores are held in powers of 2, so `scale` times log2(e) goes into the packed queries.

use std::f32::consts::{LN_2, LOG2_E};

use plan::{Attention, AttentionShape};

use super::packed::Packed;
use super::rows::Rows;
use super::sight::{Span, Spans};
use super::{GROUPS, KEYS, MASKED, ROWS};
use crate::abreast::{Abreast, FUSES};
use crate::held::{HELD, Numbers, add_rows, each_row};
use crate::lanes::{LANES, Lanes};
use crate::math;
use crate::place::Memory;
use crate::product::{Out, Right};

/// Floats that [`block`] needs.
pub fn scratch(shape: &AttentionShape) -> usize {
    let (width, value_width) = (shape.width.next_multiple_of(HELD), shape.value_width.next_multiple_of(HELD));
    (width + value_width) * ROWS + KEYS * LANES
}

/// # Safety
/// `memory` holds the slots of a validated launch, of which nobody else writes these rows; `packed` is of their head;
/// `scratch` has as many floats as [`scratch`] says; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn block<L: Lanes>(
    launch: &Attention,
    memory: &Memory,
    rows: &Rows,
    packed: &Packed<'_>,
    scratch: *mut f32,
) {
    let shape = &launch.shape;
    let (width, value_width) = (shape.width.next_multiple_of(HELD), shape.value_width.next_multiple_of(HELD));
    // SAFETY: the caller's; keys and values are read inside their validated extents.
    unsafe {
        let queries = scratch;
        let result = queries.add(width * ROWS);
        let scores = result.add(value_width * ROWS);
        rows.pack_lanes::<L>(shape, memory, &launch.q, (shape.width, shape.scale * LOG2_E), queries);
        std::slice::from_raw_parts_mut(result, value_width * ROWS).fill(0.0);
        let sight = rows.sight(shape, memory);
        let mut stats = [Stats { largest: L::splat(MASKED), sum: L::splat(0.0) }; GROUPS];
        let keys = sight.keys();
        for start in (keys.start..keys.end).step_by(KEYS) {
            let count = KEYS.min(keys.end - start);
            let seen: [Spans; GROUPS] = std::array::from_fn(|group| sight.spans(group, start, count));
            if seen.iter().all(Spans::is_empty) {
                continue;
            }
            let (k, v) = packed.block::<L>(start..start + count);
            for (group, spans) in seen.iter().enumerate().filter(|(_, spans)| !spans.is_empty()) {
                let queries = Right { ptr: queries.add(group * LANES), row: ROWS };
                let result = Out { ptr: result.add(group * LANES), row: ROWS };
                let mut largest = stats[group].largest;
                for Span { keys, full } in spans.iter() {
                    let (k, scores) = (k.from(keys.start), scores.add(keys.start * LANES));
                    let found = score::<L>(keys.len(), k, queries, width, scores);
                    largest = match full {
                        true => found.max(largest),
                        false => {
                            sight.hide::<L>(group, start + keys.start, 0..keys.len(), scores);
                            largest_of::<L>(keys.len(), scores, largest)
                        }
                    };
                }
                let factor = stats[group].weigh(largest, spans, scores);
                for d in 0..value_width {
                    let at = result.ptr.add(d * ROWS);
                    L::load(at).mul(factor).store(at);
                }
                for Span { keys, .. } in spans.iter() {
                    let weights = scores.add(keys.start * LANES);
                    for d in (0..value_width).step_by(HELD) {
                        let c = Out { ptr: result.ptr.add(d * ROWS), ..result };
                        add_rows::<L>(keys.len(), v.at(keys.start, d), weights, c);
                    }
                }
            }
        }
        finish(launch, memory, rows, stats, result);
    }
}

/// Scores of some keys, and the largest of each lane (which is no NaN).
#[inline(always)]
unsafe fn score<L: Lanes>(count: usize, k: Numbers, queries: Right, width: usize, scores: *mut f32) -> L {
    // SAFETY: the caller's.
    unsafe {
        let mut largest = L::splat(MASKED);
        for d in (0..width).step_by(HELD) {
            let (k, queries) = (k.at(0, d), (queries.ptr.add(d * queries.row), queries.row));
            let zero = |_| L::splat(0.0);
            let load = |key: usize| L::load(scores.add(key * LANES));
            let store = |key: usize, score: L| score.store(scores.add(key * LANES));
            let last = |key: usize, score: L| {
                largest = score.max(largest);
                store(key, score);
            };
            match (d == 0, d + HELD == width) {
                (true, true) => each_row::<L>(count, k, queries, zero, last),
                (true, false) => each_row::<L>(count, k, queries, zero, store),
                (false, false) => each_row::<L>(count, k, queries, load, store),
                (false, true) => each_row::<L>(count, k, queries, load, last),
            }
        }
        largest
    }
}

#[inline(always)]
unsafe fn largest_of<L: Lanes>(count: usize, scores: *const f32, largest: L) -> L {
    // SAFETY: the caller's.
    (0..count).fold(largest, |largest, key| unsafe { L::load(scores.add(key * LANES)).max(largest) })
}

/// Of sixteen rows.
#[derive(Clone, Copy)]
struct Stats<L> {
    largest: L,
    /// Of the weights so far, relative to the largest score.
    sum: L,
}

impl<L: Lanes> Stats<L> {
    /// Turns the scores of some keys into weights and returns what those of earlier keys are to be multiplied by.
    #[inline(always)]
    unsafe fn weigh(&mut self, largest: L, spans: &Spans, scores: *mut f32) -> L {
        // SAFETY: the caller's: spans lie in the block of scores.
        unsafe {
            let shift = largest.unmasked();
            let factor = self.largest.sub(shift).exp2();
            let mut sum = self.sum.mul(factor);
            for Span { keys, .. } in spans.iter() {
                for key in keys.clone() {
                    let at = scores.add(key * LANES);
                    let weight = L::load(at).sub(shift).exp2();
                    weight.store(at);
                    sum = sum.add(weight);
                }
            }
            (self.largest, self.sum) = (largest, sum);
            factor
        }
    }
}

/// Divides by the sums and writes the rows. A row without keys has the sum 0.
#[inline(always)]
unsafe fn finish<L: Lanes>(
    launch: &Attention,
    memory: &Memory,
    rows: &Rows,
    stats: [Stats<L>; GROUPS],
    result: *mut f32,
) {
    let (mut largest, mut sums) = ([0.0f32; ROWS], [0.0f32; ROWS]);
    // SAFETY: the caller's.
    unsafe {
        for (group, stats) in stats.iter().enumerate() {
            stats.largest.store(largest.as_mut_ptr().add(group * LANES));
            stats.sum.store(sums.as_mut_ptr().add(group * LANES));
        }
        if let Some(lse) = launch.lse {
            let mut values = [0.0f32; ROWS];
            for lane in 0..ROWS {
                let value = largest[lane] * LN_2 + math::log(Abreast::<1, FUSES>([sums[lane]])).0[0];
                values[lane] = if sums[lane] == 0.0 { 0.0 } else { value };
            }
            let to = memory.at(&lse).add(rows.first_of_all(&launch.shape));
            std::slice::from_raw_parts_mut(to, rows.count).copy_from_slice(&values[..rows.count]);
        }
        let Some(out) = &launch.out else { return };
        for sum in &mut sums {
            *sum = if *sum == 0.0 { 0.0 } else { 1.0 / *sum };
        }
        for d in 0..launch.shape.value_width {
            for group in 0..GROUPS {
                let at = result.add(d * ROWS + group * LANES);
                L::load(at).mul(L::load(sums.as_ptr().add(group * LANES))).store(at);
            }
        }
        rows.unpack_lanes::<L>(&launch.shape, memory, out, (launch.shape.value_width, 1.0), result);
    }
}
