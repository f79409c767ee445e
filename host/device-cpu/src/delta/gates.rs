//! Cotangents of log decays and rates within a chunk.
//!
//! A term that decays from token j to token i has the steps j + 1 to i as exponents, so its cotangent adds to each of
//! them; one from the state before the chunk to those up to i, one to the state after it to those after j, and what
//! crosses the chunk to all. These sums are formed as they stand: as differences of running sums they would lose, beside
//! strong decay, what is small in them.

use crate::lanes::{LANES, Lanes};

use super::CHUNK;
use super::block::{Block, Space, row_sums};
use super::chunk::Chunk;

/// For each token of a group of lanes: 1 in the lanes of those before it.
const BEFORE: [[f32; LANES]; LANES] = {
    let mut rows = [[0.0; LANES]; LANES];
    let mut index = 0;
    while index < LANES * LANES {
        if index % LANES < index / LANES {
            rows[index / LANES][index % LANES] = 1.0;
        }
        index += 1;
    }
    rows
};

/// Scratch: for each token of a chunk a number, or lanes of which it is the sum.
#[derive(Clone, Copy)]
pub struct Gates {
    /// Results: of log_alpha and of beta.
    pub ct_steps: *mut f32,
    pub ct_beta: *mut f32,
    /// Of what decays between two tokens, [C, C]: to the row's token from the column's.
    between: Block,
    since_start: Block,
    until_end: Block,
    /// Of sums on their way.
    lanes: Block,
}

impl Gates {
    pub fn new(space: &mut Space) -> Gates {
        let [ct_steps, ct_beta] = [(); 2].map(|()| space.take(CHUNK));
        let between = space.block(CHUNK, CHUNK);
        let [since_start, until_end, lanes] = [(); 3].map(|()| space.block(CHUNK, LANES));
        Gates { ct_steps, ct_beta, between, since_start, until_end, lanes }
    }

    /// ct_beta: each row of `cts` times the error of its token.
    ///
    /// # Safety
    /// Here and below: blocks have `count` rows, the chunk is loaded, the instruction set of `L` is there.
    #[inline(always)]
    pub unsafe fn of_rates<L: Lanes>(&self, count: usize, cts: Block, errors: Block) {
        // SAFETY: the caller's.
        unsafe {
            for i in 0..count {
                let (ct, error) = (cts.at(i, 0).ptr, errors.at(i, 0).ptr);
                let mut sum = L::splat(0.0);
                for d in (0..cts.row).step_by(LANES) {
                    sum = L::load(ct.add(d)).fma(L::load(error.add(d)), sum);
                }
                sum.store(self.lanes.at(i, 0).ptr);
            }
            self.sum::<L>(count, self.lanes, self.ct_beta);
        }
    }

    /// From the cotangents of weights and (negated) overlaps, without decays: what decays between tokens. Afterwards they
    /// are times the decays, and the latter negated and without the diagonal.
    ///
    /// # Safety
    /// See [`Gates::of_rates`].
    #[inline(always)]
    pub unsafe fn between<L: Lanes>(&self, count: usize, chunk: &Chunk, weights: Block, overlaps: Block) {
        // SAFETY: the caller's.
        unsafe {
            for i in 0..count {
                for j in (0..=i).step_by(LANES) {
                    let at = |block: Block| block.at(i, j).ptr;
                    let (ct_weight, ct_overlap) = (L::load(at(weights)), L::load(at(overlaps)));
                    let decay = L::load(at(chunk.decay));
                    let both = ct_weight.mul(L::load(at(chunk.weights)));
                    ct_overlap.fma(L::load(at(chunk.overlaps)), both).store(at(self.between));
                    ct_weight.mul(decay).store(at(weights));
                    ct_overlap.mul(decay).mul(L::splat(-1.0)).store(at(overlaps));
                }
                *overlaps.at(i, i).ptr = 0.0;
            }
        }
    }

    /// `x` times its factors is the part of the cotangent `to` of `rows` that comes from the state before the chunk. The
    /// second such part adds to what the first has left.
    ///
    /// # Safety
    /// See [`Gates::of_rates`].
    #[inline(always)]
    pub unsafe fn since_start<L: Lanes>(
        &self,
        count: usize,
        (factors, x): (*const f32, Block),
        (rows, to): (Block, Block),
        adds: bool,
    ) {
        // SAFETY: the caller's.
        unsafe {
            for i in 0..count {
                let factor = L::splat(*factors.add(i));
                let lanes = self.since_start.at(i, 0).ptr;
                let mut sum = if adds { L::load(lanes) } else { L::splat(0.0) };
                for d in (0..x.row).step_by(LANES) {
                    let term = L::load(x.at(i, d).ptr).mul(factor);
                    sum = term.fma(L::load(rows.at(i, d).ptr), sum);
                    term.store(to.at(i, d).ptr);
                }
                sum.store(lanes);
            }
        }
    }

    /// `x` times its factors is the part of the cotangent of `rows` that comes from the state after the chunk, and is
    /// added to it.
    ///
    /// # Safety
    /// See [`Gates::of_rates`].
    #[inline(always)]
    pub unsafe fn until_end<L: Lanes>(
        &self,
        count: usize,
        (factors, x): (*const f32, Block),
        (rows, to): (Block, Block),
    ) {
        // SAFETY: the caller's.
        unsafe {
            for i in 0..count {
                let factor = L::splat(*factors.add(i));
                let mut sum = L::splat(0.0);
                for d in (0..x.row).step_by(LANES) {
                    let term = L::load(x.at(i, d).ptr).mul(factor);
                    sum = term.fma(L::load(rows.at(i, d).ptr), sum);
                    let to = to.at(i, d).ptr;
                    L::load(to).add(term).store(to);
                }
                sum.store(self.until_end.at(i, 0).ptr);
            }
        }
    }

    /// ct_steps, after all of the above. `states` are the state before the chunk and the cotangent of the one after it,
    /// with their rows.
    ///
    /// # Safety
    /// See [`Gates::of_rates`].
    #[inline(always)]
    pub unsafe fn finish<L: Lanes>(&self, count: usize, across: f32, states: (Block, Block, usize)) {
        let mut since_start = [0.0f32; CHUNK];
        let mut until_end = [0.0f32; CHUNK];
        // SAFETY: the caller's.
        unsafe {
            self.sum::<L>(count, self.since_start, since_start.as_mut_ptr());
            self.sum::<L>(count, self.until_end, until_end.as_mut_ptr());
            self.crossing::<L>(count);
            let all = across * product_sum::<L>(states);
            let mut later = 0.0;
            for i in (0..count).rev() {
                later += since_start[i];
                *self.ct_steps.add(i) += later + all;
            }
            let mut earlier = 0.0;
            for (i, term) in until_end[..count].iter().enumerate() {
                *self.ct_steps.add(i) += earlier;
                earlier += term;
            }
        }
    }

    /// For each token: what decays from a token before it to itself or one after it.
    #[inline(always)]
    unsafe fn crossing<L: Lanes>(&self, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [L::splat(0.0); CHUNK / LANES];
            for i in (0..count).rev() {
                let last = i / LANES;
                let mut total = L::splat(0.0);
                for (group, sum) in sums[..=last].iter_mut().enumerate() {
                    *sum = sum.add(L::load(self.between.at(i, group * LANES).ptr));
                    let before =
                        if group < last { *sum } else { sum.mul(L::load(BEFORE[i % LANES].as_ptr())) };
                    total = total.add(before);
                }
                total.store(self.lanes.at(i, 0).ptr);
            }
            self.sum::<L>(count, self.lanes, self.ct_steps);
        }
    }

    #[inline(always)]
    unsafe fn sum<L: Lanes>(&self, count: usize, lanes: Block, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            for i in (0..count).step_by(LANES) {
                row_sums::<L>(lanes.at(i, 0).ptr).store(to.add(i));
            }
        }
    }
}

/// The sum over all elements of both.
#[inline(always)]
unsafe fn product_sum<L: Lanes>((x, y, rows): (Block, Block, usize)) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [L::splat(0.0); 4];
        for i in 0..rows {
            for d in (0..x.row).step_by(LANES) {
                let sum = &mut sums[(i * x.row + d) / LANES % 4];
                *sum = L::load(x.at(i, d).ptr).fma(L::load(y.at(i, d).ptr), *sum);
            }
        }
        let mut lanes = [0.0f32; LANES];
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).store(lanes.as_mut_ptr());
        lanes.iter().sum()
    }
}
