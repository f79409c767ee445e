//! Linear recurrences over tokens: memories that a matrix holds, read and written at every token.

use crate::{Op, Tensor};

/// The gated delta rule (Yang et al. 2024, arXiv 2412.06464, eq. 10):
/// `S_t = alpha_t S_(t-1) (I - beta_t k_t k_t') + beta_t v_t k_t'`, `o_t = S_t q_t`.
///
/// q and k `[B, H, T, K]`, used as they are (normalise k), v `[B, H, T, V]`, log_alpha <= 0 and beta `[B, H, T]`, state
/// `[B, H, V, K]`. Gives o `[B, H, T, V]` and the last state. With log_alpha = 0 it is the plain delta rule.
#[track_caller]
pub fn gated_delta_rule<'c>(
    [q, k, v]: [Tensor<'c>; 3],
    log_alpha: Tensor<'c>,
    beta: Tensor<'c>,
    state: Tensor<'c>,
) -> (Tensor<'c>, Tensor<'c>) {
    both(q.cx().emit(Op::GatedDeltaRule, &[q, k, v, log_alpha, beta, state], &[], &[]))
}

/// Linear attention with decay (Dao and Gu 2024, arXiv 2405.21060): `S_t = alpha_t S_(t-1) + v_t k_t'`,
/// `o_t = S_t q_t`. Operands and results as in [`gated_delta_rule`].
#[track_caller]
pub fn linear_attention<'c>(
    [q, k, v]: [Tensor<'c>; 3],
    log_alpha: Tensor<'c>,
    state: Tensor<'c>,
) -> (Tensor<'c>, Tensor<'c>) {
    both(q.cx().emit(Op::LinearAttention, &[q, k, v, log_alpha, state], &[], &[]))
}

#[track_caller]
fn both(several: Tensor<'_>) -> (Tensor<'_>, Tensor<'_>) {
    let result = |index| several.cx().emit(Op::Result, &[several], &[index], &[]);
    (result(0), result(1))
}
