//! The one view the engine has of its data: a story grammar or a text, with a tokenizer.
//!
//! Shapes: B rows of a batch, T tokens of a window. Training window `w = micro_step * B + row` is a function
//! of the seed and `w`: batches need no state, and a resumed run continues with the same text.
//! Validation windows are the same for every seed, so that runs compare.

mod text;

use text::Text;

use crate::Split;
use crate::corpus::TextCorpus;
use crate::derivation::{AnswerSpan, Charge};
use crate::error::DataError;
use crate::story::{StoryCorpus, StoryWindow};
use crate::tokenizer::Tokenizer;

/// The seed of validation stories, whatever the run's.
const VALIDATION_SEED: u64 = 0;

/// Training data of one micro-step, row-major: row `r` is `[r * T..(r + 1) * T]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `[B * T]`
    pub tokens: Vec<i32>,
    /// `[B * T]`: the token after each.
    pub targets: Vec<i32>,
}

/// A validation window.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// `[T]`
    pub tokens: Vec<i32>,
    /// `[T]`
    pub targets: Vec<i32>,
    /// UTF-8 bytes of the targets: the denominator of bits per byte.
    pub bytes: usize,
    /// For the story corpus only.
    pub story: Option<StoryTargets>,
}

/// What is known about the targets of a story window.
#[derive(Clone, Debug, PartialEq)]
pub struct StoryTargets {
    /// `[T]`: the price of each target.
    pub charges: Vec<Charge>,
    /// Answers that lie wholly inside; `start` and `end` index the targets.
    pub answers: Vec<AnswerSpan>,
}

/// A corpus with its tokenizer.
#[derive(Clone, Debug)]
pub struct Dataset {
    tokenizer: Tokenizer,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The grammar, and the token id of each ASCII byte.
    Story(StoryCorpus, Vec<i32>),
    Text(Text),
}

impl Dataset {
    /// Stories. Errors: [`DataError::UnknownCharacter`] if the tokenizer lacks a character of the grammar
    /// ([`StoryCorpus::char_tokenizer`] has them all).
    pub fn story(corpus: StoryCorpus, tokenizer: Tokenizer) -> Result<Dataset, DataError> {
        let mut ids = vec![0; 128];
        for character in StoryCorpus::alphabet().chars() {
            // The alphabet is ASCII, so one character is one byte and one token.
            ids[character as usize] = tokenizer.encode(character.to_string())?[0];
        }
        Ok(Dataset { tokenizer, source: Source::Story(corpus, ids) })
    }

    /// A text. Errors (char only): [`DataError::NotUtf8`], or [`DataError::UnknownCharacter`] with the offset
    /// in the joined documents, if the tokenizer was made for another text.
    pub fn text(corpus: &TextCorpus, tokenizer: Tokenizer) -> Result<Dataset, DataError> {
        let text = Text::encode(corpus, &tokenizer)?;
        Ok(Dataset { tokenizer, source: Source::Text(text) })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// One line for a person: what the data is and how much of it there is.
    pub fn describe(&self) -> String {
        let vocabulary = self.vocab_size();
        match &self.source {
            Source::Story(corpus, _) => {
                let options = corpus.options();
                format!(
                    "story grammar, {} people a story, answers {} to {} bytes away, vocabulary {vocabulary}",
                    options.people, options.nearest, options.farthest
                )
            }
            Source::Text(text) => format!("{}, vocabulary {vocabulary}", text.describe()),
        }
    }

    /// blake3 of a text's joined documents, in hexadecimal; none for stories, which their seed determines.
    pub fn content_hash(&self) -> Option<&str> {
        match &self.source {
            Source::Story(..) => None,
            Source::Text(text) => Some(&text.hash),
        }
    }

    /// Is there at least one window of `window` tokens in both splits? To be asked before a run starts.
    ///
    /// Errors: [`DataError::EmptyWindow`], [`DataError::SplitTooShort`].
    pub fn check_window(&self, window: usize) -> Result<(), DataError> {
        if window == 0 {
            return Err(DataError::EmptyWindow);
        }
        match &self.source {
            Source::Story(..) => Ok(()),
            Source::Text(text) => text.check_window(window),
        }
    }

    /// The training batch of `batch` rows of `window` tokens at `micro_step`, counted from 0.
    ///
    /// Errors: those of [`Dataset::check_window`].
    pub fn train_batch(
        &self,
        seed: u64,
        micro_step: u64,
        batch: usize,
        window: usize,
    ) -> Result<Batch, DataError> {
        self.check_window(window)?;
        let room = || Vec::with_capacity(batch * window);
        let (mut tokens, mut targets) = (room(), room());
        for row in 0..batch as u64 {
            let index = micro_step.wrapping_mul(batch as u64).wrapping_add(row);
            match &self.source {
                Source::Story(corpus, ids) => {
                    let told = corpus.window(Split::Train, seed, index, window);
                    let encoded = told.bytes.iter().map(|&byte| ids[usize::from(byte)]);
                    tokens.extend(encoded.clone().take(window));
                    targets.extend(encoded.skip(1));
                }
                Source::Text(text) => {
                    let start = text.train_start(window, seed, index);
                    text.train.append(start..start + window, &mut tokens);
                    text.train.append(start + 1..start + window + 1, &mut targets);
                }
            }
        }
        Ok(Batch { tokens, targets })
    }

    /// The first `max_windows` validation windows of `window` tokens: for a text, blocks in sequence from
    /// the start of the split, all of them if there are fewer.
    ///
    /// Errors: those of [`Dataset::check_window`].
    pub fn validation(&self, window: usize, max_windows: usize) -> Result<Vec<Window>, DataError> {
        self.check_window(window)?;
        match &self.source {
            Source::Story(corpus, ids) => Ok((0..max_windows as u64)
                .map(|index| {
                    story_window(corpus.window(Split::Validation, VALIDATION_SEED, index, window), ids)
                })
                .collect()),
            Source::Text(text) => {
                let blocks = (text.validation.len() - 1) / window;
                let cut = |start: usize| {
                    let mut out = Vec::with_capacity(window);
                    text.validation.append(start..start + window, &mut out);
                    out
                };
                let window_at = |start: usize| {
                    let (tokens, targets) = (cut(start), cut(start + 1));
                    let bytes = self.tokenizer.byte_length(&targets);
                    Window { tokens, targets, bytes, story: None }
                };
                Ok((0..blocks.min(max_windows)).map(|block| window_at(block * window)).collect())
            }
        }
    }

    /// Calls `see(token, next token)` over training data, for models that count: the whole split of a text,
    /// or `story_windows` windows of `window` tokens under `seed`.
    ///
    /// Errors: those of [`Dataset::check_window`].
    pub fn for_each_training_pair(
        &self,
        seed: u64,
        window: usize,
        story_windows: usize,
        mut see: impl FnMut(i32, i32),
    ) -> Result<(), DataError> {
        self.check_window(window)?;
        match &self.source {
            Source::Story(..) => {
                let Batch { tokens, targets } = self.train_batch(seed, 0, story_windows, window)?;
                tokens.into_iter().zip(targets).for_each(|(token, target)| see(token, target));
            }
            Source::Text(text) => text.train.for_each_pair(see),
        }
        Ok(())
    }
}

/// Shifts a window's charges and answers from bytes to targets. Stories are ASCII: one byte is one token.
fn story_window(told: StoryWindow, ids: &[i32]) -> Window {
    let encoded: Vec<i32> = told.bytes.iter().map(|&byte| ids[usize::from(byte)]).collect();
    let targets = encoded[1..].to_vec();
    let answers = told.answers.iter().map(|answer| AnswerSpan {
        start: answer.start - 1, // a story begins with an introduction, so no answer starts at 0
        end: answer.end - 1,
        ..*answer
    });
    let story = StoryTargets { charges: told.charges[1..].to_vec(), answers: answers.collect() };
    Window { tokens: encoded[..targets.len()].to_vec(), bytes: targets.len(), targets, story: Some(story) }
}

#[cfg(test)]
mod tests;
