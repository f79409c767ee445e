//! How a launch is cut, and where each piece lies in the scratch: functions of the shape alone, but for what each worker
//! has of its own.

use std::ops::Range;

use plan::CrossEntropy;

use crate::lanes::LANES;

/// Tokens side by side in a packed panel, and features: two registers of AVX-512.
pub const PANEL: usize = 2 * LANES;
/// Rows of w that pass through one task's caches together.
pub const BLOCK: usize = 192;
/// Floats of exponentials that are kept between the two passes over w: 48 MiB. Each chunk reads w twice and its cotangent
/// once, and writes that, so larger chunks cost less traffic; at this size it is a few per cent of the products.
const KEPT: usize = 12 << 20;
/// Fewest and most tokens of a chunk. Beyond the latter a block of logits leaves the second level of cache.
const FEWEST: usize = 128;
const MOST: usize = 416;
/// Tasks wanted of each pass: enough for as many threads. Backward each adds up a cotangent of x of its own.
const GROUPS: usize = 16;

/// Tokens come in chunks; each chunk meets w in blocks, of which a task takes a group.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub tokens: usize,
    pub width: usize,
    pub vocabulary: usize,
    /// Tokens of a chunk: a multiple of [`PANEL`].
    pub chunk: usize,
    /// Floats from one row of a matrix [.., token] to the next. An odd number of lines, so that columns spread over a cache.
    pub stride: usize,
    /// Blocks of a group.
    pub group: usize,
}

impl Cut {
    pub fn of(launch: &CrossEntropy) -> Cut {
        let CrossEntropy { tokens, width, vocabulary, .. } = *launch;
        let most = (KEPT / vocabulary).clamp(FEWEST, MOST);
        let chunk = tokens.div_ceil(tokens.div_ceil(most)).next_multiple_of(PANEL);
        let group = vocabulary.div_ceil(BLOCK).div_ceil(GROUPS);
        Cut { tokens, width, vocabulary, chunk, stride: chunk + LANES, group }
    }

    pub fn chunks(&self) -> usize {
        self.tokens.div_ceil(self.chunk)
    }

    /// Tokens of a chunk; the last chunk may have fewer.
    pub fn chunk(&self, index: usize) -> Range<usize> {
        index * self.chunk..self.tokens.min((index + 1) * self.chunk)
    }

    pub fn blocks(&self) -> usize {
        self.vocabulary.div_ceil(BLOCK)
    }

    /// Rows of w of a block.
    pub fn block(&self, index: usize) -> Range<usize> {
        index * BLOCK..self.vocabulary.min((index + 1) * BLOCK)
    }

    pub fn groups(&self) -> usize {
        self.blocks().div_ceil(self.group)
    }

    /// Blocks of a group.
    pub fn group(&self, index: usize) -> Range<usize> {
        index * self.group..self.blocks().min((index + 1) * self.group)
    }

    /// The width in whole lanes.
    pub fn lanes(&self) -> usize {
        self.width.next_multiple_of(LANES)
    }

    /// Floats from one packed row of w to the next, an odd number of lines.
    pub fn row(&self) -> usize {
        self.lanes() + if (self.lanes() / LANES).is_multiple_of(2) { LANES } else { 0 }
    }
}

/// Where things lie. Tokens are those of a chunk, filled up with zeros to whole panels.
#[derive(Clone, Copy)]
pub struct Places {
    /// x by columns: for each panel of tokens `[D, PANEL]`.
    pub columns: *mut f32,
    /// x by rows: for each panel of features `[token, PANEL]`, the last as wide as whole lanes need.
    pub rows: *mut f32,
    /// Exponentials `[V, token]`, relative to the largest logit of their token and block.
    pub kept: *mut f32,
    /// That largest logit `[block, token]`; from `combine` on what the exponentials are to be multiplied by.
    pub largest: *mut f32,
    /// Sum of those exponentials `[block, token]`.
    pub sums: *mut f32,
    /// Logit of the target `[token]`.
    pub chosen: *mut f32,
    /// Cotangents of x `[group, D, token]`.
    pub parts: *mut f32,
    workers: *mut f32,
    worker: usize,
}

/// Memory of one worker.
pub struct Own {
    /// A block of w `[BLOCK, row]`.
    pub w: *mut f32,
    /// A block of logits or of their cotangents `[BLOCK, token]`.
    pub block: *mut f32,
    /// What lies beyond the last whole lanes of a block's cotangent `[BLOCK, LANES]`.
    pub tail: *mut f32,
}

impl Places {
    /// The places from `start` on, and how many floats they take for `threads` workers.
    pub fn new(launch: &CrossEntropy, cut: &Cut, start: *mut f32, threads: usize) -> (Places, usize) {
        let (has_grad, ct_x, ct_w) = match launch.grad {
            Some(grad) => (true, grad.ct_x.is_some(), grad.ct_w.is_some()),
            None => (false, false, false),
        };
        let if_wanted = |wanted: bool, floats: usize| if wanted { floats } else { 0 };
        let mut floats = 0;
        let mut take = |count: usize| {
            let place = start.wrapping_add(floats);
            floats += count.next_multiple_of(LANES);
            place
        };
        let statistics = cut.blocks() * cut.stride;
        let worker = BLOCK * (cut.row() + cut.stride + LANES);
        let places = Places {
            columns: take(cut.chunk * cut.width),
            rows: take(if_wanted(ct_w, cut.chunk * cut.lanes())),
            kept: take(if_wanted(has_grad, cut.vocabulary * cut.stride)),
            largest: take(statistics),
            sums: take(statistics),
            chosen: take(cut.stride),
            parts: take(if_wanted(ct_x, cut.groups() * cut.width * cut.stride)),
            workers: take(threads * worker),
            worker,
        };
        (places, floats)
    }

    pub fn own(&self, cut: &Cut, worker: usize) -> Own {
        let w = self.workers.wrapping_add(worker * self.worker);
        let block = w.wrapping_add(BLOCK * cut.row());
        Own { w, block, tail: block.wrapping_add(BLOCK * cut.stride) }
    }
}
