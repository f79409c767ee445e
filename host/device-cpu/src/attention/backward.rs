//! Cotangents of queries, keys and values: for each block of queries the weights are formed again from the log-sum-exp
//! of its rows (Dao et al. 2022, arXiv 2205.14135, algorithm 4).
//!
//! A task goes through some blocks of queries of one sequence and key head, in order, and adds up the cotangents of all
//! its keys and values in memory of its own, so five products of queries times keys do. Where there are fewer heads
//! than tasks wanted, the blocks of a head are dealt out to several tasks, whose sums are added at the end in order.

use std::f32::consts::LOG2_E;

use plan::{AttentionGrad, AttentionShape};

use super::packed::Packed;
use super::rows::Rows;
use super::sight::{Span, Spans};
use super::{GROUPS, KEYS, ROWS};
use crate::held::{HELD, Numbers, add_rows, each_row};
use crate::lanes::{LANES, Lanes};
use crate::place::Memory;
use crate::product::Out;

/// Floats that [`block`] needs.
pub fn scratch(shape: &AttentionShape) -> usize {
    let (width, value_width) = (shape.width.next_multiple_of(HELD), shape.value_width.next_multiple_of(HELD));
    let in_lanes = 2 * width + 2 * value_width;
    (in_lanes + width + value_width) * ROWS + 2 * LANES * KEYS
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
/// `memory` holds the slots of a validated launch, of which nobody else writes these rows; `packed` is of their head;
/// `scratch` has as many floats as [`scratch`] says, and `sums` is the task's own; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn block<L: Lanes>(
    launch: &AttentionGrad,
    memory: &Memory,
    rows: &Rows,
    packed: &Packed<'_>,
    sums: Sums,
    scratch: *mut f32,
) {
    let shape = &launch.shape;
    let (width, value_width) = (sums.k.row, sums.v.row);
    // SAFETY: the caller's; keys and values are read inside their validated extents.
    unsafe {
        let queries = scratch;
        let ct_queries = queries.add(width * ROWS);
        let ct_result = ct_queries.add(width * ROWS);
        let result = ct_result.add(value_width * ROWS);
        let query_rows = result.add(value_width * ROWS);
        let ct_rows = query_rows.add(width * ROWS);
        let weights = ct_rows.add(value_width * ROWS);
        let ct_scores = weights.add(KEYS * LANES);
        rows.pack_lanes::<L>(shape, memory, &launch.q, (shape.width, shape.scale * LOG2_E), queries);
        rows.pack_rows::<L>(shape, memory, &launch.q, shape.width, query_rows);
        rows.pack_lanes::<L>(shape, memory, &launch.ct_out, (shape.value_width, 1.0), ct_result);
        rows.pack_rows::<L>(shape, memory, &launch.ct_out, shape.value_width, ct_rows);
        rows.pack_lanes::<L>(shape, memory, &launch.out, (shape.value_width, 1.0), result);
        std::slice::from_raw_parts_mut(ct_queries, width * ROWS).fill(0.0);
        let mut lse = [0.0f32; ROWS];
        let from = memory.at(&launch.lse).cast_const().add(rows.first_of_all(shape));
        for (row, lse) in lse[..rows.count].iter_mut().enumerate() {
            *lse = *from.add(row) * LOG2_E;
        }
        let mut of_groups = [(L::splat(0.0), L::splat(0.0)); GROUPS];
        for (group, (shift, delta)) in of_groups.iter_mut().enumerate() {
            *shift = L::splat(0.0).sub(L::load(lse.as_ptr().add(group * LANES)));
            let mut sum = L::splat(0.0);
            for d in 0..value_width {
                let at = d * ROWS + group * LANES;
                sum = L::load(ct_result.add(at)).fma(L::load(result.add(at)), sum);
            }
            *delta = L::splat(0.0).sub(sum);
        }
        let sight = rows.sight(shape, memory);
        let keys = sight.keys();
        for start in (keys.start..keys.end).step_by(KEYS) {
            let count = KEYS.min(keys.end - start);
            let seen: [Spans; GROUPS] = std::array::from_fn(|group| sight.spans(group, start, count));
            if seen.iter().all(Spans::is_empty) {
                continue;
            }
            let (k, v) = packed.block::<L>(start..start + count);
            for (group, spans) in seen.iter().enumerate() {
                let lanes = group * LANES;
                let (shift, delta) = of_groups[group];
                for Span { keys, full } in spans.iter() {
                    let (count, first) = (keys.len(), keys.start);
                    let (k, v) = (k.from(first), v.from(first));
                    let held = |from: *mut f32| (from.add(lanes).cast_const(), ROWS);
                    let weight = |score: L| score.exp2();
                    match full {
                        true => sums_of::<L>(count, k, held(queries), width, shift, weights, |_, score| {
                            weight(score)
                        }),
                        false => {
                            sums_of::<L>(count, k, held(queries), width, shift, weights, |_, score| score);
                            sight.hide::<L>(group, start + first, 0..count, weights);
                            for key in 0..count {
                                let at = weights.add(key * LANES);
                                weight(L::load(at)).store(at);
                            }
                        }
                    }
                    let of_weight = |key: usize, ct: L| L::load(weights.add(key * LANES)).mul(ct);
                    sums_of::<L>(count, v, held(ct_result), value_width, delta, ct_scores, of_weight);
                    let row = |of: Out| Out { ptr: of.ptr.add((start + first) * of.row), ..of };
                    if launch.ct_v.is_some() {
                        add_outer::<L>(
                            count,
                            weights,
                            (ct_rows.add(lanes * value_width), value_width),
                            row(sums.v),
                        );
                    }
                    if launch.ct_k.is_some() {
                        add_outer::<L>(count, ct_scores, (query_rows.add(lanes * width), width), row(sums.k));
                    }
                    for d in (0..width).step_by(HELD) {
                        let c = Out { ptr: ct_queries.add(d * ROWS + lanes), row: ROWS };
                        add_rows::<L>(count, k.at(0, d), ct_scores, c);
                    }
                }
            }
        }
        let Some(ct_q) = &launch.ct_q else { return };
        rows.unpack_lanes::<L>(shape, memory, ct_q, (shape.width, shape.scale), ct_queries);
    }
}

/// `to[j] = done(j, first + sum over d of a[j, d] b[d])`.
#[inline(always)]
unsafe fn sums_of<L: Lanes>(
    count: usize,
    a: Numbers,
    (b, b_row): (*const f32, usize),
    width: usize,
    first: L,
    to: *mut f32,
    done: impl Fn(usize, L) -> L,
) {
    // SAFETY: the caller's.
    unsafe {
        for d in (0..width).step_by(HELD) {
            let (a, b) = (a.at(0, d), (b.add(d * b_row), b_row));
            let begin = |_| first;
            let load = |row: usize| L::load(to.add(row * LANES));
            let store = |row: usize, sum: L| sum.store(to.add(row * LANES));
            let last = |row: usize, sum: L| done(row, sum).store(to.add(row * LANES));
            match (d == 0, d + HELD == width) {
                (true, true) => each_row::<L>(count, a, b, begin, last),
                (true, false) => each_row::<L>(count, a, b, begin, store),
                (false, false) => each_row::<L>(count, a, b, load, store),
                (false, true) => each_row::<L>(count, a, b, load, last),
            }
        }
    }
}

/// `c[j] += sum over lanes of a[j, lane] b[lane]`, for rows of `a` with a number for each lane.
#[inline(always)]
unsafe fn add_outer<L: Lanes>(count: usize, a: *const f32, (b, b_row): (*const f32, usize), c: Out) {
    // SAFETY: the caller's.
    unsafe {
        for d in (0..c.row).step_by(LANES) {
            let at = |row: usize| c.ptr.add(row * c.row + d);
            let a = Numbers { ptr: a, row: LANES };
            each_row::<L>(count, a, (b.add(d), b_row), |row| L::load(at(row)), |row, sum| sum.store(at(row)));
        }
    }
}

/// Adds the sums of all tasks of a head, in order, for some of its keys and writes their cotangents.
///
/// # Safety
/// `parts` are the sums of all blocks, `keys` lies in the shape and belongs to this task alone; the instruction set of `L`
/// is there.
#[inline(always)]
pub unsafe fn finish<L: Lanes>(
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
            let whole = if heads.element == 1 { width / LANES * LANES } else { 0 };
            for key in keys.clone() {
                let start = sums.ptr.add(key * sums.row);
                let to = to.add(key * heads.token);
                for part in 1..parts {
                    let part = start.add(part * Sums::floats(shape));
                    for d in (0..sums.row).step_by(LANES) {
                        L::load(start.add(d)).add(L::load(part.add(d))).store(start.add(d));
                    }
                }
                for d in (0..whole).step_by(LANES) {
                    L::load(start.add(d)).mul(L::splat(factor)).store(to.add(d));
                }
                for d in whole..width {
                    *to.add(d * heads.element) = *start.add(d) * factor;
                }
            }
        }
    }
}
