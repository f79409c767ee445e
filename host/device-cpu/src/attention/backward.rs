//! Cotangents of queries, keys and values: for each block of queries the weights are formed again from the log-sum-exp
//! of its rows (Dao et al. 2022, arXiv 2205.14135, algorithm 4).
//!
//! A task goes through some blocks of queries of one sequence and key head, in order, and adds up the cotangents of all
//! its keys and values in memory of its own, so five products of queries times keys do. Where there are fewer heads
//! than tasks wanted, the blocks of a head are dealt out to several tasks, whose sums are added at the end in order.

use std::f32::consts::LOG2_E;

use plan::{AttentionGrad, AttentionShape};

use super::rows::Rows;
use super::{KEYS, NO_STRIPS, ROWS};
use crate::lanes::{LANES, Lanes};
use crate::place::Memory;
use crate::product::{Left, Out, Right, pack};

/// Floats that [`block`] needs.
pub fn scratch(shape: &AttentionShape) -> usize {
    let (width, value_width) = (shape.width, shape.value_width);
    let in_lanes = 2 * width + value_width + KEYS.max(value_width) + KEYS;
    let padded = width.next_multiple_of(LANES) + value_width.next_multiple_of(LANES);
    in_lanes * ROWS + padded * (ROWS + KEYS)
}

/// Where a task adds up cotangents: rows of whole lanes for each key.
#[derive(Clone, Copy)]
pub struct Sums {
    pub k: Out,
    pub v: Out,
}

impl Sums {
    /// Floats for the keys of one head.
    pub fn floats(shape: &AttentionShape) -> usize {
        shape.keys * (shape.width.next_multiple_of(LANES) + shape.value_width.next_multiple_of(LANES))
    }

    /// # Safety
    /// `start` points at as many floats as [`Sums::floats`] says.
    pub unsafe fn at(shape: &AttentionShape, start: *mut f32) -> Sums {
        let (width, value_width) =
            (shape.width.next_multiple_of(LANES), shape.value_width.next_multiple_of(LANES));
        // SAFETY: the caller's.
        let v = unsafe { start.add(shape.keys * width) };
        Sums { k: Out { ptr: start, row: width }, v: Out { ptr: v, row: value_width } }
    }
}

/// Writes the cotangent of some queries and adds to those of the keys and values.
///
/// # Safety
/// `memory` holds the slots of a validated launch, of which nobody else writes these rows; `scratch` has as many floats
/// as [`scratch`] says, and `sums` is the task's own; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn block<L: Lanes>(
    launch: &AttentionGrad,
    memory: &Memory,
    rows: &Rows,
    sums: Sums,
    scratch: *mut f32,
) {
    let shape = &launch.shape;
    let (width, value_width) = (shape.width, shape.value_width);
    let group = rows.group(shape);
    // SAFETY: the caller's; keys and values are read inside their validated extents.
    unsafe {
        let queries = scratch;
        let ct_queries = queries.add(width * ROWS);
        let ct_result = ct_queries.add(width * ROWS);
        let weights = ct_result.add(value_width * ROWS);
        let ct_scores = weights.add(KEYS.max(value_width) * ROWS);
        let query_rows = ct_scores.add(KEYS * ROWS);
        let ct_rows = query_rows.add(sums.k.row * ROWS);
        let packed_keys = ct_rows.add(sums.v.row * ROWS);
        let packed_values = packed_keys.add(sums.k.row * KEYS);
        rows.pack_lanes::<L>(shape, memory, &launch.q, (width, shape.scale * LOG2_E), queries);
        rows.pack_rows(shape, memory, &launch.q, (width, sums.k.row), query_rows);
        rows.pack_lanes::<L>(shape, memory, &launch.ct_out, (value_width, 1.0), ct_result);
        rows.pack_rows(shape, memory, &launch.ct_out, (value_width, sums.v.row), ct_rows);
        std::slice::from_raw_parts_mut(ct_queries, width * ROWS).fill(0.0);
        // Where the weights go later; the result itself is needed only for its products with the cotangent.
        rows.pack_lanes::<L>(shape, memory, &launch.out, (value_width, 1.0), weights);
        let mut delta = [0.0f32; ROWS];
        for group in 0..ROWS / LANES {
            let mut sum = L::splat(0.0);
            for d in 0..value_width {
                let at = d * ROWS + group * LANES;
                sum = L::load(ct_result.add(at)).fma(L::load(weights.add(at)), sum);
            }
            sum.store(delta.as_mut_ptr().add(group * LANES));
        }
        let mut lse = [0.0f32; ROWS];
        let from = memory.at(&launch.lse).cast_const().add(rows.first_of_all(shape));
        for (row, lse) in lse[..rows.count].iter_mut().enumerate() {
            *lse = *from.add(row) * LOG2_E;
        }
        let sight = rows.sight(shape, memory);
        let (k, v) = (memory.head(&launch.k, rows.batch, group), memory.head(&launch.v, rows.batch, group));
        let keys = sight.keys();
        for start in (keys.start..keys.end).step_by(KEYS) {
            let mut strips = NO_STRIPS;
            let count = KEYS.min(keys.end - start);
            let found = sight.strips(start, count, &mut strips);
            if found == 0 {
                continue;
            }
            let k = pack::<L>(Left { ptr: k.ptr.add(start * k.row), ..k }, count, width, packed_keys);
            let v = Left { ptr: v.ptr.add(start * v.row), ..v };
            let v = pack::<L>(v, count, value_width, packed_values);
            for strip in &strips[..found] {
                let first = strip.keys.start;
                let (lanes, row) = (strip.groups.start * LANES, first * ROWS);
                let (count, groups) = (strip.keys.len(), strip.groups.len());
                let (k, v) = (
                    Left { ptr: k.ptr.add(first * k.row), ..k },
                    Left { ptr: v.ptr.add(first * v.row), ..v },
                );
                let right = |from: *mut f32| Right { ptr: from.add(lanes), row: ROWS };
                let block = |of: *mut f32| Out { ptr: of.add(row + lanes), row: ROWS };
                L::product([count, groups, width], k, right(queries), block(weights), false);
                if !strip.full {
                    sight.hide(start, strip, weights);
                }
                L::product([count, groups, value_width], v, right(ct_result), block(ct_scores), false);
                for group in strip.groups.clone() {
                    let lse = L::load(lse.as_ptr().add(group * LANES));
                    let delta = L::load(delta.as_ptr().add(group * LANES));
                    for key in strip.keys.clone() {
                        let at = key * ROWS + group * LANES;
                        let weight = L::load(weights.add(at)).sub(lse).exp2();
                        let ct = L::load(ct_scores.add(at)).sub(delta);
                        weight.store(weights.add(at));
                        weight.mul(ct).store(ct_scores.add(at));
                    }
                }
                let left = |of: *mut f32| Left { ptr: of.add(row + lanes), row: ROWS, column: 1 };
                let rows_of = |of: *mut f32, row: usize| Right { ptr: of.add(lanes * row), row };
                let added = |to: Out| Out { ptr: to.ptr.add((start + first) * to.row), ..to };
                let terms = groups * LANES;
                if launch.ct_v.is_some() {
                    let extents = [count, sums.v.row / LANES, terms];
                    L::product(extents, left(weights), rows_of(ct_rows, sums.v.row), added(sums.v), true);
                }
                if launch.ct_k.is_some() {
                    let extents = [count, sums.k.row / LANES, terms];
                    let b = rows_of(query_rows, sums.k.row);
                    L::product(extents, left(ct_scores), b, added(sums.k), true);
                }
                let keys = Left { row: k.column, column: k.row, ..k };
                let b = Right { ptr: ct_scores.add(row + lanes), row: ROWS };
                let c = Out { ptr: ct_queries.add(lanes), row: ROWS };
                L::product([width, groups, count], keys, b, c, true);
            }
        }
        let Some(ct_q) = &launch.ct_q else { return };
        rows.unpack_lanes::<L>(shape, memory, ct_q, (width, shape.scale), ct_queries);
    }
}

/// Adds the sums of all tasks of a head, in order, for some of its keys and writes their cotangents.
///
/// # Safety
/// `parts` are the sums of all blocks, `keys` lies in the shape and belongs to this task alone.
#[inline(always)]
pub unsafe fn finish(
    launch: &AttentionGrad,
    memory: &Memory,
    (batch, group): (usize, usize),
    keys: std::ops::Range<usize>,
    (first, parts): (*mut f32, usize),
) {
    let shape = &launch.shape;
    // SAFETY: the caller's.
    unsafe {
        let first_sums = Sums::at(shape, first);
        let sides = [
            (&launch.ct_k, first_sums.k, shape.width, shape.scale),
            (&launch.ct_v, first_sums.v, shape.value_width, 1.0),
        ];
        for (heads, sums, width, factor) in sides {
            let Some(heads) = heads else { continue };
            let to = memory.at(&heads.slot).add(batch * heads.batch + group * heads.head);
            for key in keys.clone() {
                let start = sums.ptr.add(key * sums.row);
                let total = std::slice::from_raw_parts_mut(start, sums.row);
                for part in 1..parts {
                    let part = start.add(part * Sums::floats(shape));
                    let part = std::slice::from_raw_parts(part, sums.row);
                    total.iter_mut().zip(part).for_each(|(total, x)| *total += x);
                }
                let to = to.add(key * heads.token);
                if heads.element == 1 {
                    let to = std::slice::from_raw_parts_mut(to, width);
                    to.iter_mut().zip(&*total).for_each(|(to, x)| *to = x * factor);
                } else {
                    for (d, x) in total[..width].iter().enumerate() {
                        *to.add(d * heads.element) = x * factor;
                    }
                }
            }
        }
    }
}
