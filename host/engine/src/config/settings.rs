//! The typed tree of everything a run can be told, with defaults, ranges and docs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DeviceName;
use super::size::Size;

/// Everything about a run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// Decides initial values, data order and every random draw.
    pub seed: u64,
    pub device: DeviceName,
    /// Threads of the CPU device; 0 means as many as there are cores.
    #[schemars(range(max = 256))]
    pub threads: usize,
    /// Most memory of State and arena together, `"512MiB"` or bytes; 0 means no limit. Below what a run would take by
    /// itself it computes values again instead of keeping them: the same results, later.
    pub memory_budget: Size,
    pub model: Choice,
    pub attention: Choice,
    pub optimizer: Choice,
    pub train: Train,
    pub data: Data,
    pub sample: Sample,
    /// Options under the names of evals: those that `train.evals` names count.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eval: ComponentOptions,
}

/// Options by the name of the component.
pub type ComponentOptions = BTreeMap<String, Map<String, Value>>;

/// A component by name, and options under the names of components: those of the chosen one count.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// `name` or `plugin/name`.
    pub name: String,
    #[serde(flatten)]
    pub options: ComponentOptions,
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    Constant,
    /// A straight fall over all remaining steps.
    Linear,
    /// Half a cosine over all remaining steps.
    Cosine,
    /// Warmup, stable, decay: constant, then a straight fall over the last `decay` of all steps.
    WsdLinear,
    /// The same with the fall 1 - sqrt: steep at first (Haegele et al. 2024).
    WsdSqrt,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Train {
    /// Optimizer steps.
    #[schemars(range(min = 1))]
    pub steps: u64,
    /// Windows in a micro-batch, B.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch: usize,
    /// Micro-batches of a step.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub accumulate: usize,
    /// Tokens of a window, T.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub window: usize,
    /// Windows of a text that a row reads one after another while its memories last; 1 makes each window a text.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub stream: usize,
    /// Peak learning rate.
    #[schemars(range(min = 0.0))]
    pub lr: f64,
    /// Steps over which the rate rises linearly from 0.
    pub warmup: u64,
    pub schedule: ScheduleKind,
    /// Last learning rate as a fraction of the peak.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_lr: f64,
    /// Part of the steps over which a wsd schedule falls; linear and cosine fall over all after the warm-up.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub decay: f64,
    /// Largest global gradient norm; 0 turns clipping off.
    #[schemars(range(min = 0.0))]
    pub clip: f64,
    /// Steps between evaluations; 0 means only at the end.
    pub eval_every: u64,
    /// Most validation windows of an evaluation.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub eval_windows: usize,
    /// Evals that measure the run after its last step; `host eval` measures it later.
    pub evals: Vec<String>,
    /// Steps between checkpoints; 0 means only at the end.
    pub save_every: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerName {
    Byte,
    Char,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Data {
    /// Text file, folder or JSONL; empty means the embedded story corpus.
    pub path: PathBuf,
    pub tokenizer: TokenizerName,
    pub story: Story,
}

/// Dials of the embedded story corpus; 0 leaves one to `train.window`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Story {
    /// People in a story, 2 to 10: the candidates of a "who" question.
    #[schemars(range(max = 10))]
    pub people: usize,
    /// Least distance of an answer from the sentence that states the fact, in bytes.
    pub nearest: usize,
    /// Greatest such distance.
    pub farthest: usize,
}

/// From what memories learn in generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteOn {
    /// From the prompt: not from what the model itself says.
    Prompt,
    /// From prompt and sample.
    All,
    /// From nothing.
    Off,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sample {
    /// Tokens of the sample at the end of a run; 0 means none.
    #[schemars(range(max = 1_000_000))]
    pub tokens: usize,
    /// 0 is greedy.
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// What memories that learn from their losses learn from while a sample is made.
    pub write_on: WriteOn,
    /// Start of the sample; empty means the first words of the validation text.
    pub prompt: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            seed: 1,
            device: DeviceName::Auto,
            threads: 0,
            memory_budget: Size::Bytes(0),
            model: Choice::named("transformer"),
            attention: Choice::named("full"),
            optimizer: Choice::named("adamw"),
            train: Train::default(),
            data: Data { path: PathBuf::new(), tokenizer: TokenizerName::Byte, story: Story::default() },
            sample: Sample {
                tokens: 300,
                temperature: 0.8,
                write_on: WriteOn::Prompt,
                prompt: String::new(),
            },
            eval: BTreeMap::new(),
        }
    }
}

impl Default for Train {
    fn default() -> Train {
        Train {
            steps: 500,
            batch: 16,
            accumulate: 1,
            window: 128,
            stream: 1,
            lr: 3e-3,
            warmup: 50,
            schedule: ScheduleKind::Cosine,
            final_lr: 0.1,
            decay: 0.4,
            clip: 1.0,
            eval_every: 0,
            eval_windows: 256,
            evals: Vec::new(),
            save_every: 0,
        }
    }
}

impl Default for Data {
    fn default() -> Data {
        Settings::default().data
    }
}

impl Default for Sample {
    fn default() -> Sample {
        Settings::default().sample
    }
}

impl Settings {
    /// Options of the components of a section; those of optimizers where the section is no other.
    pub(super) fn options(&self, section: &str) -> &ComponentOptions {
        match section {
            "model" => &self.model.options,
            "attention" => &self.attention.options,
            "eval" => &self.eval,
            _ => &self.optimizer.options,
        }
    }

    pub(super) fn options_mut(&mut self, section: &str) -> &mut ComponentOptions {
        match section {
            "model" => &mut self.model.options,
            "attention" => &mut self.attention.options,
            "eval" => &mut self.eval,
            _ => &mut self.optimizer.options,
        }
    }
}

impl Choice {
    fn named(name: &str) -> Choice {
        Choice { name: name.into(), options: BTreeMap::new() }
    }

    /// Name without its plugin: the key of its options.
    pub fn short(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}
