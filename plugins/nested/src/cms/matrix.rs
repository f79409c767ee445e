//! A weight matrix that is written by sums of outer products, W - sum_t l_t r_t', for each sequence its own.
//!
//! Dense, a write is a product over the tokens and every sequence has a matrix. Factored, the l_t and r_t are kept
//! beside the shared matrix, x W' - (x R') L, which is exact and cheaper while there are few of them: a read of n of
//! them costs 2 n (H + D) operations a token, a dense write 2 H D for each token written.

use plugin_api::prelude::*;

/// Outer products of a stretch of tokens: `left[B, n, out]`, `right[B, n, in]`.
#[derive(Clone, Copy)]
pub struct Products<'c> {
    pub left: Tensor<'c>,
    pub right: Tensor<'c>,
}

#[derive(Clone, Copy)]
pub struct Matrix<'c> {
    held: Held<'c>,
}

#[derive(Clone, Copy)]
enum Held<'c> {
    /// `[out, in]`, or `[B, out, in]` once written.
    Dense(Fast<'c>),
    Factored {
        start: Tensor<'c>,
        left: Fast<'c>,
        right: Fast<'c>,
    },
}

impl<'c> Matrix<'c> {
    /// The matrix `name` of the current scope; factored, its products are two memories beside it.
    pub fn new(
        cx: &'c Cx<'c>,
        [name, left, right]: [&'c str; 3],
        start: Tensor<'c>,
        factored: bool,
    ) -> Matrix<'c> {
        let held = match factored {
            false => Held::Dense(cx.fast(name, start, Lifetime::Stream)),
            // Until they are written there are none, so what they start from is never read.
            true => Held::Factored {
                start,
                left: cx.fast(left, start, Lifetime::Sequence),
                right: cx.fast(right, start, Lifetime::Sequence),
            },
        };
        Matrix { held }
    }

    /// The memory of a dense matrix.
    pub fn dense(self) -> Option<Fast<'c>> {
        match self.held {
            Held::Dense(memory) => Some(memory),
            Held::Factored { .. } => None,
        }
    }

    /// Writes are constants of the outer gradient, which goes to the start.
    pub fn held_fast(self) -> Weights<'c> {
        match self.held {
            Held::Dense(memory) => Weights::Matrix(super::level::held_fast(memory)),
            Held::Factored { .. } => match self.through_writes() {
                Weights::Matrix(start) => Weights::Matrix(start),
                Weights::Sum(start, products) => {
                    let Products { left, right } = products;
                    Weights::Sum(start, Products { left: left.stop_grad(), right: right.stop_grad() })
                }
            },
        }
    }

    /// Gradients pass to what was written.
    pub fn through_writes(self) -> Weights<'c> {
        match self.held {
            Held::Dense(memory) => Weights::Matrix(memory.value()),
            Held::Factored { start, left, .. } if !left.is_written() => Weights::Matrix(start),
            Held::Factored { start, left, right } => {
                Weights::Sum(start, Products { left: left.value(), right: right.value() })
            }
        }
    }

    /// What is left of `old` and of earlier writes, minus new outer products. `retain` is `[B, 1, 1]`.
    pub fn write(self, cx: &'c Cx<'c>, old: Weights<'c>, retain: Option<Tensor<'c>>, new: Products<'c>) {
        match (self.held, old) {
            (Held::Dense(memory), Weights::Matrix(old)) => {
                let batch = new.left.dim(0);
                let own = |x: Tensor<'c>| x.repeat(&[batch, new.left.dim(2), new.right.dim(2)]);
                let kept = match retain {
                    Some(retain) => own(memory.start()) + own(old - memory.start()) * retain,
                    None => own(old),
                };
                memory.write(new.left.transposed().matmul_add(-1.0, new.right, 1.0, kept));
            }
            (Held::Factored { left, right, .. }, Weights::Sum(_, old)) => {
                let kept = retain.map_or(old.left, |retain| old.left * retain);
                left.write(cx.concat(&[kept, new.left], 1));
                right.write(cx.concat(&[old.right, new.right], 1));
            }
            (Held::Factored { left, right, .. }, Weights::Matrix(_)) => {
                left.write(new.left);
                right.write(new.right);
            }
            (Held::Dense(_), Weights::Sum(..)) => unreachable!("a dense matrix reads as a matrix"),
        }
    }

    /// |W - W0|^2, the mean over sequences, and |W0|^2. Outer products cost as much to measure as to read, so there the
    /// first sequence stands for all.
    pub fn moved(self) -> Option<(Tensor<'c>, Tensor<'c>)> {
        match self.held {
            Held::Dense(memory) if memory.is_written() => Some(super::level::distance(memory)),
            // The squared norm of a sum of outer products is the sum of the products of their Gram matrices.
            Held::Factored { start, left, right } if left.is_written() => {
                let gram = |memory: Fast<'c>| {
                    let first = memory.value().slice(0, 0, 1);
                    first.dot_each(first)
                };
                Some(((gram(left) * gram(right)).total(), start.square().total()))
            }
            _ => None,
        }
    }
}

/// A matrix as it is read.
#[derive(Clone, Copy)]
pub enum Weights<'c> {
    /// `[out, in]`, or `[B, out, in]`.
    Matrix(Tensor<'c>),
    /// A shared matrix minus outer products.
    Sum(Tensor<'c>, Products<'c>),
}

impl<'c> Weights<'c> {
    /// x W': `[B, C, in]` to `[B, C, out]`.
    pub fn product(self, x: Tensor<'c>) -> Tensor<'c> {
        match self {
            Weights::Matrix(w) if w.rank() == 2 => x.dot_last(w),
            Weights::Matrix(w) => x.dot_each(w),
            Weights::Sum(w, Products { left, right }) => {
                x.dot_each(right).matmul_add(-1.0, left, 1.0, x.dot_last(w))
            }
        }
    }
}
