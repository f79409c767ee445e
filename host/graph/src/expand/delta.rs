//! The gated delta rule and linear attention with decay, in chunk form.
//!
//! Whatever does not depend on the state is computed for all chunks at once; from chunk to chunk there is one product,
//! or none. Letters as in `chunks`.

use ops::{DType, Op};

use super::batched;
use super::chunks::{Chunks, at, scaled};
use super::triangular::unit_lower_inverse;
use crate::Var;

/// S_t = alpha_t S_(t-1) (I - beta_t k_t k_t') + beta_t v_t k_t', o_t = S_t q_t (Yang et al. 2024, arXiv 2412.06464,
/// eq. 10; its chunk form is that of arXiv 2406.06484, section 3, with decay).
///
/// q, k [B, H, T, K], v [B, H, T, V], log_alpha, beta [B, H, T], state [B, H, V, K], all f32, log_alpha <= 0, and
/// `chunk` a power of two; gives o [B, H, T, V] and the last state. q and k are used as they are: normalise k.
pub fn gated_delta_rule<'b>(
    q: Var<'b>,
    k: Var<'b>,
    v: Var<'b>,
    log_alpha: Var<'b>,
    beta: Var<'b>,
    state: Var<'b>,
    chunk: usize,
) -> (Var<'b>, Var<'b>) {
    let chunks = Chunks::new(q, k, v, log_alpha, chunk);
    let beta_gnc = chunks.split(beta);
    // Token i finds what tokens j < i of its chunk wrote: the values really written solve a triangular system.
    let overlaps = scaled(batched(chunks.k_gnck, chunks.k_gnck, 2, (1, 1)) * chunks.decay_gncc, beta_gnc);
    let solved_gncc = unit_lower_inverse(overlaps);
    let own_gncv = batched(solved_gncc, scaled(chunks.v_gncv, beta_gnc), 2, (1, 0));
    let from_start = scaled(chunks.k_gnck, beta_gnc * chunks.since_start_gnc);
    let erased_gnck = batched(solved_gncc, from_start, 2, (1, 0));

    // The values written are own - erased S', so a chunk takes S to S (e^c_C I - erased' keys) + own' keys: one
    // product from chunk to chunk.
    let kept_gnkk = diagonal(chunks.across_gn, chunks.k_gnck.dims()[3])
        - batched(erased_gnck, chunks.keys_at_end(), 2, (0, 0));
    let added_gnvk = chunks.added(own_gncv);
    let (states_gnvk, last) =
        chunks.carry(state, |n, state| batched(state, at(kept_gnkk, n), 1, (1, 0)) + at(added_gnvk, n));
    let written_gncv = own_gncv - batched(erased_gnck, states_gnvk, 2, (1, 1));
    (chunks.read(states_gnvk, written_gncv), last)
}

/// S_t = alpha_t S_(t-1) + v_t k_t', o_t = S_t q_t (Dao and Gu 2024, arXiv 2405.21060). Operands as in
/// [`gated_delta_rule`].
pub fn linear_attention<'b>(
    q: Var<'b>,
    k: Var<'b>,
    v: Var<'b>,
    log_alpha: Var<'b>,
    state: Var<'b>,
    chunk: usize,
) -> (Var<'b>, Var<'b>) {
    let chunks = Chunks::new(q, k, v, log_alpha, chunk);
    let added_gnvk = chunks.added(chunks.v_gncv);
    let (states_gnvk, last) = chunks.carry(state, |n, state| {
        let across = at(chunks.across_gn, n);
        let across = across.reshape(&[across.dims()[0], 1, 1]);
        state * across.broadcast(&state.dims()) + at(added_gnvk, n)
    });
    (chunks.read(states_gnvk, chunks.v_gncv), last)
}

/// Factors[G, N, 1] times the unit matrix: [G, N, size, size].
fn diagonal(factors: Var<'_>, size: usize) -> Var<'_> {
    let dims = factors.dims();
    let square = [dims[0], dims[1], size, size];
    let index = |axis: usize| factors.builder().iota(axis, DType::I32, &square);
    let spread = factors.reshape(&[dims[0], dims[1], 1, 1]).broadcast(&square);
    index(2).binary(Op::Eq, index(3)).select(spread, spread.constant(0.0))
}
