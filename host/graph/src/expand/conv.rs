//! Depthwise causal convolution over time, as the short filters of linear attention use it.

use crate::Var;

/// y[b, t, c] = sum over j of weight[c, j] full[b, t + j, c] with full = concat(tail, x): the last column of
/// weight[C, K] multiplies the current token of x[B, T, C], the others the K - 1 before it, of which tail[B, K - 1, C]
/// holds those before x.
pub fn causal_conv<'b>(x: Var<'b>, weight: Var<'b>, tail: Var<'b>) -> Var<'b> {
    let dims = x.dims();
    let [batch, tokens, channels] = [dims[0], dims[1], dims[2]];
    let full = x.builder().concat(&[tail, x], 1);
    let term = |j: usize| {
        let column = weight.slice(&[(0, channels), (j, 1)]).reshape(&[1, 1, channels]);
        full.slice(&[(0, batch), (j, tokens), (0, channels)]) * column.like(x)
    };
    (1..weight.dims()[1]).map(term).fold(term(0), |sum, term| sum + term)
}
