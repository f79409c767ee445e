//! From hidden states to losses: logits of a block, their exponentials, and what all blocks say of a token.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::cut::PANEL;
use super::{Kernel, STRIP, TERMS};
use crate::abreast::{Abreast, FUSES};
use crate::lanes::{LANES, Lanes, fetch};
use crate::math;
use crate::product::{Left, Out, Right};

/// Chains of maxima and sums side by side: one alone would wait for itself.
const CHAINS: usize = 4;

impl Kernel<'_> {
    /// A panel of x by columns, and by rows where the cotangent of w will need it. Missing tokens and features are 0.
    pub unsafe fn pack(&self, tokens: Range<usize>, panel: usize) {
        let (x, width) = (&self.launch.x, self.cut.width);
        // SAFETY: the caller's; a validated launch has these rows of x, and the panel is this task's own.
        unsafe {
            let from = self.memory.at(&x.slot).cast_const().add(tokens.start * x.stride);
            let first = panel * PANEL;
            let columns =
                std::slice::from_raw_parts_mut(self.places.columns.add(first * width), PANEL * width);
            for (feature, column) in columns.chunks_exact_mut(PANEL).enumerate() {
                for (index, to) in column.iter_mut().enumerate() {
                    let token = first + index;
                    *to = if token < tokens.len() { *from.add(token * x.stride + feature) } else { 0.0 };
                }
            }
            if self.launch.grad.is_none_or(|grad| grad.ct_w.is_none()) {
                return;
            }
            for features in (0..self.cut.lanes()).step_by(PANEL) {
                let wide = PANEL.min(self.cut.lanes() - features);
                let real = wide.min(width - features);
                for token in first..first + PANEL {
                    let to = self.places.rows.add(features * self.cut.chunk + token * wide);
                    let to = std::slice::from_raw_parts_mut(to, wide);
                    to.fill(0.0);
                    if token < tokens.len() {
                        let from = from.add(token * x.stride + features);
                        to[..real].copy_from_slice(std::slice::from_raw_parts(from, real));
                    }
                }
            }
        }
    }

    /// What the first pass leaves of a group of blocks. Tasks take groups, so that a block follows the one before.
    #[inline(always)]
    pub unsafe fn forward<L: Lanes>(&self, worker: usize, tokens: Range<usize>, group: usize) {
        for block in self.cut.group(group) {
            // SAFETY: the caller's.
            unsafe { self.exponentials::<L>(worker, &tokens, block) };
        }
    }

    /// Logits of a block as `[row of w, token]`, then their exponentials, with the largest and the sum for each token.
    #[inline(always)]
    unsafe fn exponentials<L: Lanes>(&self, worker: usize, tokens: &Range<usize>, block: usize) {
        let (cut, places, w) = (&self.cut, &self.places, &self.launch.w);
        let rows = cut.block(block);
        let own = places.own(cut, worker);
        let panels = self.panels(tokens);
        // What the next block reads comes from memory while this one is multiplied.
        let share = rows.len().div_ceil(panels * rows.len().div_ceil(STRIP));
        let mut asked = rows.end..cut.vocabulary.min(rows.end + rows.len());
        // SAFETY: the caller's; blocks of the scratch are this task's own.
        unsafe {
            let logits = match self.launch.grad {
                Some(_) => places.kept.add(rows.start * cut.stride),
                None => own.block,
            };
            self.pack_block(rows.clone(), own.w);
            for panel in 0..panels {
                let b = places.columns.add(panel * PANEL * cut.width);
                for first in (0..rows.len()).step_by(STRIP) {
                    for row in asked.by_ref().take(share) {
                        fetch(self.memory.at(&w.slot).wrapping_add(row * w.stride), cut.width);
                    }
                    let count = STRIP.min(rows.len() - first);
                    let c = Out { ptr: logits.add(first * cut.stride + panel * PANEL), row: cut.stride };
                    for term in (0..cut.width).step_by(TERMS) {
                        let terms = TERMS.min(cut.width - term);
                        let a = Left { ptr: own.w.add(first * cut.row() + term), row: cut.row(), column: 1 };
                        let b = Right { ptr: b.add(term * PANEL), row: PANEL };
                        L::product([count, PANEL / LANES, terms], a, b, c, term > 0);
                    }
                }
            }
            for (index, token) in tokens.clone().enumerate() {
                if let Some(target) = self.target(token).filter(|target| rows.contains(target)) {
                    *places.chosen.add(index) = *logits.add((target - rows.start) * cut.stride + index);
                }
            }
            for lanes in (0..panels * PANEL).step_by(LANES) {
                let (largest, sum) = weigh::<L>(logits.add(lanes), (rows.len(), cut.stride));
                let at = block * cut.stride + lanes;
                largest.store(places.largest.add(at));
                sum.store(places.sums.add(at));
            }
        }
    }

    /// The losses of a group of lanes, and for each block the factor that makes its exponentials cotangents of the logits.
    #[inline(always)]
    pub unsafe fn combine<L: Lanes>(&self, tokens: Range<usize>, first: usize) {
        let (stride, blocks) = (self.cut.stride, self.cut.blocks());
        // SAFETY: the caller's; the lanes are this task's own.
        unsafe {
            let (of_largest, of_sums) = (self.places.largest.add(first), self.places.sums.add(first));
            let mut largest = L::splat(-f32::MAX);
            for block in 0..blocks {
                largest = L::load(of_largest.add(block * stride)).max(largest);
            }
            let mut total = L::splat(0.0);
            for block in 0..blocks {
                let factor =
                    L::load(of_largest.add(block * stride)).sub(largest).mul(L::splat(LOG2_E)).exp2();
                total = L::load(of_sums.add(block * stride)).fma(factor, total);
                factor.store(of_largest.add(block * stride));
            }
            let (mut peaks, mut totals, mut shares) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
            largest.store(peaks.as_mut_ptr());
            total.store(totals.as_mut_ptr());
            let logs = math::log(Abreast::<_, FUSES>(totals)).0;
            for lane in 0..LANES.min(tokens.len().saturating_sub(first)) {
                let token = tokens.start + first + lane;
                let is_valid = self.target(token).is_some();
                if let Some(loss) = &self.launch.loss {
                    let distance = peaks[lane] - *self.places.chosen.add(first + lane);
                    *self.memory.at(loss).add(token) = if is_valid { logs[lane] + distance } else { 0.0 };
                }
                if let Some(grad) = self.launch.grad.filter(|_| is_valid) {
                    shares[lane] = *self.memory.at(&grad.ct.slot).add(token * grad.ct.stride) / totals[lane];
                }
            }
            if self.launch.grad.is_some() {
                let shares = L::load(shares.as_ptr());
                for block in 0..blocks {
                    let at = of_largest.add(block * stride);
                    L::load(at).mul(shares).store(at);
                }
            }
        }
    }
}

/// Makes the logits of sixteen tokens e^(logit - largest), and tells the largest and the sum of those.
///
/// # Safety
/// `logits` are `rows` times sixteen floats, `stride` apart; the instruction set of `L` is there.
#[inline(always)]
unsafe fn weigh<L: Lanes>(logits: *mut f32, (rows, stride): (usize, usize)) -> (L, L) {
    // SAFETY: the caller's.
    unsafe {
        // Not -inf, from which -inf could not be taken.
        let mut largest = [L::splat(-f32::MAX); CHAINS];
        for row in 0..rows {
            let chain = &mut largest[row % CHAINS];
            *chain = L::load(logits.add(row * stride)).max(*chain);
        }
        let [a, b, c, d] = largest;
        let largest = a.max(b).max(c.max(d));
        let mut sums = [L::splat(0.0); CHAINS];
        for row in 0..rows {
            let at = logits.add(row * stride);
            let weight = L::load(at).sub(largest).mul(L::splat(LOG2_E)).exp2();
            weight.store(at);
            sums[row % CHAINS] = sums[row % CHAINS].add(weight);
        }
        let [a, b, c, d] = sums;
        (largest, a.add(b).add(c.add(d)))
    }
}
