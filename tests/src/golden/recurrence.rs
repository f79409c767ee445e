//! Memories that a matrix holds: the delta rule and linear attention, in one call and in consecutive ones.
//!
//! q and k[B, H, T, K], v[B, H, T, V], gates[B, H, T], state[B, H, V, K].

use plugin_api::{DType, Op, Tensor, gated_delta_rule, linear_attention as attend_linearly};

use super::trace::{Given, Outputs};

/// What a call reads of its tokens.
#[derive(Clone, Copy)]
pub struct Tokens<'c> {
    qkv: [Tensor<'c>; 3],
    log_alpha: Tensor<'c>,
    /// Linear attention has no such gate.
    beta: Option<Tensor<'c>>,
}

impl<'c> Tokens<'c> {
    /// Reads and writes at every token: o[B, H, T, V] and the state after the last.
    pub fn call(self, state: Tensor<'c>) -> (Tensor<'c>, Tensor<'c>) {
        match self.beta {
            Some(beta) => gated_delta_rule(self.qkv, self.log_alpha, beta, state),
            None => attend_linearly(self.qkv, self.log_alpha, state),
        }
    }

    fn between(self, start: usize, end: usize) -> Tokens<'c> {
        let piece = |x: Tensor<'c>| x.slice(2, start, end.saturating_sub(start));
        Tokens { qkv: self.qkv.map(piece), log_alpha: piece(self.log_alpha), beta: self.beta.map(piece) }
    }
}

pub fn delta_tokens<'c>(given: &Given<'c>) -> Tokens<'c> {
    Tokens { beta: Some(given.x("beta")), ..linear_tokens(given) }
}

fn linear_tokens<'c>(given: &Given<'c>) -> Tokens<'c> {
    let qkv = ["q", "k", "v"].map(|name| given.x(name));
    let dims = qkv[0].dims();
    let dims = &dims[..dims.len().min(3)];
    let log_alpha = if given.has("alpha") {
        given.x("alpha").ln()
    } else if given.has("gamma") {
        let gamma = given.x("gamma");
        gamma.ln().reshape(&[gamma.dim(0), 1]).repeat(dims)
    } else {
        given.cx.constant(0.0, DType::F32, dims)
    };
    Tokens { qkv, log_alpha, beta: None }
}

pub fn delta_rule<'c>(given: &Given<'c>) -> Outputs<'c> {
    recurrence(given, delta_tokens(given))
}

pub fn linear_attention<'c>(given: &Given<'c>) -> Outputs<'c> {
    recurrence(given, linear_tokens(given))
}

/// In one call; where the case has splits, a second time in one call for each piece, from the state of the one before.
fn recurrence<'c>(given: &Given<'c>, tokens: Tokens<'c>) -> Outputs<'c> {
    let (o, last) = tokens.call(given.x("S0"));
    let mut outputs: Outputs<'c> =
        vec![("o".into(), o), ("S_final".into(), last), ("log_alpha".into(), tokens.log_alpha)];
    let splits = given.list("splits");
    if splits.is_empty() {
        return outputs;
    }
    let (mut start, mut state) = (0, given.x("S0"));
    let (mut pieces, mut states) = (Vec::new(), Vec::new());
    for end in splits.into_iter().chain([o.dim(2)]) {
        let (piece, after) = tokens.between(start, end).call(state);
        pieces.push(piece);
        states.push(after.reshape(&[&[1], &after.dims()[..]].concat()));
        (start, state) = (end, after);
    }
    states.pop();
    let joined = |parts: &[Tensor<'c>], axis| given.cx.emit(Op::Concat, parts, &[axis], &[]);
    outputs.extend([
        ("o".into(), joined(&pieces, 2)),
        ("S_final".into(), state),
        ("S_at_split".into(), joined(&states, 0)),
    ]);
    outputs
}
