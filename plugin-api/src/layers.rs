//! Layers with parameters of their own, and the composites.

use crate::{Cx, DType, Init, Op, Role, Tensor};

/// Standard deviation of weights and embeddings: small enough that the first loss is ln V (docs: design).
const INIT_STD: f64 = 0.02;

/// Causal softmax attention: `q[B, H, T, D]`, `k` and `v` `[B, G, T, D]`, scores scaled by 1 / sqrt(D).
#[track_caller]
pub fn attention<'c>(q: Tensor<'c>, k: Tensor<'c>, v: Tensor<'c>) -> Tensor<'c> {
    let scale = 1.0 / (q.dim(-1) as f64).sqrt();
    q.cx().emit(Op::Attention, &[q, k, v], &[], &[scale])
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

    /// Rotary positions (Su et al. 2021): `x[B, H, T, D]` turned by `positions[T]`.
    #[track_caller]
    pub fn rope(&'c self, x: Tensor<'c>, positions: Tensor<'c>, theta: f64) -> Tensor<'c> {
        self.emit(Op::Rope, &[x, positions], &[], &[theta])
    }

    /// `-log softmax(hidden head')[target]` per token, nats: `[B, T, D]`, `[V, D]`, `[B, T]` to `[B, T]`.
    #[track_caller]
    pub fn linear_cross_entropy(
        &'c self,
        hidden: Tensor<'c>,
        head: Tensor<'c>,
        targets: Tensor<'c>,
    ) -> Tensor<'c> {
        self.emit(Op::LinearCrossEntropy, &[hidden, head, targets], &[], &[])
    }

    /// 0, 1, ..., T - 1 for `x[B, T, ...]`.
    #[track_caller]
    pub fn positions(&'c self, x: Tensor<'c>) -> Tensor<'c> {
        self.emit(Op::Iota, &[], &[0, DType::I32 as i64, x.dim(1) as i64], &[])
    }
}
