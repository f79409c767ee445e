//! From exponentials to cotangents: those of the logits block by block, and their products with x and w.

use std::ops::Range;

use super::cut::PANEL;
use super::{Kernel, STRIP};
use crate::lanes::{LANES, Lanes, fetch};
use crate::product::{Left, Out, Right};

impl Kernel<'_> {
    /// Adds what a group of blocks says of a chunk of tokens: to the cotangent of its rows of w, and to a part of that of x.
    #[inline(always)]
    pub unsafe fn backward<L: Lanes>(&self, worker: usize, tokens: Range<usize>, group: usize) {
        let Some(grad) = self.launch.grad else { return };
        let (cut, places) = (&self.cut, &self.places);
        let own = places.own(cut, worker);
        // SAFETY: the caller's; blocks of the scratch and rows of the cotangent of w are this task's own.
        unsafe {
            let part = places.parts.wrapping_add(group * cut.width * cut.stride);
            for (done, block) in cut.group(group).enumerate() {
                let rows = cut.block(block);
                self.cotangents_of_logits::<L>(&tokens, block, own.block);
                if let Some(ct_w) = &grad.ct_w {
                    let to = self.memory.at(ct_w).add(rows.start * cut.width);
                    self.add_to_w::<L>(&tokens, rows.clone(), (own.block, own.tail), to);
                }
                if grad.ct_x.is_some() {
                    self.pack_block(rows.clone(), own.w);
                    self.add_to_x::<L>(&tokens, rows.len(), (own.block, own.w), (part, done > 0));
                }
            }
        }
    }

    /// `ct (softmax - one-hot)` of a block, `[row of w, token]`.
    #[inline(always)]
    unsafe fn cotangents_of_logits<L: Lanes>(&self, tokens: &Range<usize>, block: usize, to: *mut f32) {
        let (cut, places) = (&self.cut, &self.places);
        let Some(grad) = self.launch.grad else { return };
        let rows = cut.block(block);
        // SAFETY: the caller's.
        unsafe {
            let factors = places.largest.add(block * cut.stride);
            let from = places.kept.add(rows.start * cut.stride);
            for row in 0..rows.len() {
                for lanes in (0..self.panels(tokens) * PANEL).step_by(LANES) {
                    let at = row * cut.stride + lanes;
                    L::load(from.add(at)).mul(L::load(factors.add(lanes))).store(to.add(at));
                }
            }
            for (index, token) in tokens.clone().enumerate() {
                if let Some(target) = self.target(token).filter(|target| rows.contains(target)) {
                    let ct = *self.memory.at(&grad.ct.slot).add(token * grad.ct.stride);
                    *to.add((target - rows.start) * cut.stride + index) -= ct;
                }
            }
        }
    }

    /// Adds the product of a block's cotangents with x to `to`, `[rows, D]`, which the first chunk writes. What that reads,
    /// and the next block, comes from memory meanwhile.
    #[inline(always)]
    unsafe fn add_to_w<L: Lanes>(
        &self,
        tokens: &Range<usize>,
        rows: Range<usize>,
        (block, tail): (*const f32, *mut f32),
        to: *mut f32,
    ) {
        let (cut, adds) = (&self.cut, tokens.start > 0);
        let terms = self.panels(tokens) * PANEL;
        let whole = cut.width / LANES * LANES;
        let (w, next) = (&self.launch.w, rows.end);
        let rows = rows.len();
        let strips = rows.div_ceil(STRIP);
        let share = rows.div_ceil(strips * cut.lanes().div_ceil(PANEL));
        let mut asked = next..(next + rows).min(cut.vocabulary);
        // SAFETY: the caller's.
        unsafe {
            for features in (0..cut.lanes()).step_by(PANEL) {
                let wide = PANEL.min(cut.lanes() - features);
                let b = Right { ptr: self.places.rows.add(features * cut.chunk), row: wide };
                // Lanes that the result has in full go there at once.
                let groups = wide.min(whole - features) / LANES;
                for first in (0..rows).step_by(STRIP) {
                    let count = STRIP.min(rows - first);
                    for row in first + count..rows.min(first + 2 * STRIP) {
                        fetch(to.wrapping_add(row * cut.width + features), wide);
                    }
                    for row in asked.by_ref().take(share) {
                        fetch(self.memory.at(&w.slot).wrapping_add(row * w.stride), cut.width);
                        fetch(self.places.kept.wrapping_add(row * cut.stride), terms);
                    }
                    let a = Left { ptr: block.add(first * cut.stride), row: cut.stride, column: 1 };
                    let c = Out { ptr: to.add(first * cut.width + features), row: cut.width };
                    if groups > 0 {
                        L::product([count, groups, terms], a, b, c, adds);
                    }
                }
                if whole < cut.width && features + wide == cut.lanes() {
                    let a = Left { ptr: block, row: cut.stride, column: 1 };
                    let b = Right { ptr: b.ptr.add(groups * LANES), row: wide };
                    L::product([rows, 1, terms], a, b, Out { ptr: tail, row: LANES }, false);
                    for row in 0..rows {
                        for feature in whole..cut.width {
                            let (x, to) =
                                (*tail.add(row * LANES + feature - whole), to.add(row * cut.width + feature));
                            *to = if adds { *to + x } else { x };
                        }
                    }
                }
            }
        }
    }

    /// Writes the product of a block's cotangents with its rows of w to `part`, `[D, token]`, or adds it to that, which comes
    /// from memory meanwhile.
    #[inline(always)]
    unsafe fn add_to_x<L: Lanes>(
        &self,
        tokens: &Range<usize>,
        rows: usize,
        (block, w): (*const f32, *const f32),
        (part, adds): (*mut f32, bool),
    ) {
        let cut = &self.cut;
        // SAFETY: the caller's.
        unsafe {
            for panel in 0..self.panels(tokens) {
                let b = Right { ptr: block.add(panel * PANEL), row: cut.stride };
                let part = part.add(panel * PANEL);
                for first in (0..cut.width).step_by(STRIP) {
                    let count = STRIP.min(cut.width - first);
                    for feature in first + count..cut.width.min(first + 2 * STRIP) {
                        fetch(part.wrapping_add(feature * cut.stride), PANEL);
                    }
                    let a = Left { ptr: w.add(first), row: 1, column: cut.row() };
                    let c = Out { ptr: part.add(first * cut.stride), row: cut.stride };
                    L::product([count, PANEL / LANES, rows], a, b, c, adds);
                }
            }
        }
    }

    /// Adds the parts of the cotangent of x, in order, for a panel of tokens.
    pub unsafe fn finish(&self, tokens: Range<usize>, panel: usize) {
        let cut = &self.cut;
        let Some(ct_x) = self.launch.grad.and_then(|grad| grad.ct_x) else { return };
        let first = panel * PANEL;
        let count = PANEL.min(tokens.len() - first);
        // SAFETY: the caller's; the tokens are this task's own.
        unsafe {
            let to = self.memory.at(&ct_x).add((tokens.start + first) * cut.width);
            for features in (0..cut.width).step_by(LANES) {
                let wide = LANES.min(cut.width - features);
                let mut totals = [[0.0f32; PANEL]; LANES];
                for group in 0..cut.groups() {
                    let part = self.places.parts.add((group * cut.width + features) * cut.stride + first);
                    for (feature, total) in totals[..wide].iter_mut().enumerate() {
                        let part = std::slice::from_raw_parts(part.add(feature * cut.stride), PANEL);
                        total.iter_mut().zip(part).for_each(|(total, x)| *total += x);
                    }
                }
                // A line of each token at a time: single numbers would drive each other's lines out of the cache.
                for token in 0..count {
                    let to = std::slice::from_raw_parts_mut(to.add(token * cut.width + features), wide);
                    to.iter_mut().zip(&totals).for_each(|(to, total)| *to = total[token]);
                }
            }
        }
    }
}
