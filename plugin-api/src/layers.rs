//! Layers with parameters of their own, and the composites.

use crate::{Cx, DType, Init, Op, Role, Tensor};

/// Standard deviation of weights and embeddings: small enough that the first loss is ln V (docs: design).
const INIT_STD: f64 = 0.02;

/// Depthwise causal convolution over time: `x[B, T, C]`, `weight[C, K]`, and the `tail[B, K - 1, C]` of what came
/// before. Returns `y[B, T, C]`, where y_t is the sum of weight_j x_(t - K + 1 + j), and the tail for what comes next.
#[track_caller]
pub fn causal_conv<'c>(x: Tensor<'c>, weight: Tensor<'c>, tail: Tensor<'c>) -> (Tensor<'c>, Tensor<'c>) {
    let cx = x.cx();
    let y = cx.emit(Op::CausalConv, &[x, weight, tail], &[], &[]);
    let (tokens, kept) = (x.dim(1), tail.dim(1));
    let next = match tokens.checked_sub(kept) {
        Some(start) => x.slice(1, start, kept),
        // Fewer tokens than the tail holds: some of the old tail stays.
        None => cx.emit(Op::Concat, &[tail, x], &[1], &[]).slice(1, tokens, kept),
    };
    (y, next)
}

impl<'c> Cx<'c> {
    /// x w' with a matrix `name` of [width, D], N(0, 0.02^2): `[..., D]` to `[..., width]`.
    #[track_caller]
    pub fn linear(&'c self, name: &str, x: Tensor<'c>, width: usize) -> Tensor<'c> {
        self.linear_scaled(name, x, width, 1.0)
    }

    /// [`Cx::linear`] whose initial standard deviation is 0.02 times `factor`.
    #[track_caller]
    pub fn linear_scaled(&'c self, name: &str, x: Tensor<'c>, width: usize, factor: f64) -> Tensor<'c> {
        let init = Init::Normal(INIT_STD * factor);
        x.dot_last(self.parameter(name, &[width, x.dim(-1)], Role::Matrix, init))
    }

    /// x plus a vector `name` as long as the last axis, zero at first.
    #[track_caller]
    pub fn bias(&'c self, name: &str, x: Tensor<'c>) -> Tensor<'c> {
        x + self.parameter(name, &[x.dim(-1)], Role::Bias, Init::Constant(0.0))
    }

    /// A table `name` of [rows, width], N(0, 0.02^2).
    #[track_caller]
    pub fn embedding(&'c self, name: &str, rows: usize, width: usize) -> Tensor<'c> {
        self.parameter(name, &[rows, width], Role::Embedding, Init::Normal(INIT_STD))
    }

    /// Layer norm with a gain `name.gain` and, with `bias`, a shift `name.bias` (Ba et al. 2016); eps 1e-5.
    #[track_caller]
    pub fn layer_norm(&'c self, name: &str, x: Tensor<'c>, bias: bool) -> Tensor<'c> {
        let vector = |part: &str, role, value| {
            self.parameter(&format!("{name}.{part}"), &[x.dim(-1)], role, Init::Constant(value))
        };
        let mut operands = vec![x, vector("gain", Role::Gain, 1.0)];
        if bias {
            operands.push(vector("bias", Role::Bias, 0.0));
        }
        self.emit(Op::LayerNorm, &operands, &[], &[1e-5])
    }

    /// RMS norm with a gain `name.gain` (Zhang and Sennrich 2019); eps 1e-6.
    #[track_caller]
    pub fn rms_norm(&'c self, name: &str, x: Tensor<'c>) -> Tensor<'c> {
        let gain = self.parameter(&format!("{name}.gain"), &[x.dim(-1)], Role::Gain, Init::Constant(1.0));
        self.emit(Op::RmsNorm, &[x, gain], &[], &[1e-6])
    }

    /// Rotary positions (Su et al. 2021): `x[B, H, T, D]` turned by `positions[T]` or `[B, T]`.
    #[track_caller]
    pub fn rope(&'c self, x: Tensor<'c>, positions: Tensor<'c>, theta: f64) -> Tensor<'c> {
        self.emit(Op::Rope, &[x, positions], &[], &[theta])
    }

    /// `-log softmax(hidden head')[target]` per token, nats: `[B, T, D]`, `[V, D]`, `[B, T]` to `[B, T]`. 0 for a
    /// target outside 0..V.
    #[track_caller]
    pub fn linear_cross_entropy(
        &'c self,
        hidden: Tensor<'c>,
        head: Tensor<'c>,
        targets: Tensor<'c>,
    ) -> Tensor<'c> {
        self.emit(Op::LinearCrossEntropy, &[hidden, head, targets], &[], &[])
    }

    /// `-log softmax(logits)[target]`, nats: `[..., V]` and i32 `[...]` to `[...]`. 0 for a target outside 0..V.
    #[track_caller]
    pub fn cross_entropy(&'c self, logits: Tensor<'c>, targets: Tensor<'c>) -> Tensor<'c> {
        self.emit(Op::CrossEntropy, &[logits, targets], &[], &[])
    }

    /// SwiGLU feed-forward layer (Shazeer 2020, eq. 6) with matrices `name.gate`, `name.up` and `name.down`:
    /// `[..., D]` to `[..., D]` through `[..., hidden]`. `factor` as in [`Cx::linear_scaled`], for `name.down`.
    #[track_caller]
    pub fn swiglu(&'c self, name: &str, x: Tensor<'c>, hidden: usize, factor: f64) -> Tensor<'c> {
        let gate = self.linear(&format!("{name}.gate"), x, hidden);
        let up = self.linear(&format!("{name}.up"), x, hidden);
        self.linear_scaled(&format!("{name}.down"), gate.swiglu(up), x.dim(-1), factor)
    }

    /// [`causal_conv`] with a filter `name` of [C, taps], uniform within 1 / sqrt(taps); without a tail, the sequence
    /// starts here. Its role is that of a gain: it scales channels, and optimizers of matrices must leave it alone.
    #[track_caller]
    pub fn causal_conv(
        &'c self,
        name: &str,
        x: Tensor<'c>,
        taps: usize,
        tail: Option<Tensor<'c>>,
    ) -> (Tensor<'c>, Tensor<'c>) {
        if taps < 2 {
            let failed =
                self.fail("a causal convolution needs at least 2 taps; with one, multiply by a gain");
            return (failed, failed);
        }
        let init = Init::Uniform(1.0 / (taps as f64).sqrt());
        let weight = self.parameter(name, &[x.dim(-1), taps], Role::Gain, init);
        let start = || self.constant(0.0, DType::F32, &[x.dim(0), taps - 1, x.dim(-1)]);
        causal_conv(x, weight, tail.unwrap_or_else(start))
    }
}
