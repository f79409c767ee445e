//! Linear recurrences over tokens, cut into chunks: within a chunk all tokens at once, from chunk to chunk a state.
//!
//! Legend: G = batch times heads, N chunks, C tokens each, K and V the widths of keys and values. A state is [G, V, K].
//! With c the running sum of log decays within a chunk, only exponents <= 0 appear: c_i - c_j for j <= i (masked before
//! the exponential, so that no derivative overflows either), c_i, and c_C - c_i. None is the ratio of two exponentials:
//! those underflow.

use ops::{DType, Op};

use super::attention::MASKED;
use super::batched;
use crate::Var;

/// Queries, keys and values of all chunks, and how far each token is from others in decay.
pub struct Chunks<'b> {
    tokens: [usize; 3],
    pub q_gnck: Var<'b>,
    pub k_gnck: Var<'b>,
    pub v_gncv: Var<'b>,
    /// From token j to token i: e^(c_i - c_j), 0 for j > i.
    pub decay_gncc: Var<'b>,
    /// From the state before the chunk to each token: e^c_i.
    pub since_start_gnc: Var<'b>,
    /// From each token to the state after the chunk: e^(c_C - c_i).
    pub until_end_gnc: Var<'b>,
    /// Across the chunk: e^c_C, [G, N, 1].
    pub across_gn: Var<'b>,
}

impl<'b> Chunks<'b> {
    /// q, k [B, H, T, K], v [B, H, T, V], log_alpha [B, H, T] <= 0. Chunks of `chunk` tokens, a power of two; of fewer
    /// where T is small. What is missing to a whole chunk is filled with zeros, which neither decay nor write.
    pub fn new(q: Var<'b>, k: Var<'b>, v: Var<'b>, log_alpha: Var<'b>, chunk: usize) -> Chunks<'b> {
        let dims = q.dims();
        let tokens = [dims[0], dims[1], dims[2]];
        let chunk = chunk.min(dims[2]).next_power_of_two();
        let steps = split(log_alpha, chunk);
        let shape = steps.dims();
        let (groups, count) = (shape[0], shape[1]);
        let square = [groups, count, chunk, chunk];
        let index = |axis: usize, dims: &[usize]| q.builder().iota(axis, DType::I32, dims);

        let total = running_sum(steps, 2);
        let end = total.slice(&[(0, groups), (0, count), (chunk - 1, 1)]);
        // Sums of the steps from token j to token i. As differences of `total` they would lose, beside strong decay, what
        // is small in them, and their derivatives likewise.
        let steps_after = index(3, &square).binary(Op::Lt, index(2, &square));
        let spread = steps.reshape(&[groups, count, chunk, 1]).broadcast(&square);
        let between = running_sum(steps_after.select(spread, spread.constant(0.0)), 2);
        let to_end = between.slice(&[(0, groups), (0, count), (chunk - 1, 1), (0, chunk)]).reshape(&shape);
        let ahead = index(2, &square).binary(Op::Lt, index(3, &square));
        Chunks {
            tokens,
            q_gnck: split(q, chunk),
            k_gnck: split(k, chunk),
            v_gncv: split(v, chunk),
            decay_gncc: ahead.select(between.constant(MASKED), between).unary(Op::Exp),
            since_start_gnc: total.unary(Op::Exp),
            until_end_gnc: to_end.unary(Op::Exp),
            across_gn: end.unary(Op::Exp),
        }
    }

    /// A further number per token, [B, H, T] to [G, N, C].
    pub fn split(&self, x: Var<'b>) -> Var<'b> {
        split(x, self.q_gnck.dims()[2])
    }

    /// What each chunk adds to the state: values times keys, each pair decayed to the end of the chunk; [G, N, V, K].
    pub fn added(&self, values_gncv: Var<'b>) -> Var<'b> {
        batched(values_gncv, self.keys_at_end(), 2, (0, 0))
    }

    /// Keys decayed to the end of their chunk.
    pub fn keys_at_end(&self) -> Var<'b> {
        scaled(self.k_gnck, self.until_end_gnc)
    }

    /// Takes state[B, H, V, K] through all chunks: `step` makes chunk n's end from its start. Returns the states at
    /// the start of each chunk, [G, N, V, K], and the last, [B, H, V, K].
    pub fn carry(&self, state: Var<'b>, step: impl Fn(usize, Var<'b>) -> Var<'b>) -> (Var<'b>, Var<'b>) {
        let dims = state.dims();
        let shape = [dims[0] * dims[1], dims[2], dims[3]];
        let mut states = Vec::new();
        let mut state = state.reshape(&shape);
        for n in 0..self.q_gnck.dims()[1] {
            states.push(state.reshape(&[shape[0], 1, shape[1], shape[2]]));
            state = step(n, state);
        }
        (self.q_gnck.builder().concat(&states, 1), state.reshape(&dims))
    }

    /// What queries read: from the state at the start of their chunk, and from the values written since; [B, H, T, V].
    pub fn read(&self, states_gnvk: Var<'b>, values_gncv: Var<'b>) -> Var<'b> {
        let before = batched(scaled(self.q_gnck, self.since_start_gnc), states_gnvk, 2, (1, 1));
        let weights = batched(self.q_gnck, self.k_gnck, 2, (1, 1)) * self.decay_gncc;
        let read = before + batched(weights, values_gncv, 2, (1, 0));
        let shape = read.dims();
        let [batch, heads, tokens] = self.tokens;
        let rows = read.reshape(&[shape[0], shape[1] * shape[2], shape[3]]);
        rows.slice(&[(0, shape[0]), (0, tokens), (0, shape[3])]).reshape(&[batch, heads, tokens, shape[3]])
    }
}

/// [B, H, T, ...] to [G, N, C, ...], filled up with zeros.
fn split(x: Var<'_>, chunk: usize) -> Var<'_> {
    let dims = x.dims();
    let (groups, tokens, rest) = (dims[0] * dims[1], dims[2], &dims[3..]);
    let count = tokens.div_ceil(chunk);
    let mut margins = vec![(0, 0); 2 + rest.len()];
    margins[1].1 = count * chunk - tokens;
    let flat = x.reshape(&[&[groups, tokens], rest].concat()).pad(&margins);
    flat.reshape(&[&[groups, count, chunk], rest].concat())
}

/// Chunk n of x[G, N, ...], without the axis N.
pub fn at(x: Var<'_>, n: usize) -> Var<'_> {
    let mut dims = x.dims();
    let mut ranges: Vec<(usize, usize)> = dims.iter().map(|dim| (0, *dim)).collect();
    ranges[1] = (n, 1);
    dims.remove(1);
    x.slice(&ranges).reshape(&dims)
}

/// Each row of x[..., d] times its number of factors[...].
pub fn scaled<'b>(x: Var<'b>, factors: Var<'b>) -> Var<'b> {
    let rows = [&factors.dims()[..], &[1]].concat();
    x * factors.reshape(&rows).broadcast(&x.dims())
}

fn running_sum(x: Var<'_>, axis: i64) -> Var<'_> {
    let builder = x.builder();
    builder.var(builder.emit(Op::CumSum, &[x.id], &[axis, 0], &[]))
}
