//! Sequences that are read in chunks, and memories that last from chunk to chunk.
//!
//! ```text
//! cx.chunks(&[tokens, targets], 32, |chunk| {
//!     let out = self.forward(cx, chunk[0]);          // attention sees earlier chunks through kv_memory
//!     let ce = cx.linear_cross_entropy(out, head, chunk[1]);
//!     let memory = cx.fast("w", start);              // the start in the first chunk, then what was written
//!     memory.write(memory.value() - slope * lr);
//!     vec![ce]
//! })
//! ```

use std::panic::Location;

use crate::abi::NONE;
use crate::{Cx, DType, Op, Tensor};

/// A memory of the sequence: one state for each row of the batch, or shared until it is first written.
#[derive(Clone, Copy)]
pub struct Fast<'c> {
    cx: &'c Cx<'c>,
    name: &'c str,
    value: Tensor<'c>,
    is_written: bool,
}

impl<'c> Fast<'c> {
    /// What the memory holds.
    pub fn value(self) -> Tensor<'c> {
        self.value
    }

    /// Whether an earlier chunk has written it. Until then it is the tensor it started from.
    pub fn is_written(self) -> bool {
        self.is_written
    }

    /// Makes `value` what the next chunk reads. Call it in the scope the memory was asked for in.
    #[track_caller]
    pub fn write(self, value: Tensor<'c>) {
        self.cx.builder().fast_write(self.name, value.id(), Location::caller());
    }
}

impl<'c> Cx<'c> {
    /// Traces `body` for each chunk of `size` tokens of tensors `[B, T, ...]`; the last may be shorter. Each of the
    /// tensors that the body returns, `[B, size, ...]`, is joined over all chunks. In a body the same path is the same
    /// parameter, and memories ([`Cx::fast`], [`Cx::kv_memory`]) last from chunk to chunk.
    ///
    /// Chunks are laid out one after another in the plan.
    #[track_caller]
    pub fn chunks(
        &'c self,
        sequences: &[Tensor<'c>],
        size: usize,
        mut body: impl FnMut(&[Tensor<'c>]) -> Vec<Tensor<'c>>,
    ) -> Vec<Tensor<'c>> {
        let at = Location::caller();
        let tokens = sequences.first().map_or(0, |first| first.dim(1));
        if size == 0 || tokens == 0 {
            return vec![self.fail("chunks have at least one token, and read tensors [B, T, ...]")];
        }
        let mut joined: Vec<Vec<Tensor<'c>>> = Vec::new();
        for start in (0..tokens).step_by(size) {
            self.builder().chunk(start as u64, at);
            let length = size.min(tokens - start);
            let parts: Vec<Tensor<'c>> = sequences.iter().map(|x| x.slice(1, start, length)).collect();
            let results = body(&parts);
            joined.resize(joined.len().max(results.len()), Vec::new());
            joined.iter_mut().zip(results).for_each(|(list, part)| list.push(part));
        }
        self.builder().chunk(u64::MAX, at);
        joined.iter().map(|parts| self.concat(parts, 1)).collect()
    }

    /// The memory `name` of this scope, which starts as `start`.
    #[track_caller]
    pub fn fast(&'c self, name: &'c str, start: Tensor<'c>) -> Fast<'c> {
        let id = self.builder().fast_read(name, Location::caller());
        let is_written = id != NONE;
        let value = if is_written { self.tensor(id) } else { start };
        Fast { cx: self, name, value, is_written }
    }

    /// k and v `[B, H, T, D]` behind those of earlier chunks, which are kept for later ones; with `detach` no gradient
    /// reaches those of earlier chunks. As they are outside chunks.
    #[track_caller]
    pub fn kv_memory(&'c self, k: Tensor<'c>, v: Tensor<'c>, detach: bool) -> (Tensor<'c>, Tensor<'c>) {
        let at = Location::caller();
        let joined = |name: &str, new: Tensor<'c>| {
            let past = self.builder().fast_read(name, at);
            let all = match past {
                NONE => new,
                past if detach => self.concat(&[self.tensor(past).stop_grad(), new], 2),
                past => self.concat(&[self.tensor(past), new], 2),
            };
            self.builder().fast_write(name, all.id(), at);
            all
        };
        (joined("keys", k), joined("values", v))
    }

    /// Positions of the tokens of `x[B, T, ...]` in their sequence: 0, 1, ..., T - 1, counted on through chunks.
    #[track_caller]
    pub fn positions(&'c self, x: Tensor<'c>) -> Tensor<'c> {
        let own = self.emit(Op::Iota, &[], &[0, DType::I32 as i64, x.dim(1) as i64], &[]);
        match self.builder().chunk_start() {
            0 => own,
            start => own + start as f64,
        }
    }

    /// For a model whose training pass is not its forward pass: 1 where the target had the largest logit, else 0,
    /// f32`[B, T]`. Evaluations count it.
    #[track_caller]
    pub fn correct(&self, correct: Tensor<'c>) {
        self.builder().correct(correct.id(), Location::caller());
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
