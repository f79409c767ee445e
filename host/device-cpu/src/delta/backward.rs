//! A head through all its chunks, forward and then back: errors and the state before each chunk are computed again, then
//! cotangents go from the last chunk to the first.
//!
//! Per chunk, with the letters of `chunk` and `forward`, S the state before it [V, K] and ct_S' the cotangent of the one
//! after it:
//! - ct_U = P' ct_O + (z K) ct_S'^T, and R solves R = ct_U + N' (beta R); then ct_V = beta R, ct_beta = R . Y;
//! - ct_Q = a ct_O S + (ct_O U' D) K;
//! - ct_K = -a ct_V S + z U ct_S' + (ct_O U' D)' Q - M K - M' K with M = ct_V U' D below the diagonal;
//! - ct_S = a ct_O' Q - a ct_V' K + (decay across the chunk) ct_S'.
//!
//! Each term with a decay, times that decay, is a cotangent of its exponent: see `gates`.

use plan::DeltaRuleGrad;

use crate::lanes::{LANES, Lanes};
use crate::place::Memory;
use crate::product::Left;

use super::block::{Block, Space};
use super::chunk::{Chunk, Head, add_lower, add_upper, columns_from, lower, rows_from};
use super::gates::Gates;
use super::solve::solve;
use super::{CHUNK, Part, forward};

/// Scratch of a task.
struct Scratch {
    chunk: Chunk,
    gates: Gates,
    /// What tokens write, [C, V], and its transpose.
    written: Block,
    written_turned: Block,
    ct_out: Block,
    /// ct_U, then R.
    ct_written: Block,
    ct_v: Block,
    /// ct_O U' and ct_V U', then times D.
    ct_weights: Block,
    ct_overlaps: Block,
    ct_q: Block,
    ct_k: Block,
    /// A product on its way to one of those.
    product: Block,
    /// [V, K].
    state: Block,
    /// Of the state, as [K, V] and [V, K].
    ct_state: Block,
    ct_turned: Block,
    /// The state [K, V] before each chunk, one after another.
    states: Block,
    /// Errors of all tokens.
    errors: Block,
}

impl Scratch {
    fn new(space: &mut Space, chunks: usize, key_row: usize, value_row: usize) -> Scratch {
        let chunk = Chunk::new(space, key_row);
        let gates = Gates::new(space);
        let [written, ct_out, ct_written, ct_v] = [(); 4].map(|()| space.block(CHUNK, value_row));
        let [ct_weights, ct_overlaps] = [(); 2].map(|()| space.block(CHUNK, CHUNK));
        let [ct_q, ct_k, product] = [(); 3].map(|()| space.block(CHUNK, key_row));
        let [state, ct_turned] = [(); 2].map(|()| space.block(value_row, key_row));
        Scratch {
            chunk,
            gates,
            written,
            written_turned: space.block(value_row, CHUNK),
            ct_out,
            ct_written,
            ct_v,
            ct_weights,
            ct_overlaps,
            ct_q,
            ct_k,
            product,
            state,
            ct_state: space.block(key_row, value_row),
            ct_turned,
            states: space.block(chunks * key_row, value_row),
            errors: space.block(chunks * CHUNK, value_row),
        }
    }
}

/// Floats that [`task`] needs for heads of so many chunks and these padded widths.
pub fn scratch(chunks: usize, key_row: usize, value_row: usize) -> usize {
    Space::count(|space| Scratch::new(space, chunks, key_row, value_row))
}

/// Where cotangents go that all value columns add to: q, k, log_alpha, beta.
pub type Sinks = [Option<Left>; 4];

/// # Safety
/// `memory` holds the slots of a validated launch, of which nobody else writes these columns, nor the sinks; `scratch`
/// has as many floats as [`scratch`] says; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn task<L: Lanes>(
    launch: &DeltaRuleGrad,
    memory: &Memory,
    part: &Part,
    sinks: &Sinks,
    scratch: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let head = Head::new(&launch.shape, &launch.operands, memory, part);
        let s = Scratch::new(&mut Space(scratch), head.chunks(), head.key_row, head.value_row);
        let columns = |heads| columns_from(memory.head(heads, part.batch, part.head), part.columns.start);
        let rows = |heads| rows_from(memory.head(heads, part.batch, part.head), part.columns.start);
        forward::read_state::<L>(&head, s.state, s.states);
        for index in 0..head.chunks() {
            let (first, count) = head.tokens_of(index);
            let across = s.chunk.load_keys::<L>(&head, first, count);
            let (before, errors) = (s.states.at(index * head.key_row, 0), s.errors.at(first, 0));
            forward::write::<L>(&head, &s.chunk, (first, count), before, errors, s.written);
            if index + 1 < head.chunks() {
                let after = before.at(head.key_row, 0);
                forward::advance::<L>(&head, &s.chunk, (count, across), s.written, [before, after]);
            }
        }
        match &launch.ct_last {
            Some(ct) => {
                let ct = Head { state: rows(ct), ..head };
                forward::read_state::<L>(&ct, s.ct_turned, s.ct_state);
            }
            None => {
                s.ct_state.clear(0..head.key_row);
                s.ct_turned.clear(0..head.value_row);
            }
        }
        for index in (0..head.chunks()).rev() {
            let (first, count) = head.tokens_of(index);
            match &launch.ct_out {
                Some(ct) => s.ct_out.fill::<L>(rows_from(columns(ct), first), count, head.values),
                None => s.ct_out.clear(0..CHUNK),
            }
            chunk::<L>(&head, &s, (index, first, count));
            let [ct_q, ct_k, ct_log_alpha, ct_beta] = sinks.map(|to| to.map(|to| rows_from(to, first)));
            for (from, to) in [(s.ct_q, ct_q), (s.ct_k, ct_k)] {
                to.iter().for_each(|to| from.write::<L>(*to, count, head.width));
            }
            if let Some(to) = &launch.cts[2] {
                s.ct_v.write::<L>(rows_from(columns(to), first), count, head.values);
            }
            for (from, to) in [(s.gates.ct_steps, ct_log_alpha), (s.gates.ct_beta, ct_beta)] {
                let Some(to) = to else { continue };
                (0..count).for_each(|i| *to.ptr.cast_mut().add(i * to.row) = *from.add(i));
            }
        }
        if let Some(to) = &launch.cts[5] {
            s.ct_turned.write::<L>(rows(to), head.values, head.width);
        }
    }
}

/// One chunk, whose cotangent of the result is there.
#[inline(always)]
unsafe fn chunk<L: Lanes>(head: &Head, s: &Scratch, (index, first, count): (usize, usize, usize)) {
    let (key_groups, value_groups) = (head.key_row / LANES, head.value_row / LANES);
    let (of_keys, of_values) = ([count, key_groups, head.values], [count, value_groups, head.width]);
    let (before, errors) = (s.states.at(index * head.key_row, 0), s.errors.at(first, 0));
    let Scratch { chunk, gates, written, ct_out, ct_written, ct_v, ct_weights, ct_overlaps, .. } = *s;
    // SAFETY: the caller's.
    unsafe {
        let across = chunk.load_keys::<L>(head, first, count);
        chunk.load_queries::<L>(head, first, count);
        before.turn::<L>([key_groups, value_groups], s.state);
        errors.scale::<L>(count, chunk.beta, written);
        written.clear(count..count.next_multiple_of(LANES));
        written.turn::<L>([count.div_ceil(LANES), value_groups], s.written_turned);

        L::product(of_values, chunk.k_end.left(), s.ct_state.right(), ct_written.out(), false);
        add_upper::<L>([count, value_groups], chunk.weights, ct_out, ct_written);
        solve::<L, true>([count, value_groups], chunk.overlaps, chunk.beta, ct_written, ct_v);
        gates.of_rates::<L>(count, ct_written, errors);

        lower::<L>([count, head.values], ct_out, s.written_turned, ct_weights);
        lower::<L>([count, head.values], ct_v, s.written_turned, ct_overlaps);
        gates.between::<L>(count, &chunk, ct_weights, ct_overlaps);

        L::product(of_keys, ct_out.left(), s.state.right(), s.product.out(), false);
        gates.since_start::<L>(count, (chunk.since, s.product), (chunk.q, s.ct_q), false);
        add_lower::<L>([count, key_groups], ct_weights, chunk.k, s.ct_q);

        L::product(of_keys, ct_v.left(), s.state.right(), s.product.out(), false);
        gates.since_start::<L>(count, (chunk.minus_since, s.product), (chunk.k, s.ct_k), true);
        L::product(of_keys, written.left(), s.ct_turned.right(), s.product.out(), false);
        gates.until_end::<L>(count, (chunk.until, s.product), (chunk.k, s.ct_k));
        add_upper::<L>([count, key_groups], ct_weights, chunk.q, s.ct_k);
        add_lower::<L>([count, key_groups], ct_overlaps, chunk.k, s.ct_k);
        add_upper::<L>([count, key_groups], ct_overlaps, chunk.k, s.ct_k);
        gates.finish::<L>(count, across, (before, s.ct_state, head.key_row));

        s.ct_state.scale_all::<L>(head.key_row, across, s.ct_state);
        let extents = [head.width, value_groups, count];
        L::product(extents, chunk.q_start.turned(), ct_out.right(), s.ct_state.out(), true);
        L::product(extents, chunk.k_start.turned(), ct_v.right(), s.ct_state.out(), true);
        s.ct_state.turn::<L>([key_groups, value_groups], s.ct_turned);
    }
}
