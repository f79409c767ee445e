//! Corpora, tokenizers and batches: everything between a file (or a seed) and `[B, T]` token ids.
//!
//! Two sources share one view, [`Dataset`]: text files, and [`story`], a seeded grammar whose exact
//! probability is known, so that a model's loss can be compared with the best loss there is. Training
//! windows are counter-based: what window `w` holds depends on `(seed, split, w)` alone, so a run resumes
//! by knowing its step number and no reader state is ever saved.
#![forbid(unsafe_code)]

mod baselines;
mod bijection;
mod corpus;
mod dataset;
mod derivation;
mod error;
pub mod rng;
pub mod story;
mod tokenizer;

pub use baselines::{Baselines, StoryFloor, baselines, story_floor};
pub use corpus::TextCorpus;
pub use dataset::{Batch, Dataset, StoryTargets, Window};
pub use derivation::{AnswerSpan, Charge, Question, Tag, Told};
pub use error::DataError;
pub use rng::{Stream, stream_number, threefry};
pub use story::{StoryCorpus, StoryOptions, StoryWindow};
pub use tokenizer::{CharVocab, Tokenizer};

/// Which part of a corpus a window comes from. The two never share text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    Train,
    Validation,
}

impl Split {
    /// The split's name in messages and in the names of random streams.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "training",
            Split::Validation => "validation",
        }
    }
}
