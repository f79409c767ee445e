//! One level: a residual network of two layers whose weights are a memory, f(x) = x + w2 gelu(w1 LN(x) + b1) + b2.
//!
//! Weights are shared, or each sequence has its own. The gradient of a write consists of outer products for the two
//! matrices and of sums over tokens for the four vectors (`Slopes`).

use plugin_api::prelude::*;

use super::Rules;
use super::matrix::{Matrix, Products, Weights};

#[derive(Clone, Copy)]
pub struct Level<'c> {
    cx: &'c Cx<'c>,
    vectors: [Fast<'c>; 4],
    matrices: [Matrix<'c>; 2],
}

/// What the outer gradient sees of the weights in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// All writes.
    Through,
    /// The initial weights: writes are constants.
    Held,
}

/// The gradient of <f(x), teach> with respect to the weights, over a stretch of n tokens.
#[derive(Clone, Copy)]
pub struct Slopes<'c> {
    /// Of gain, shift, b1, b2: `[B, D or H]`.
    vectors: [Tensor<'c>; 4],
    /// Of w1, w2.
    matrices: [Products<'c>; 2],
}

/// How far a write goes: both `[B, 1]`.
#[derive(Clone, Copy)]
pub struct Step<'c> {
    rate: Tensor<'c>,
    /// What is left of earlier writes; None for all.
    retain: Option<Tensor<'c>>,
}

impl<'c> Step<'c> {
    /// The step that the rules give a level, in its scope. Where `open` is 0, nothing changes.
    pub fn new(
        cx: &'c Cx<'c>,
        rules: &Rules,
        level: usize,
        batch: usize,
        open: Option<Tensor<'c>>,
    ) -> Step<'c> {
        let rate = match rules.learn_rates {
            true => {
                cx.parameter("log_rate", &[1], Role::Scalar, Init::Constant(rules.rates[level].ln())).exp()
            }
            false => cx.constant(rules.rates[level], DType::F32, &[1]),
        };
        let rate = rate.repeat(&[batch, 1]);
        let gated = |x: Tensor<'c>| open.map_or(x, |open| x * open);
        let lost = cx.constant(1.0 - rules.retain, DType::F32, &[batch, 1]);
        let retain = (rules.retain != 1.0).then(|| 1.0 - gated(lost));
        Step { rate: gated(rate), retain }
    }
}

impl<'c> Level<'c> {
    /// The level of the current scope.
    pub fn new(cx: &'c Cx<'c>, width: usize, hidden: usize, factored: bool) -> Level<'c> {
        let vector = |name, length: usize, role, value| {
            let start = cx.parameter(name, &[length], role, Init::Constant(value));
            cx.fast(name, start, Lifetime::Stream)
        };
        let matrix = |names: [&'c str; 3], dims: [usize; 2]| {
            let start = cx.parameter(names[0], &dims, Role::Matrix, Init::Normal(0.02));
            Matrix::new(cx, names, start, factored)
        };
        let gain = vector("gain", width, Role::Gain, 1.0);
        let shift = vector("shift", width, Role::Bias, 0.0);
        let w1 = matrix(["w1", "w1.left", "w1.right"], [hidden, width]);
        let b1 = vector("b1", hidden, Role::Bias, 0.0);
        let w2 = matrix(["w2", "w2.left", "w2.right"], [width, hidden]);
        let b2 = vector("b2", width, Role::Bias, 0.0);
        Level { cx, vectors: [gain, shift, b1, b2], matrices: [w1, w2] }
    }

    /// The output for `x[B, C, D]`, with the weights in force.
    pub fn read(&self, x: Tensor<'c>, view: View) -> Tensor<'c> {
        let [gain, shift, b1, b2] = self.vectors(view);
        let [w1, w2] = self.matrices(view);
        let inner = w1.product(x.standardized(1e-5) * row(gain) + row(shift)) + row(b1);
        x + w2.product(inner.gelu()) + row(b2)
    }

    /// Slopes of what was read, x and its teach signal `[B, C, D]`, which is held.
    pub fn slopes(&self, x: Tensor<'c>, teach: Tensor<'c>, view: View) -> Slopes<'c> {
        let [gain, shift, b1, _] = self.vectors(view);
        let [w1, w2] = self.matrices(view);
        // Marked, so that the cotangents are those of this pass: x and teach came from the same weights.
        let normal = x.standardized(1e-5);
        let scaled = self.cx.save(normal * row(gain) + row(shift));
        let inner = self.cx.save(w1.product(scaled) + row(b1));
        let active = inner.gelu();
        let taught = (w2.product(active) * teach).total();
        let [of_scaled, of_inner] = self.cx.grad(taught, &[scaled, inner])[..] else {
            unreachable!("grad gives one cotangent for each tensor")
        };
        Slopes {
            vectors: [
                over_tokens(of_scaled * normal),
                over_tokens(of_scaled),
                over_tokens(of_inner),
                over_tokens(teach),
            ],
            matrices: [Products { left: of_inner, right: scaled }, Products { left: teach, right: active }],
        }
    }

    /// W0 + retain (W - W0) - rate slopes for all weights.
    pub fn write(&self, slopes: Slopes<'c>, Step { rate, retain }: Step<'c>, view: View) {
        let per_token = |x: Tensor<'c>| x.reshape(&[x.dim(0), 1, 1]);
        for ((memory, old), slope) in self.vectors.into_iter().zip(self.vectors(view)).zip(slopes.vectors) {
            let kept = retain.map_or(old, |retain| memory.start() + (old - memory.start()) * retain);
            memory.write(kept - slope * rate);
        }
        for ((matrix, old), new) in self.matrices.into_iter().zip(self.matrices(view)).zip(slopes.matrices) {
            let scaled = Products { left: new.left * per_token(rate), right: new.right };
            matrix.write(self.cx, old, retain.map(per_token), scaled);
        }
    }

    /// The memories of a dense level, with the names under which what is pending for them is kept: vectors, then
    /// matrices.
    pub fn weights(&self) -> Vec<(Fast<'c>, &'static str)> {
        const PENDING: [&str; 6] =
            ["gain.pending", "shift.pending", "b1.pending", "b2.pending", "w1.pending", "w2.pending"];
        let matrices = self.matrices.iter().filter_map(|matrix| matrix.dense());
        self.vectors.into_iter().chain(matrices).zip(PENDING).collect()
    }

    /// Writes one of [`Level::weights`] from the sum of its slopes, `[B, ...]`.
    pub fn write_sum(&self, memory: Fast<'c>, slope: Tensor<'c>, Step { rate, retain }: Step<'c>) {
        let of_rows = |x: Tensor<'c>| {
            let ones = vec![1; slope.rank() - 1];
            x.reshape(&[&[slope.dim(0)], &ones[..]].concat())
        };
        let old = memory.value();
        let kept = retain.map_or(old, |retain| memory.start() + (old - memory.start()) * of_rows(retain));
        memory.write(kept - slope * of_rows(rate));
    }

    /// |W - W0|^2 and |W0|^2 of all weights, the mean over sequences; None before the first write.
    pub fn moved(&self) -> Option<(Tensor<'c>, Tensor<'c>)> {
        let of_vectors =
            self.vectors.iter().filter(|memory| memory.is_written()).map(|memory| distance(*memory));
        let of_matrices = self.matrices.iter().filter_map(|matrix| matrix.moved());
        of_vectors.chain(of_matrices).reduce(|(a, b), (c, d)| (a + c, b + d))
    }

    fn vectors(&self, view: View) -> [Tensor<'c>; 4] {
        self.vectors.map(|memory| match view {
            View::Through => memory.value(),
            View::Held => held_fast(memory),
        })
    }

    fn matrices(&self, view: View) -> [Weights<'c>; 2] {
        self.matrices.map(|matrix| match view {
            View::Through => matrix.through_writes(),
            View::Held => matrix.held_fast(),
        })
    }
}

impl<'c> Slopes<'c> {
    /// The slopes of stretches that follow one another.
    pub fn joined(cx: &'c Cx<'c>, parts: &[Slopes<'c>]) -> Option<Slopes<'c>> {
        let sum = |at: usize| parts.iter().map(|part| part.vectors[at]).reduce(|a, b| a + b);
        let all = |at: usize| {
            let of = |side: fn(&Products<'c>) -> Tensor<'c>| {
                cx.concat(&parts.iter().map(|part| side(&part.matrices[at])).collect::<Vec<_>>(), 1)
            };
            Products { left: of(|products| products.left), right: of(|products| products.right) }
        };
        let vectors = [sum(0)?, sum(1)?, sum(2)?, sum(3)?];
        Some(Slopes { vectors, matrices: [all(0), all(1)] })
    }

    /// The same values, constants of every gradient.
    pub fn stop_grad(self) -> Slopes<'c> {
        let stopped = |products: Products<'c>| Products {
            left: products.left.stop_grad(),
            right: products.right.stop_grad(),
        };
        Slopes { vectors: self.vectors.map(Tensor::stop_grad), matrices: self.matrices.map(stopped) }
    }

    /// Sums over tokens for each weight, in the order of [`Level::weights`].
    pub fn sums(self) -> [Tensor<'c>; 6] {
        let [gain, shift, b1, b2] = self.vectors;
        let [w1, w2] = self.matrices.map(|products| products.left.transposed().matmul(products.right));
        [gain, shift, b1, b2, w1, w2]
    }

    /// Sequences of the batch.
    pub fn batch(self) -> usize {
        self.vectors[0].dim(0)
    }
}

/// |W - W0|^2 of a memory that was written, the mean over sequences, and |W0|^2.
pub(super) fn distance<'c>(memory: Fast<'c>) -> (Tensor<'c>, Tensor<'c>) {
    let beyond = (memory.value() - memory.start()).square().total();
    (beyond * (1.0 / memory.value().dim(0) as f64), memory.start().square().total())
}

/// A memory whose cotangent goes to its start.
pub(super) fn held_fast(memory: Fast<'_>) -> Tensor<'_> {
    match memory.is_written() {
        true => memory.value().straight_through(memory.start().repeat(&memory.value().dims())),
        false => memory.value(),
    }
}

/// A vector for each sequence, beside its tokens.
fn row(vector: Tensor<'_>) -> Tensor<'_> {
    if vector.rank() == 1 { vector } else { vector.reshape(&[vector.dim(0), 1, vector.dim(1)]) }
}

/// `[B, C, N]` to `[B, N]`.
fn over_tokens(x: Tensor<'_>) -> Tensor<'_> {
    x.sum(&[1]).reshape(&[x.dim(0), x.dim(2)])
}
