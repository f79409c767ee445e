//! What a chunk of tokens is before it meets a state: rows of queries and keys, their decays, and how far keys and
//! queries overlap with keys of earlier tokens.
//!
//! Letters as in `graph`'s `expand::chunks`; with g the log decays, only sums of g are exponents, never their differences:
//! - since the start of the chunk: a_i = e^(g_1 + ... + g_i),
//! - until its end: z_i = e^(g_(i+1) + ... + g_C),
//! - between two of its tokens: D_ij = e^(g_(j+1) + ... + g_i) for j <= i, else 0.

use std::f32::consts::LOG2_E;

use plan::{DeltaShape, DeltaTensors};

use crate::lanes::{LANES, Lanes};
use crate::place::Memory;
use crate::product::Left;

use super::block::{Block, Space};
use super::{CHUNK, Part};

/// An exponent whose exponential is 0.
const MASKED: f32 = -1e30;

/// For each token of a group of lanes: the exponent 0 in its own lane, and less than any in the others.
const FRESH: [[f32; LANES]; LANES] = {
    let mut rows = [[f32::MIN; LANES]; LANES];
    let mut index = 0;
    while index < LANES {
        rows[index][index] = 0.0;
        index += 1;
    }
    rows
};

/// Operands of one head of one sequence, and extents of a task's work.
#[derive(Clone, Copy)]
pub struct Head {
    pub q: Left,
    pub k: Left,
    pub v: Left,
    pub log_alpha: Left,
    pub beta: Left,
    /// Rows are value columns.
    pub state: Left,
    pub tokens: usize,
    pub width: usize,
    /// Value columns of the task.
    pub values: usize,
    /// Widths filled up to whole lanes.
    pub key_row: usize,
    pub value_row: usize,
}

impl Head {
    /// # Safety
    /// The operands are those of a validated launch of this shape.
    pub unsafe fn new(shape: &DeltaShape, operands: &DeltaTensors, memory: &Memory, part: &Part) -> Head {
        // SAFETY: the caller's.
        let [q, k, v, log_alpha, beta, state] =
            operands.all().map(|heads| unsafe { memory.head(&heads, part.batch, part.head) });
        let values = part.columns.len();
        Head {
            q,
            k,
            v: columns_from(v, part.columns.start),
            log_alpha,
            beta,
            state: rows_from(state, part.columns.start),
            tokens: shape.tokens,
            width: shape.width,
            values,
            key_row: shape.width.next_multiple_of(LANES),
            value_row: values.next_multiple_of(LANES),
        }
    }

    pub fn chunks(&self) -> usize {
        self.tokens.div_ceil(CHUNK)
    }

    /// Tokens of a chunk: the first, and how many.
    pub fn tokens_of(&self, chunk: usize) -> (usize, usize) {
        (chunk * CHUNK, CHUNK.min(self.tokens - chunk * CHUNK))
    }
}

pub fn rows_from(x: Left, first: usize) -> Left {
    Left { ptr: x.ptr.wrapping_add(first * x.row), ..x }
}

pub fn columns_from(x: Left, first: usize) -> Left {
    Left { ptr: x.ptr.wrapping_add(first * x.column), ..x }
}

/// Scratch for one chunk, C tokens.
#[derive(Clone, Copy)]
pub struct Chunk {
    /// [C, K].
    pub k: Block,
    /// Keys times -a: what tokens find in the state before the chunk is subtracted from their values.
    pub k_start: Block,
    /// Keys times z.
    pub k_end: Block,
    /// [K, C].
    k_turned: Block,
    pub q: Block,
    /// Queries times a.
    pub q_start: Block,
    /// D [C, C]. Blocks of sixteen beyond the diagonal are not written, here and in the two below.
    pub decay: Block,
    /// N_ij = -D_ij k_i k_j' for j < i, else 0.
    pub overlaps: Block,
    /// P_ij = D_ij q_i k_j' for j <= i, else 0.
    pub weights: Block,
    /// a, -a, z and beta.
    pub since: *mut f32,
    pub minus_since: *mut f32,
    pub until: *mut f32,
    pub beta: *mut f32,
}

impl Chunk {
    pub fn new(space: &mut Space, key_row: usize) -> Chunk {
        let [k, k_start, k_end, q, q_start] = [(); 5].map(|()| space.block(CHUNK, key_row));
        let [decay, overlaps, weights] = [(); 3].map(|()| space.block(CHUNK, CHUNK));
        let [since, minus_since, until, beta] = [(); 4].map(|()| space.take(CHUNK));
        let k_turned = space.block(key_row, CHUNK);
        Chunk {
            k,
            k_start,
            k_end,
            k_turned,
            q,
            q_start,
            decay,
            overlaps,
            weights,
            since,
            minus_since,
            until,
            beta,
        }
    }

    /// Everything but queries and weights. Returns e^(g_1 + ... + g_C), the decay across the chunk.
    ///
    /// # Safety
    /// The head's operands are readable, and the chunk is laid out in scratch memory for it; the instruction set of `L` is
    /// there.
    #[inline(always)]
    pub unsafe fn load_keys<L: Lanes>(&self, head: &Head, first: usize, count: usize) -> f32 {
        let (groups, key_groups) = (count.div_ceil(LANES), head.key_row / LANES);
        // SAFETY: the caller's.
        unsafe {
            let across = self.load_gates::<L>(head, first, count);
            self.k.fill::<L>(rows_from(head.k, first), count, head.width);
            self.k.scale::<L>(count, self.minus_since, self.k_start);
            self.k.scale::<L>(count, self.until, self.k_end);
            self.k.turn::<L>([groups, key_groups], self.k_turned);
            self.against_keys::<L>(self.k, head.width, count, self.overlaps, -1.0);
            // A key does not overlap with itself.
            for i in 0..count {
                *self.overlaps.at(i, i).ptr = 0.0;
            }
            across
        }
    }

    /// Queries and weights, after the keys.
    ///
    /// # Safety
    /// As for [`Chunk::load_keys`].
    #[inline(always)]
    pub unsafe fn load_queries<L: Lanes>(&self, head: &Head, first: usize, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            self.q.fill::<L>(rows_from(head.q, first), count, head.width);
            self.q.scale::<L>(count, self.since, self.q_start);
            self.against_keys::<L>(self.q, head.width, count, self.weights, 1.0);
        }
    }

    #[inline(always)]
    unsafe fn load_gates<L: Lanes>(&self, head: &Head, first: usize, count: usize) -> f32 {
        let (gates, rates) = (rows_from(head.log_alpha, first), rows_from(head.beta, first));
        // SAFETY: the caller's.
        unsafe {
            let mut total = 0.0;
            let mut sums = [L::splat(MASKED); CHUNK / LANES];
            for i in 0..count {
                let step = *gates.ptr.add(i * gates.row) * LOG2_E;
                *self.beta.add(i) = *rates.ptr.add(i * rates.row);
                total += step;
                *self.since.add(i) = total;
                let last = i / LANES;
                for (group, sum) in sums[..=last].iter_mut().enumerate() {
                    *sum = sum.add(L::splat(step));
                    if group == last {
                        *sum = L::load(FRESH[i % LANES].as_ptr()).max(*sum);
                    }
                    sum.exp2().store(self.decay.at(i, group * LANES).ptr);
                }
            }
            for i in (0..count).step_by(LANES) {
                let since = L::load(self.since.add(i)).exp2();
                since.store(self.since.add(i));
                since.mul(L::splat(-1.0)).store(self.minus_since.add(i));
                L::load(self.decay.at(count - 1, i).ptr).store(self.until.add(i));
            }
            *self.since.add(count - 1)
        }
    }

    /// x_i k_j' times D_ij and `sign`.
    #[inline(always)]
    unsafe fn against_keys<L: Lanes>(&self, x: Block, width: usize, count: usize, to: Block, sign: f32) {
        // SAFETY: the caller's.
        unsafe {
            lower::<L>([count, width], x, self.k_turned, to);
            for i in 0..count {
                for j in (0..=i).step_by(LANES) {
                    let to = to.at(i, j).ptr;
                    let decay = L::load(self.decay.at(i, j).ptr).mul(L::splat(sign));
                    L::load(to).mul(decay).store(to);
                }
            }
        }
    }
}

/// `x y` for x [count, width] and y [width, C], in blocks of sixteen up to the diagonal.
///
/// # Safety
/// The blocks have those rows and columns; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn lower<L: Lanes>([count, width]: [usize; 2], x: Block, y: Block, to: Block) {
    for first in (0..count).step_by(LANES) {
        let extents = [LANES.min(count - first), first / LANES + 1, width];
        // SAFETY: the caller's.
        unsafe { L::product(extents, x.at(first, 0).left(), y.right(), to.at(first, 0).out(), false) };
    }
}

/// Adds `m y` to `to`, for m [count, count] with nothing above the diagonal and y of `groups` groups of lanes.
///
/// # Safety
/// As for [`lower`].
#[inline(always)]
pub unsafe fn add_lower<L: Lanes>([count, groups]: [usize; 2], m: Block, y: Block, to: Block) {
    for first in (0..count).step_by(LANES) {
        let extents = [LANES.min(count - first), groups, count.min(first + LANES)];
        // SAFETY: the caller's.
        unsafe { L::product(extents, m.at(first, 0).left(), y.right(), to.at(first, 0).out(), true) };
    }
}

/// Adds the transpose of `m` times `y` to `to`.
///
/// # Safety
/// As for [`add_lower`].
#[inline(always)]
pub unsafe fn add_upper<L: Lanes>([count, groups]: [usize; 2], m: Block, y: Block, to: Block) {
    for first in (0..count).step_by(LANES) {
        let extents = [LANES.min(count - first), groups, count - first];
        let (a, b) = (m.at(first, first).turned(), y.at(first, 0).right());
        // SAFETY: the caller's.
        unsafe { L::product(extents, a, b, to.at(first, 0).out(), true) };
    }
}
