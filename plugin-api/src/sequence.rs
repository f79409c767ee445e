//! Sequences that are read in chunks.
//!
//! ```text
//! cx.chunks(&[tokens, targets], 32, |chunk| {
//!     let out = self.forward(cx, chunk[0]);          // attention sees earlier chunks through kv_memory
//!     vec![cx.linear_cross_entropy(out, head, chunk[1])]
//! })
//! ```

use std::panic::Location;

use crate::abi::NONE;
use crate::{Cx, DType, Op, Tensor};

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

    /// Positions of the tokens of `x[B, T, ...]` in their sequence, counted on through chunks: 0, 1, ..., T - 1, i32`[T]`.
    /// In a session, where each row has read its own number of tokens before: `[B, T]`.
    #[track_caller]
    pub fn positions(&'c self, x: Tensor<'c>) -> Tensor<'c> {
        let at = Location::caller();
        let own = self.emit(Op::Iota, &[], &[0, DType::I32 as i64, x.dim(1) as i64], &[]);
        let own = match self.builder().chunk_start() {
            0 => own,
            start => own + start as f64,
        };
        match self.builder().context(at) {
            NONE => own,
            first => self.tensor(first).reshape(&[x.dim(0), 1]) + own,
        }
    }

    /// For a model whose training pass is not its forward pass: 1 where the target had the largest logit, else 0,
    /// f32`[B, T]`. Evaluations count it.
    #[track_caller]
    pub fn correct(&self, correct: Tensor<'c>) {
        self.builder().correct(correct.id(), Location::caller());
    }
}
