//! Surprise: what lets a write happen, each sequence for itself.

use plugin_api::options;
use plugin_api::prelude::*;

options! {
    /// What has to be surprising for a write.
    #[derive(Default)]
    pub enum GateOf {
        /// Nothing: every write happens.
        #[default]
        Off,
        /// The mean over the tokens of a write: below the threshold there is none.
        Chunk,
        /// Each token: those below the threshold are left out.
        Token,
    }
}

options! {
    /// The measure of a token's surprise.
    #[derive(Default)]
    pub enum Metric {
        /// Length of its teach signal at the level.
        #[default]
        L2,
        /// Its loss, nats.
        Loss,
        /// Entropy of the prediction, nats.
        Entropy,
    }
}

#[derive(Clone, Debug)]
pub struct Gate {
    pub of: GateOf,
    pub metric: Metric,
    pub threshold: f64,
    /// The threshold is a factor on the running mean of the level's earlier writes.
    pub relative: bool,
}

/// What is known of the tokens of a chunk, each `[B, C]`.
#[derive(Clone, Copy)]
pub struct Surprise<'c> {
    /// Nats; needed by the metric `loss`.
    pub losses: Option<Tensor<'c>>,
    /// Nats; needed by the metric `entropy`.
    pub entropy: Option<Tensor<'c>>,
    /// 1 for tokens that have a target, else 0; None where all have.
    pub counted: Option<Tensor<'c>>,
}

/// Weight of the past in the running mean.
const DECAY: f64 = 0.9;

impl Gate {
    /// Surprise of each token, `[B, C]`, by the metric, without a gradient; None where nothing asks for it.
    pub(super) fn values<'c>(
        &self,
        cx: &'c Cx<'c>,
        teach: Tensor<'c>,
        known: Surprise<'c>,
    ) -> Option<Tensor<'c>> {
        if self.of == GateOf::Off {
            return None;
        }
        let value = match self.metric {
            Metric::L2 => Some(lengths(teach)),
            Metric::Loss => known.losses,
            Metric::Entropy => known.entropy,
        };
        Some(value.unwrap_or_else(|| cx.fail("the surprise gate's metric is not known here")).stop_grad())
    }

    /// The teach signal of a level with tokens that surprise too little left out. In the scope of the level.
    pub(super) fn tokens<'c>(
        &self,
        cx: &'c Cx<'c>,
        teach: Tensor<'c>,
        values: Option<Tensor<'c>>,
    ) -> Tensor<'c> {
        let Some(values) = values.filter(|_| self.of == GateOf::Token) else { return teach };
        let batch = values.dim(0);
        let bound = self.bound(cx, batch).reshape(&[batch, 1]).repeat(&values.dims());
        let open = (1.0 - values.less(bound).cast(DType::F32)).reshape(&[batch, values.dim(1), 1]);
        teach * open
    }

    /// Which sequences write, `[B, 1]` of 1 and 0, from the sum of their surprise and the number of tokens, `[B]`; takes
    /// the mean into the running one of sequences whose write is `due` (`[B]`; None: all). In the scope of the level.
    pub(super) fn writes<'c>(
        &self,
        cx: &'c Cx<'c>,
        sum: Tensor<'c>,
        count: Tensor<'c>,
        due: Option<Tensor<'c>>,
    ) -> Tensor<'c> {
        let batch = sum.dim(0);
        let value = sum / count.max(count.number(1.0));
        let open = 1.0 - value.less(self.bound(cx, batch)).cast(DType::F32);
        if self.relative {
            let memory = self.mean(cx);
            let mean = memory.value().repeat(&[batch]);
            let first = mean.equals(mean.number(0.0));
            let next = first.select(value, mean * DECAY + value * (1.0 - DECAY));
            memory.write(due.map_or(next, |due| mean + (next - mean) * due));
        }
        open.stop_grad().reshape(&[batch, 1])
    }

    /// Smallest surprise that counts, `[B]`. With a running mean that is still 0, everything counts.
    fn bound<'c>(&self, cx: &'c Cx<'c>, batch: usize) -> Tensor<'c> {
        match self.relative {
            true => self.mean(cx).value().repeat(&[batch]) * self.threshold,
            false => cx.constant(self.threshold, DType::F32, &[batch]),
        }
    }

    fn mean<'c>(&self, cx: &'c Cx<'c>) -> Fast<'c> {
        cx.fast("surprise.mean", cx.constant(0.0, DType::F32, &[]), Lifetime::Stream)
    }
}

/// |x_t|_2 of `[B, C, D]`, as `[B, C]`, without a gradient.
pub(super) fn lengths(x: Tensor<'_>) -> Tensor<'_> {
    x.square().sum(&[2]).reshape(&[x.dim(0), x.dim(1)]).stop_grad().sqrt()
}
