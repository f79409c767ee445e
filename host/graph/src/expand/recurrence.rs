//! Linear recurrences token by token: what the gated delta rule and linear attention mean, as a Scan over tokens.

use ops::Op;

use crate::{ScanOptions, Var};

/// S_t = alpha_t S_(t-1) + w_t k_t', o_t = S_t q_t, where w_t is v_t, or with beta (the delta rule)
/// beta_t (v_t - alpha_t S_(t-1) k_t).
///
/// q, k [B, H, T, K], v [B, H, T, V], log_alpha, beta [B, H, T], state [B, H, V, K]; gives o [B, H, T, V] and the last
/// state.
pub fn recurrence<'b>(
    [q, k, v]: [Var<'b>; 3],
    log_alpha: Var<'b>,
    beta: Option<Var<'b>>,
    state: Var<'b>,
) -> Vec<Var<'b>> {
    let matrix = state.dims();
    let (rows, columns) = (matrix[2], matrix[3]);
    let column = |x: Var<'b>| x.reshape(&[matrix[0], matrix[1], rows, 1]).broadcast(&matrix);
    let row = |x: Var<'b>| x.reshape(&[matrix[0], matrix[1], 1, columns]).broadcast(&matrix);
    let number = |x: Var<'b>, dims: &[usize]| {
        let ones = vec![1; dims.len() - 2];
        x.reshape(&[&dims[..2], &ones[..]].concat()).broadcast(dims)
    };
    let times = |state: Var<'b>, x: Var<'b>| (state * row(x)).sum(&[3]).reshape(&matrix[..3]);
    let in_time = |x: Var<'b>| if x.rank() == 4 { x.permute(&[2, 0, 1, 3]) } else { x.permute(&[2, 0, 1]) };
    let sequences: Vec<Var<'b>> = [q, k, v, log_alpha].into_iter().chain(beta).map(in_time).collect();
    let builder = state.builder();
    let (last, outputs) =
        builder.scan(q.dims()[2], &[state], &sequences, ScanOptions::default(), |_, carries, x| {
            let (q, k, v, alpha) = (x[0], x[1], x[2], x[3].unary(Op::Exp));
            let kept = carries[0] * number(alpha, &matrix);
            let written = match x.get(4) {
                Some(beta) => (v - times(kept, k)) * number(*beta, &v.dims()),
                None => v,
            };
            let state = kept + column(written) * row(k);
            (vec![state], vec![times(state, q)])
        });
    vec![outputs[0].permute(&[1, 2, 0, 3]), last[0]]
}
