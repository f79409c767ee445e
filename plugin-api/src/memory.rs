//! Memories: values that a model leaves for what it reads next.
//!
//! ```text
//! let memory = cx.fast("w", start, Lifetime::Stream);      // the start at first, then what was written
//! memory.write(memory.value() - slope * rate);
//! ```
//!
//! B rows of a batch. What a memory holds is one value for each row, or, until it is first written, the tensor that it
//! starts from. In training it is a plain value of the trace, so gradients pass through writes; where it outlives the
//! trace, the host keeps what it has become beyond its start, and no gradient reaches the trace before.

use std::panic::Location;

use crate::abi::{lifetime, NONE};
use crate::{Attend, Cx, DType, Tensor};

/// How long a memory lasts. Each lasts from chunk to chunk of a sequence, and from call to call of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lifetime {
    /// In training: to the end of the window.
    Sequence = lifetime::SEQUENCE,
    /// Where a run streams its texts (`train.stream`): through all windows of a text.
    Stream = lifetime::STREAM,
}

/// A memory as it is at one point of the trace.
#[derive(Clone, Copy)]
pub struct Fast<'c> {
    cx: &'c Cx<'c>,
    name: &'c str,
    lifetime: Lifetime,
    start: Tensor<'c>,
    value: Tensor<'c>,
    is_written: bool,
}

impl<'c> Fast<'c> {
    /// What the memory holds: `[B, ...]` once it may have been written, else its start.
    pub fn value(self) -> Tensor<'c> {
        self.value
    }

    /// What it started from.
    pub fn start(self) -> Tensor<'c> {
        self.start
    }

    /// Whether it may hold something else than its start: an earlier chunk has written it, or an earlier call may have.
    pub fn is_written(self) -> bool {
        self.is_written
    }

    /// Makes `value` what is read next. Call it in the scope the memory was asked for in.
    #[track_caller]
    pub fn write(self, value: Tensor<'c>) {
        let (builder, at) = (self.cx.builder(), Location::caller());
        builder.fast_write(self.name, value.id(), at);
        if builder.fast_outlives(self.lifetime as u8) {
            builder.fast_keep(self.name, (value - self.start).id(), at);
        }
    }
}

impl<'c> Cx<'c> {
    /// The memory `name` of this scope, which starts as `start`.
    #[track_caller]
    pub fn fast(&'c self, name: &'c str, start: Tensor<'c>, lifetime: Lifetime) -> Fast<'c> {
        let at = Location::caller();
        let mut value = self.builder().fast_read(name, at);
        if value == NONE && self.builder().fast_outlives(lifetime as u8) {
            let kept = self.tensor(self.builder().fast_state(name, &start.dims(), lifetime as u8, at));
            value = (start.repeat(&kept.dims()) + kept).id();
        }
        let is_written = value != NONE;
        let value = if is_written { self.tensor(value) } else { start };
        Fast { cx: self, name, lifetime, start, value, is_written }
    }

    /// Tokens that each row has read before this trace and that its memories remember, i32`[B]`; None where every
    /// trace starts afresh.
    #[track_caller]
    pub fn stream(&'c self) -> Option<Tensor<'c>> {
        let id = self.builder().stream(Location::caller());
        (id != NONE).then(|| self.tensor(id))
    }

    /// k and v `[B, G, T, D]` beside those read before, which a sequence keeps; with `detach` no gradient reaches those
    /// of earlier chunks.
    #[track_caller]
    pub fn kv_memory(&'c self, k: Tensor<'c>, v: Tensor<'c>, detach: bool) -> Past<'c> {
        match self.context() {
            Some((start, capacity)) => self.cached(k, v, start, capacity),
            None => {
                let [keys, values] =
                    [("keys", k), ("values", v)].map(|(name, new)| self.joined(name, new, detach));
                Past { keys, values, place: None }
            }
        }
    }

    /// Says that this layer cannot read on from call to call: what it keeps takes in every token that it is given, as a
    /// recurrence does, and a call may give it tokens again or more than a row has. A session then reads contexts whole,
    /// each time anew. Nothing happens in training.
    #[track_caller]
    pub fn reads_contexts_whole(&'c self) {
        if self.context().is_some() {
            self.fail("this layer reads contexts whole, each time anew");
        }
    }

    /// In a session: position of the first token read now in each row's context, i32`[B]`, and how many tokens a
    /// context can hold.
    fn context(&'c self) -> Option<(Tensor<'c>, usize)> {
        let id = self.builder().context(Location::caller());
        (id != NONE).then(|| (self.tensor(id), self.builder().capacity()))
    }

    #[track_caller]
    fn joined(&'c self, name: &str, new: Tensor<'c>, detach: bool) -> Tensor<'c> {
        let at = Location::caller();
        let all = match self.builder().fast_read(name, at) {
            NONE => new,
            past if detach => self.concat(&[self.tensor(past).stop_grad(), new], 2),
            past => self.concat(&[self.tensor(past), new], 2),
        };
        self.builder().fast_write(name, all.id(), at);
        all
    }

    /// Keys and values in caches of fixed extent, each row's at its own place.
    #[track_caller]
    fn cached(&'c self, k: Tensor<'c>, v: Tensor<'c>, start: Tensor<'c>, capacity: usize) -> Past<'c> {
        let (rows, tokens) = (k.dim(0), k.dim(2));
        let place = Placement::new(self, start, rows, tokens, capacity);
        let [keys, values] = [("keys", k), ("values", v)].map(|(name, new)| {
            let empty = self.constant(0.0, DType::F32, &[new.dim(1), capacity, new.dim(3)]);
            let cache = self.fast(name, empty, Lifetime::Sequence);
            let filled = place.put(cache.value(), new);
            cache.write(filled);
            filled
        });
        Past { keys, values, place: Some((start, start + tokens as f64)) }
    }
}

/// Keys and values `[B, G, Tk, D]` that queries may see.
#[derive(Clone, Copy)]
pub struct Past<'c> {
    pub keys: Tensor<'c>,
    pub values: Tensor<'c>,
    /// Positions of the first query and after the last key, in caches that are not full.
    place: Option<(Tensor<'c>, Tensor<'c>)>,
}

impl<'c> Past<'c> {
    /// The last `tokens` of them, if there are more: for masks that let no query see further. A cache stays whole.
    #[track_caller]
    pub fn nearest(self, tokens: usize) -> Past<'c> {
        let known = self.keys.dim(2);
        if self.place.is_some() || tokens >= known {
            return self;
        }
        let near = |x: Tensor<'c>| x.slice(2, known - tokens, tokens);
        Past { keys: near(self.keys), values: near(self.values), place: None }
    }

    /// A mask, with the places of queries and keys where the host keeps them.
    pub fn seen(self, mask: impl Into<Attend<'c>>) -> Attend<'c> {
        let attend = mask.into();
        match self.place {
            Some((first, after)) => attend.q_offset(first).kv_len(after),
            None => attend,
        }
    }
}

/// Where `tokens` new entries of each row go in a cache: from `start[b]` on.
struct Placement<'c> {
    /// `[B, capacity]`: which places get an entry,
    is_new: Tensor<'c>,
    /// and which, as a row of `[B * tokens]`.
    from: Tensor<'c>,
}

impl<'c> Placement<'c> {
    fn new(cx: &'c Cx<'c>, start: Tensor<'c>, rows: usize, tokens: usize, capacity: usize) -> Placement<'c> {
        let along = |n: usize, shape: [usize; 2]| cx.range(n).reshape(&shape).repeat(&[rows, capacity]);
        let offset = along(capacity, [1, capacity]) - start.reshape(&[rows, 1]);
        let (first, last) = (offset.number(0.0), offset.number(tokens as f64 - 1.0));
        let within = offset.max(first).min(last);
        let from = within + along(rows, [rows, 1]) * tokens as f64;
        Placement { is_new: within.equals(offset), from }
    }

    /// `cache[B, G, capacity, D]` (or `[G, capacity, D]`) with `new[B, G, T, D]` in place.
    fn put(&self, cache: Tensor<'c>, new: Tensor<'c>) -> Tensor<'c> {
        let (rows, groups, tokens, width) = (new.dim(0), new.dim(1), new.dim(2), new.dim(3));
        let capacity = self.from.dim(1);
        let by_token = new.permute(&[0, 2, 1, 3]).reshape(&[rows * tokens, groups * width]);
        let spread =
            by_token.rows(self.from).reshape(&[rows, capacity, groups, width]).permute(&[0, 2, 1, 3]);
        let shape = [rows, groups, capacity, width];
        let is_new = self.is_new.reshape(&[rows, 1, capacity, 1]).repeat(&shape);
        is_new.select(spread, cache.repeat(&shape))
    }
}

impl<'c> Tensor<'c> {
    /// This value, whose cotangent goes to `parameter` (of the same shape) and nowhere else: a memory read as if its
    /// writes were constants.
    #[track_caller]
    pub fn straight_through(self, parameter: Tensor<'c>) -> Tensor<'c> {
        self.stop_grad() + (parameter - parameter.stop_grad())
    }
}
