//! Teach signals (Behrouz et al. 2025, eq. 71): the gradient of a chunk's loss with respect to what a memory gave, which
//! is what the memory learns from. Here is how large that signal is: what the loss is averaged over, how it grows and
//! falls with the steps of training, and how long a token's may be.
//!
//! B sequences, C tokens of a chunk, D width.

use plugin_api::prelude::*;

options! {
    /// What a chunk's loss is averaged over, for the teach signal of one sequence.
    pub enum TeachNorm {
        /// Nothing: the sum over its tokens.
        Token,
        /// The tokens of the chunk.
        Chunk,
        /// The tokens of the chunk and the batch.
        Batch,
    }
}

impl TeachNorm {
    /// The loss of a chunk times `scale`, f32[].
    pub fn loss<'c>(self, lesson: Lesson<'c>, scale: f64) -> Tensor<'c> {
        let Lesson { losses_bc, active_bc } = lesson;
        let Some(active_bc) = active_bc else {
            let count = match self {
                TeachNorm::Token => 1,
                TeachNorm::Chunk => losses_bc.dim(1),
                TeachNorm::Batch => losses_bc.dim(0) * losses_bc.dim(1),
            };
            return losses_bc.total() * (scale / count as f64);
        };
        let at_least_one = |count: Tensor<'c>| count.max(number(count, 1.0));
        let loss = match self {
            TeachNorm::Token => losses_bc.total(),
            TeachNorm::Chunk => (losses_bc.sum(&[1]) / at_least_one(active_bc.sum(&[1]))).total(),
            TeachNorm::Batch => losses_bc.total() / at_least_one(active_bc.total()),
        };
        loss * scale
    }
}

/// What the tokens of a chunk have to teach.
#[derive(Clone, Copy)]
pub struct Lesson<'c> {
    /// `[B, C]`, 0 for a token without a target.
    pub losses_bc: Tensor<'c>,
    /// f32 `[B, C]`: 1 for a token with a target, else 0. None where all have one.
    pub active_bc: Option<Tensor<'c>>,
}

/// How a chunk teaches.
#[derive(Clone, Copy, Debug)]
pub struct Teach {
    pub norm: TeachNorm,
    /// Factor on the signal.
    pub scale: f64,
    /// Greatest length of a token's signal, after the scale; 0 for none.
    pub clip: f64,
}

impl Teach {
    /// Cotangents of `outputs` `[B, C, D]` for the chunk's loss times `factor`, each sequence for itself.
    pub fn signals<'c>(
        &self,
        cx: &'c Cx<'c>,
        lesson: Lesson<'c>,
        factor: Option<Tensor<'c>>,
        outputs: &[Tensor<'c>],
    ) -> Vec<Tensor<'c>> {
        let loss = self.norm.loss(lesson, self.scale);
        let loss = factor.map_or(loss, |factor| loss * factor);
        cx.grad(loss, outputs).into_iter().map(|teach| self.clipped(teach)).collect()
    }

    /// delta / max(|delta| / clip, 1) for each token. The root stands outside the maximum, for a derivative at 0.
    fn clipped<'c>(&self, teach_bcd: Tensor<'c>) -> Tensor<'c> {
        if self.clip == 0.0 {
            return teach_bcd;
        }
        let excess = teach_bcd.square().sum(&[2]) * (1.0 / (self.clip * self.clip));
        teach_bcd / excess.max(number(excess, 1.0)).sqrt()
    }
}

/// Mean length of a token's signal, f32[]: how much a chunk surprised. A measure, so no gradient passes.
pub fn surprise(teach_bcd: Tensor<'_>) -> Tensor<'_> {
    teach_bcd.stop_grad().square().sum(&[2]).sqrt().mean(&[0, 1]).reshape(&[])
}

/// Factor on the signal by the step of training: it grows in a line to 1, and later falls in a line to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Steps of growth; 0 starts at 1.
    pub warmup: usize,
    /// Last step before the fall, counted from 1.
    pub decay_start: usize,
    /// Steps of the fall; 0 for none.
    pub decay_steps: usize,
}

impl Schedule {
    /// The factor of this step, f32[]; None where it is always 1.
    pub fn now<'c>(&self, cx: &'c Cx<'c>) -> Option<Tensor<'c>> {
        (self.warmup > 0 || self.decay_steps > 0).then(|| self.at(cx.step()))
    }

    /// The factor at `step`, i32[], which counts from 0.
    pub fn at<'c>(&self, step: Tensor<'c>) -> Tensor<'c> {
        let i = step.cast(DType::F32) + 1.0;
        let (zero, one) = (number(i, 0.0), number(i, 1.0));
        let mut factor = one;
        if self.warmup > 0 {
            factor = one.min(i / self.warmup as f64);
        }
        if self.decay_steps > 0 {
            let fallen = (i - self.decay_start as f64) / self.decay_steps as f64;
            factor = factor * (1.0 - fallen.max(zero).min(one));
        }
        factor
    }
}

fn number<'c>(like: Tensor<'c>, value: f64) -> Tensor<'c> {
    like.cx().constant(value, DType::F32, &[])
}
