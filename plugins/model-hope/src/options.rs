//! The options of HOPE, and what follows from them for its memories.

use nested::cms::{Form, Gate, GateOf, Metric, Rules, WriteGrad};
use nested::teach::{Schedule, Teach, TeachNorm};
use plugin_api::prelude::*;
use plugin_api::{schemars, serde};

options! {
    /// What teaches a level.
    pub enum TaughtBy {
        /// The gradient of the chunk's loss at its own output (eq. 71).
        Task,
        /// Twice the gradient at the output of its block, the same for all levels: descent on the distance to what the
        /// block should have said.
        Block,
    }
}

/// One number for all levels, or one for each.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "plugin_api::serde", untagged)]
#[schemars(crate = "plugin_api::schemars")]
pub enum PerLevel {
    All(f64),
    Each(Vec<f64>),
}

options! {
    /// Attention, then a chain of memories that learn while they read.
    pub struct Hope {
        /// Width D.
        #[schemars(range(min = 1))]
        pub d_model: usize = 128,
        /// Blocks.
        #[schemars(range(min = 1))]
        pub layers: usize = 2,
        /// Hidden width of a level; 0 means 4 D.
        pub d_hidden: usize = 0,
        /// Tokens between two writes of each level, from the fastest to the slowest.
        pub periods: Vec<usize> = vec![32, 128],
        /// Tokens that are read before memories may be written; divides every period.
        #[schemars(range(min = 1))]
        pub online_chunk: usize = 32,
        /// Step of a write: one number, or one for each level.
        pub memory_lr: PerLevel = PerLevel::All(0.01),
        /// Trains the steps of writes, from `memory_lr` on.
        pub learn_memory_lr: bool = false,
        /// What a write leaves of a memory's earlier writes.
        #[schemars(range(min = 0.0, max = 1.0))]
        pub retain: f64 = 1.0,
        pub teach: TaughtBy = TaughtBy::Task,
        /// Factor on the teach signal.
        pub teach_scale: f64 = 1.0,
        pub teach_norm: TeachNorm = TeachNorm::Token,
        /// Steps of training over which the teach signal grows to its full scale, in a line.
        pub teach_warmup: usize = 0,
        /// Last step before the teach signal falls to 0, where it does.
        pub teach_decay_start: usize = 0,
        /// Steps of that fall, in a line; 0 for none. After it, memories learn nothing, in evaluation too.
        pub teach_decay_steps: usize = 0,
        /// Greatest length of a token's teach signal; 0 for none.
        #[schemars(range(min = 0.0))]
        pub teach_clip: f64 = 0.0,
        /// What has to be surprising for a write.
        pub gate: GateOf = GateOf::Off,
        pub gate_metric: Metric = Metric::L2,
        /// Smallest surprise that counts.
        #[schemars(range(min = 0.0))]
        pub gate_threshold: f64 = 1.0,
        /// The threshold is a factor on the running mean of the level's earlier writes.
        pub gate_relative: bool = true,
        pub write_grad: WriteGrad = WriteGrad::Full,
        /// How written matrices are held.
        pub form: Form = Form::Auto,
        /// Whether memories are written at all.
        pub writes: bool = true,
        /// Rotary positions; the paper has none.
        pub rope: bool = true,
    }
}

impl Hope {
    /// What the chains are made and written by.
    pub(crate) fn rules(&self) -> Rules {
        let levels = self.periods.len();
        Rules {
            hidden: if self.d_hidden == 0 { 4 * self.d_model } else { self.d_hidden },
            periods: self.periods.clone(),
            rates: match &self.memory_lr {
                PerLevel::All(rate) => vec![*rate; levels],
                PerLevel::Each(rates) => rates.clone(),
            },
            learn_rates: self.learn_memory_lr,
            retain: self.retain,
            write_grad: self.write_grad,
            form: self.form,
            gate: Gate {
                of: self.gate,
                metric: self.gate_metric,
                threshold: self.gate_threshold,
                relative: self.gate_relative,
            },
        }
    }

    /// How a chunk teaches.
    pub(crate) fn lessons(&self) -> Teach {
        Teach { norm: self.teach_norm, scale: self.teach_scale, clip: self.teach_clip }
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            warmup: self.teach_warmup,
            decay_start: self.teach_decay_start,
            decay_steps: self.teach_decay_steps,
        }
    }

    pub(crate) fn faults(&self, dims: &Dims) -> Vec<Fault> {
        let mut faults: Vec<(&str, String)> = Vec::new();
        for period in &self.periods {
            if *period == 0 || !period.is_multiple_of(self.online_chunk) {
                faults.push((
                    "periods",
                    format!("{period} is no multiple of online_chunk = {}", self.online_chunk),
                ));
            }
        }
        if self.periods.windows(2).any(|pair| pair[0] > pair[1]) {
            faults.push(("periods", "stand from the fastest to the slowest".into()));
        }
        let rates = self.rules().rates;
        if rates.len() != self.periods.len() {
            faults.push(("memory_lr", format!("{} numbers for {} levels", rates.len(), self.periods.len())));
        }
        if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0 || (self.learn_memory_lr && *rate == 0.0))
        {
            let least =
                if self.learn_memory_lr { "above 0, since its logarithm is trained" } else { "at least 0" };
            faults.push(("memory_lr", format!("a step is {least}")));
        }
        // A step is trained by what is read after the write, in the same window.
        let learns = self.writes && self.learn_memory_lr;
        let slowest = self.periods.last().copied().unwrap_or(0);
        if learns && self.write_grad == WriteGrad::None {
            faults.push(("learn_memory_lr", "no gradient passes a write with write_grad = \"none\"".into()));
        } else if learns && slowest >= dims.window {
            faults.push((
                "learn_memory_lr",
                format!(
                    "what a level of period {slowest} writes is not read in a window of {} tokens, so that no gradient \
                     reaches its step; lower its period or raise train.window",
                    dims.window
                ),
            ));
        }
        faults.into_iter().map(|(key, message)| (key.to_string(), message)).collect()
    }
}
