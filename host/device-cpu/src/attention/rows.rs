//! A block of query rows: where each lies, and packed copies of it with rows along the lanes or one after another.

use plan::{AttentionShape, Heads};

use super::ROWS;
use super::packed::fetch_rows;
use super::sight::{Integers, Sight};
use crate::held::HELD;
use crate::lanes::{LANES, Lanes};
use crate::place::Memory;

/// How the queries of a sequence are cut into blocks. Where a head has fewer queries than a block has rows, those of all
/// heads that share keys follow one another, so that few queries (a step of decoding) fill more lanes.
#[derive(Clone, Copy)]
pub struct Cut {
    /// Runs of rows, each with blocks of its own.
    pub runs: usize,
    pub rows: usize,
}

impl Cut {
    pub fn of(shape: &AttentionShape) -> Cut {
        match shape.queries < ROWS {
            true => Cut { runs: shape.groups, rows: shape.heads / shape.groups * shape.queries },
            false => Cut { runs: shape.heads, rows: shape.queries },
        }
    }

    /// Blocks of a run.
    pub fn blocks(self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// A block of a run, with its rows in the order [head, query] of a sequence.
    pub fn block(self, batch: usize, run: usize, block: usize) -> Rows {
        let first = block * ROWS;
        Rows { batch, first: run * self.rows + first, count: ROWS.min(self.rows - first) }
    }
}

/// Up to `ROWS` rows of one sequence that share keys and values.
#[derive(Clone, Copy)]
pub struct Rows {
    pub batch: usize,
    /// Number of the first row among [head, query].
    pub first: usize,
    pub count: usize,
}

impl Rows {
    /// Group of key and value heads.
    pub fn group(&self, shape: &AttentionShape) -> usize {
        self.first / shape.queries / (shape.heads / shape.groups)
    }

    /// Number of the first row among [batch, head, query].
    pub fn first_of_all(&self, shape: &AttentionShape) -> usize {
        self.batch * shape.heads * shape.queries + self.first
    }

    /// Where each row begins in a tensor.
    fn starts(&self, shape: &AttentionShape, heads: &Heads) -> [usize; ROWS] {
        let mut starts = [0; ROWS];
        let (mut head, mut token) = (self.first / shape.queries, self.first % shape.queries);
        for start in &mut starts[..self.count] {
            *start = self.batch * heads.batch + head * heads.head + token * heads.token;
            token += 1;
            if token == shape.queries {
                (head, token) = (head + 1, 0);
            }
        }
        starts
    }

    /// Asks for what the rows of the next head have in tensors of queries, and its keys at their tokens: heads lie side by
    /// side in a token, and a stride as long as a token is not foreseen by the hardware.
    #[inline(always)]
    pub fn fetch_next(
        &self,
        shape: &AttentionShape,
        memory: &Memory,
        of_queries: &[&Heads],
        of_keys: &[&Heads],
    ) {
        let (head, token) = (self.first / shape.queries + 1, self.first % shape.queries);
        if head == shape.heads || token + self.count > shape.queries {
            return;
        }
        let widest = shape.width.max(shape.value_width);
        for heads in of_queries {
            fetch_rows(memory, heads, (self.batch, head), token..token + self.count, widest);
        }
        let group = head / (shape.heads / shape.groups);
        for heads in of_keys {
            let tokens = token..shape.keys.min(token + self.count);
            fetch_rows(memory, heads, (self.batch, group), tokens, widest);
        }
    }

    /// # Safety
    /// The shape's integer operands are readable.
    pub unsafe fn sight(&self, shape: &AttentionShape, memory: &Memory) -> Sight {
        let mut next = self.first % shape.queries;
        let tokens = (0..self.count).map(|_| {
            let token = next;
            next = if token + 1 == shape.queries { 0 } else { token + 1 };
            token
        });
        // SAFETY: the caller's; a validated shape has a number for each sequence, and segments for each token.
        unsafe {
            let start = |numbers: plan::Numbers| {
                memory.at(&numbers.slot).cast::<i32>().cast_const().add(self.batch * numbers.batch)
            };
            let integers = Integers {
                q_offset: shape.q_offset.map(|numbers| *start(numbers)),
                kv_len: shape.kv_len.map(|numbers| *start(numbers)),
                segments: shape.segments.map(|(q, k)| [(start(q), q.token), (start(k), k.token)]),
            };
            Sight::new(shape, &integers, self.count, tokens)
        }
    }

    /// Element d of row r, times `factor`, to `to[d * ROWS + r]`; rows that are missing become 0, and so do elements up
    /// to whole groups of [`HELD`].
    ///
    /// # Safety
    /// The tensor has `width` elements in each row; `to` takes `ROWS` floats for each element of whole groups; the
    /// instruction set of `L` is there.
    #[inline(always)]
    pub unsafe fn pack_lanes<L: Lanes>(
        &self,
        shape: &AttentionShape,
        memory: &Memory,
        heads: &Heads,
        (width, factor): (usize, f32),
        to: *mut f32,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let from = memory.at(&heads.slot).cast_const();
            let starts = self.starts(shape, heads);
            // Squares of whole lanes are turned in registers.
            let squares = if heads.element == 1 { width / LANES * LANES } else { 0 };
            let factors = L::splat(factor);
            for first in (0..ROWS).step_by(LANES) {
                for d in (0..squares).step_by(LANES) {
                    let mut square = [L::splat(0.0); LANES];
                    for (row, values) in (first..self.count).zip(&mut square) {
                        *values = L::load(from.add(starts[row] + d)).mul(factors);
                    }
                    for (column, values) in L::transpose(square).into_iter().enumerate() {
                        values.store(to.add((d + column) * ROWS + first));
                    }
                }
            }
            for (row, start) in starts.into_iter().enumerate() {
                for d in squares..width.next_multiple_of(HELD) {
                    let is_there = row < self.count && d < width;
                    let x = if is_there { *from.add(start + d * heads.element) } else { 0.0 };
                    *to.add(d * ROWS + row) = x * factor;
                }
            }
        }
    }

    /// The way back: `from[d * ROWS + r]`, times `factor`, to element d of row r.
    ///
    /// # Safety
    /// As for [`Rows::pack_lanes`], and nobody else writes these rows.
    #[inline(always)]
    pub unsafe fn unpack_lanes<L: Lanes>(
        &self,
        shape: &AttentionShape,
        memory: &Memory,
        heads: &Heads,
        (width, factor): (usize, f32),
        from: *const f32,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let to = memory.at(&heads.slot);
            let starts = self.starts(shape, heads);
            let squares = if heads.element == 1 { width / LANES * LANES } else { 0 };
            let factors = L::splat(factor);
            for first in (0..self.count).step_by(LANES) {
                for d in (0..squares).step_by(LANES) {
                    let mut square = [factors; LANES];
                    for (column, values) in square.iter_mut().enumerate() {
                        *values = L::load(from.add((d + column) * ROWS + first)).mul(factors);
                    }
                    for (row, values) in (first..self.count).zip(L::transpose(square)) {
                        values.store(to.add(starts[row] + d));
                    }
                }
            }
            for (row, start) in starts[..self.count].iter().enumerate() {
                for d in squares..width {
                    *to.add(start + d * heads.element) = *from.add(d * ROWS + row) * factor;
                }
            }
        }
    }

    /// Element d of row r to `to[r * padded + d]`, with `padded` the width in whole groups of [`HELD`]; rows and elements
    /// that are missing become 0.
    ///
    /// # Safety
    /// As for [`Rows::pack_lanes`], with `to` of `ROWS * padded` floats.
    #[inline(always)]
    pub unsafe fn pack_rows<L: Lanes>(
        &self,
        shape: &AttentionShape,
        memory: &Memory,
        heads: &Heads,
        width: usize,
        to: *mut f32,
    ) {
        let padded = width.next_multiple_of(HELD);
        let whole = if heads.element == 1 { width / LANES * LANES } else { 0 };
        // SAFETY: the caller's.
        unsafe {
            let from = memory.at(&heads.slot).cast_const();
            let starts = self.starts(shape, heads);
            for (row, start) in starts[..self.count].iter().enumerate() {
                let (from, to) = (from.add(*start), to.add(row * padded));
                for d in (0..whole).step_by(LANES) {
                    L::load(from.add(d)).store(to.add(d));
                }
                for d in whole..padded {
                    *to.add(d) = if d < width { *from.add(d * heads.element) } else { 0.0 };
                }
            }
            let missing = (ROWS - self.count) * padded;
            std::slice::from_raw_parts_mut(to.add(self.count * padded), missing).fill(0.0);
        }
    }
}
