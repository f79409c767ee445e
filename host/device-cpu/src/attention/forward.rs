//! A block of queries against all keys it sees, block by block with running maxima and sums (Dao et al. 2022, arXiv
//! 2205.14135, algorithm 1).
//!
//! Queries lie along the lanes: the statistics of a row are numbers of its lane, and no sum ever goes across lanes.
//! Scores are held in powers of 2, so `scale` times log2(e) goes into the packed queries.

use std::f32::consts::{LN_2, LOG2_E};

use plan::{Attention, AttentionShape};

use super::rows::Rows;
use super::sight::Strip;
use super::{GROUPS, KEYS, MASKED, NO_STRIPS, ROWS};
use crate::abreast::Abreast;
use crate::lanes::{LANES, Lanes};
use crate::math;
use crate::place::Memory;
use crate::product::{Left, Out, Right, pack};

/// Floats that [`block`] needs.
pub fn scratch(shape: &AttentionShape) -> usize {
    let packed = shape.width.next_multiple_of(LANES) + shape.value_width.next_multiple_of(LANES);
    (shape.width + KEYS + shape.value_width) * ROWS + packed * KEYS
}

/// # Safety
/// `memory` holds the slots of a validated launch, of which nobody else writes these rows; `scratch` has as many floats
/// as [`scratch`] says; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn block<L: Lanes>(launch: &Attention, memory: &Memory, rows: &Rows, scratch: *mut f32) {
    let shape = &launch.shape;
    let (width, value_width) = (shape.width, shape.value_width);
    let group = rows.group(shape);
    // SAFETY: the caller's; keys and values are read inside their validated extents.
    unsafe {
        let queries = scratch;
        let scores = queries.add(width * ROWS);
        let result = scores.add(KEYS * ROWS);
        let packed_keys = result.add(value_width * ROWS);
        let packed_values = packed_keys.add(width.next_multiple_of(LANES) * KEYS);
        rows.pack_lanes::<L>(shape, memory, &launch.q, (width, shape.scale * LOG2_E), queries);
        std::slice::from_raw_parts_mut(result, value_width * ROWS).fill(0.0);
        let sight = rows.sight(shape, memory);
        let (k, v) = (memory.head(&launch.k, rows.batch, group), memory.head(&launch.v, rows.batch, group));
        let mut stats = [Stats { largest: L::splat(MASKED), sum: L::splat(0.0) }; GROUPS];
        let keys = sight.keys();
        for start in (keys.start..keys.end).step_by(KEYS) {
            let mut strips = NO_STRIPS;
            let count = KEYS.min(keys.end - start);
            let found = sight.strips(start, count, &mut strips);
            if found == 0 {
                continue;
            }
            let strips = &strips[..found];
            let k = pack::<L>(Left { ptr: k.ptr.add(start * k.row), ..k }, count, width, packed_keys);
            let v = Left { ptr: v.ptr.add(start * v.row), ..v };
            let v = pack::<L>(v, count, value_width, packed_values);
            for strip in strips {
                let first = strip.keys.start;
                let (lanes, row) = (strip.groups.start * LANES, strip.keys.start * ROWS);
                let a = Left { ptr: k.ptr.add(first * k.row), ..k };
                let b = Right { ptr: queries.add(lanes), row: ROWS };
                let c = Out { ptr: scores.add(row + lanes), row: ROWS };
                L::product([strip.keys.len(), strip.groups.len(), width], a, b, c, false);
                if !strip.full {
                    sight.hide(start, strip, scores);
                }
            }
            for (group, stats) in stats[..sight.used].iter_mut().enumerate() {
                let factor = stats.weigh(group, strips, scores);
                for d in 0..value_width {
                    let at = result.add(d * ROWS + group * LANES);
                    L::load(at).mul(factor).store(at);
                }
            }
            for strip in strips {
                let first = strip.keys.start;
                let (lanes, row) = (strip.groups.start * LANES, strip.keys.start * ROWS);
                let a = Left { ptr: v.ptr.add(first * v.row), row: v.column, column: v.row };
                let b = Right { ptr: scores.add(row + lanes), row: ROWS };
                let c = Out { ptr: result.add(lanes), row: ROWS };
                L::product([value_width, strip.groups.len(), strip.keys.len()], a, b, c, true);
            }
        }
        finish(launch, memory, rows, stats, result);
    }
}

/// Of sixteen rows.
#[derive(Clone, Copy)]
struct Stats<L> {
    largest: L,
    /// Of the weights so far, relative to the largest score.
    sum: L,
}

impl<L: Lanes> Stats<L> {
    /// Turns the scores of a group of lanes into weights and returns what those of earlier keys are to be multiplied
    /// by.
    #[inline(always)]
    unsafe fn weigh(&mut self, group: usize, strips: &[Strip], scores: *mut f32) -> L {
        // SAFETY: the caller's: strips lie in the block of scores.
        unsafe {
            let scores = scores.add(group * LANES);
            // Four maxima side by side: one alone would wait for itself.
            let mut largest = [self.largest; 4];
            for strip in strips.iter().filter(|strip| strip.groups.contains(&group)) {
                for key in strip.keys.clone() {
                    let at = key % largest.len();
                    largest[at] = L::load(scores.add(key * ROWS)).max(largest[at]);
                }
            }
            let [a, b, c, d] = largest;
            let largest = a.max(b).max(c.max(d));
            let shift = largest.unmasked();
            let factor = self.largest.sub(shift).exp2();
            let mut sum = self.sum.mul(factor);
            for strip in strips.iter().filter(|strip| strip.groups.contains(&group)) {
                for key in strip.keys.clone() {
                    let at = scores.add(key * ROWS);
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
                let value = largest[lane] * LN_2 + math::log(Abreast([sums[lane]])).0[0];
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
