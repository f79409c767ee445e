//! A run: prepared, trained, evaluated, sampled, saved and reported.

mod checkpoint;
mod evaluate;
mod feed;
mod folder;
mod groups;
mod initial;
mod interval;
mod measure;
mod nonfinite;
mod prepare;
mod sample;
mod schedule;
mod step;
mod tensors;
mod text;
mod train;
mod trained;

use std::path::PathBuf;

pub use evaluate::{Answers, Evaluation, TagBits};
pub(crate) use feed::Inputs;
pub(crate) use folder::last_step;
pub use folder::{Summary, refuse_existing};
pub use groups::{Group, RoleCount, groups};
pub(crate) use prepare::prepare_at;
pub use prepare::{Prepared, prepare, prepare_resume};
pub(crate) use sample::draw;
pub use schedule::learning_rate;
pub(crate) use text::{Reading, training};
pub use train::{Finished, train};
pub(crate) use trained::{Reopened, Trained};

/// What a run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event {
    /// Before the first step.
    Started(Box<Started>),
    Step(Step),
    Evaluated {
        step: u64,
        bits_per_byte: f64,
        /// Share of all answers that were right; stories only.
        answers: Option<f64>,
    },
    Saved {
        step: u64,
        path: PathBuf,
    },
    /// An eval at the end of the run.
    Measuring {
        task: String,
        progress: crate::evals::Progress,
    },
    /// Something a person should see, in a sentence.
    Warning(String),
}

/// What is known before the first step.
#[derive(Clone, Debug)]
pub struct Started {
    pub folder: PathBuf,
    pub model: String,
    pub attention: String,
    pub optimizer: String,
    pub data: String,
    pub device: String,
    pub threads: usize,
    pub parameters: usize,
    /// Which optimizer updates what.
    pub groups: Vec<Group>,
    pub arena_bytes: usize,
    pub live_bytes: usize,
    pub state_bytes: usize,
    /// What is alive at the peak of the largest plan, the largest first.
    pub peak: Vec<plan::Held>,
    pub launches: usize,
    pub first_step: u64,
    pub steps: u64,
    pub tokens_per_step: usize,
    /// Seconds from the command to here.
    pub seconds: f64,
}

/// One optimizer step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Counted from 1.
    pub step: u64,
    pub steps: u64,
    pub loss: f64,
    pub lr: f64,
    pub grad_norm: f64,
    pub tokens_per_second: f64,
    pub seconds_left: f64,
}
