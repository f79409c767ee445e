//! A block of query rows: where each lies, and packed copies of it with rows along the lanes or one after another.

use plan::{AttentionShape, Heads};

use super::sight::{Integers, Sight};
use super::{Memory, ROWS};

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

    /// Where a row begins in a tensor.
    #[inline(always)]
    fn at(&self, shape: &AttentionShape, heads: &Heads, row: usize) -> usize {
        let (head, token) = ((self.first + row) / shape.queries, (self.first + row) % shape.queries);
        self.batch * heads.batch + head * heads.head + token * heads.token
    }

    /// # Safety
    /// The shape's integer operands are readable.
    pub unsafe fn sight(&self, shape: &AttentionShape, memory: &Memory) -> Sight {
        let tokens = (self.first..self.first + self.count).map(|row| row % shape.queries);
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
            Sight::new(shape, &integers, tokens)
        }
    }

    /// Element d of row r, times `factor`, to `to[d * ROWS + r]`; rows that are missing become 0.
    ///
    /// # Safety
    /// The tensor has `width` elements in each row; `to` takes `width * ROWS` floats.
    #[inline(always)]
    pub unsafe fn pack_lanes(
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
            for row in 0..ROWS {
                let lane = to.add(row);
                if row >= self.count {
                    for d in 0..width {
                        *lane.add(d * ROWS) = 0.0;
                    }
                    continue;
                }
                let from = from.add(self.at(shape, heads, row));
                for d in 0..width {
                    *lane.add(d * ROWS) = *from.add(d * heads.element) * factor;
                }
            }
        }
    }

    /// The way back: `from[d * ROWS + r]` to element d of row r.
    ///
    /// # Safety
    /// As for [`Rows::pack_lanes`], and nobody else writes these rows.
    #[inline(always)]
    pub unsafe fn unpack_lanes(
        &self,
        shape: &AttentionShape,
        memory: &Memory,
        heads: &Heads,
        width: usize,
        from: *const f32,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let to = memory.at(&heads.slot);
            for row in 0..self.count {
                let (to, lane) = (to.add(self.at(shape, heads, row)), from.add(row));
                for d in 0..width {
                    *to.add(d * heads.element) = *lane.add(d * ROWS);
                }
            }
        }
    }

    /// Element d of row r to `to[r * padded + d]`; rows and elements that are missing become 0.
    ///
    /// # Safety
    /// As for [`Rows::pack_lanes`], with `to` of `ROWS * padded` floats, `padded >= width`.
    #[inline(always)]
    pub unsafe fn pack_rows(
        &self,
        shape: &AttentionShape,
        memory: &Memory,
        heads: &Heads,
        (width, padded): (usize, usize),
        to: *mut f32,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let from = memory.at(&heads.slot).cast_const();
            for row in 0..ROWS {
                let to = std::slice::from_raw_parts_mut(to.add(row * padded), padded);
                if row >= self.count {
                    to.fill(0.0);
                    continue;
                }
                let from = from.add(self.at(shape, heads, row));
                for (d, x) in to[..width].iter_mut().enumerate() {
                    *x = *from.add(d * heads.element);
                }
                to[width..].fill(0.0);
            }
        }
    }
}
