//! Random numbers of a trace. A word is a function of the run's seed, the scope, the micro-batch and the iteration of
//! the Scans around it: a resumed run draws what it would have drawn, and every device draws the same words.

use std::f64::consts::TAU;
use std::panic::Location;

use crate::{Cx, DType, Op, Tensor};

/// Words become numbers by their upper bits: as many as an f32 holds exactly.
const BITS: i32 = 24;

impl<'c> Cx<'c> {
    /// Random u32 words. Two draws differ, in one scope too. In training only: ask [`Cx::training`] first.
    #[track_caller]
    pub fn random_words(&'c self, dims: &[usize]) -> Tensor<'c> {
        self.tensor(self.builder().random(dims, Location::caller()))
    }

    /// Whole numbers in 0..2^24, as u32.
    #[track_caller]
    fn random_steps(&'c self, words: Tensor<'c>) -> Tensor<'c> {
        words.binary(Op::Shr, words.number(f64::from(u32::BITS as i32 - BITS)))
    }

    /// Uniform in [0, 1), multiples of 2^-24.
    #[track_caller]
    pub fn uniform(&'c self, dims: &[usize]) -> Tensor<'c> {
        self.random_steps(self.random_words(dims)).cast(DType::F32) * 0.5f64.powi(BITS)
    }

    /// Standard normal: two numbers from each block of two words (Box and Muller 1958).
    #[track_caller]
    pub fn normal(&'c self, dims: &[usize]) -> Tensor<'c> {
        let count: usize = dims.iter().product();
        let blocks = count.div_ceil(2);
        let steps = self.random_steps(self.random_words(&[blocks, 2])).cast(DType::F32);
        let unit = 0.5f64.powi(BITS);
        // One is added, so that the logarithm is finite.
        let radius = (((steps.slice(1, 0, 1) + 1.0) * unit).ln() * -2.0).sqrt();
        let angle = steps.slice(1, 1, 1) * (TAU * unit);
        let both = self.emit(Op::Concat, &[radius * angle.cos(), radius * angle.sin()], &[1], &[]);
        both.reshape(&[2 * blocks]).slice(0, 0, count).reshape(dims)
    }

    /// In training, x / (1 - rate) where a uniform number is at least `rate`, else 0 (Srivastava et al. 2014, scaled
    /// in training). x in evaluation, and where the rate is 0.
    #[track_caller]
    pub fn dropout(&'c self, x: Tensor<'c>, rate: f64) -> Tensor<'c> {
        if !(0.0..1.0).contains(&rate) {
            return self.fail(&format!("a dropout rate of {rate} does not lie in 0..1"));
        }
        if rate == 0.0 || !self.training() {
            return x;
        }
        // Compared as whole numbers, so that no device rounds the rate.
        let steps = self.random_steps(self.random_words(&x.dims()));
        let dropped = steps.less(steps.number((rate * 2f64.powi(BITS)).ceil()));
        dropped.select(x.number(0.0), x / (1.0 - rate))
    }
}
