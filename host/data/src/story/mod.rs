//! The embedded corpus: short stories from a seeded grammar whose exact probability is known.
//!
//! It exists so that a loss means something. Every byte has a floor (the bits it costs under the grammar
//! itself, which remembers everything) and a memoryless floor (the bits it costs a reader who knows the
//! scene but no name tail and no fact). Between the two lies exactly what memory is worth, and the answers to
//! questions about earlier facts show whether a model has one. Two stories of the preset for windows of 256:
//!
//! ```text
//! Nalen is at the gate. Reno has the rope. Viva has the lamp. Reno gives the rope to Nalen. Where is
//! Nalen? At the gate. Reno smiles softly. Who has the lamp? Viva has it. Who has the rope? Nalen has it.
//! The end.
//! Bamo is at the barn. Dovis has the cup. Nanis is at the barn. Nanis smiles again. Dovis smiles at last.
//! Where is Bamo? At the barn. Where is Nanis? At the barn. Who has the cup? Dovis has it. The end.
//! ```
//!
//! (Line breaks inside a story are this page's; in the text one follows "The end." and nothing else.)
//!
//! A window starts where a story starts, since a window cut out of the middle would have another floor,
//! one that sums over everything that may have come before. When a story ends inside a window the next
//! follows. The window's index enters the seed, so training text does not repeat; training and validation
//! windows come from different random streams.

mod clock;
mod grammar;
#[cfg(test)]
mod tests;
mod words;

use crate::Split;
use crate::derivation::{Teller, Told};
use crate::error::DataError;
use crate::rng::Stream;
use crate::tokenizer::Tokenizer;

/// One window of story text: bytes, one [`crate::Charge`] per byte, and the complete answers inside.
///
/// Tokens are `bytes[..T]`, targets `bytes[1..]`; the charge of target `i` is `charges[i + 1]`.
pub type StoryWindow = Told;

/// The dials of the grammar. Lengths and distances are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoryOptions {
    /// People in each story, 2 to 10: the candidates of "who" questions.
    pub people: usize,
    /// Shortest distance from the end of the sentence that states a fact to the answer.
    pub nearest: usize,
    /// Longest such distance.
    pub farthest: usize,
    /// Facts change only this far into a story, so that their questions still come inside the window.
    pub horizon: usize,
}

/// A sentence that introduces somebody, in bytes, on average: "Nalen has the rope. ".
const INTRODUCTION: usize = 20;
/// The shortest question with its answer: "Who has the map? Vala".
const QUESTION: usize = 21;

impl StoryOptions {
    /// The preset for windows of `window` tokens: answers 64 to 2,000 bytes away from a window of 2,560 on,
    /// 64 to 200 at 256, 32 to 100 at 128.
    pub fn for_window(window: usize) -> StoryOptions {
        // With three, a window of 128 would be half full before anything can change hands.
        let people = match window {
            ..=191 => 2,
            192..=256 => 3,
            257..=512 => 4,
            513..=1024 => 5,
            _ => 6,
        };
        let nearest = (window / 4).clamp(1, 64);
        let farthest = (window * 25 / 32).clamp(nearest + 1, 2000);
        StoryOptions { people, nearest, farthest, horizon: window / 2 }
    }

    /// The preset for windows of `window` tokens with some of its dials set by hand; 0 leaves a dial as it is.
    ///
    /// Errors: [`DataError::BadStoryOption`] for dials that leave a window without room for any answer.
    pub fn dialled(
        window: usize,
        people: usize,
        nearest: usize,
        farthest: usize,
    ) -> Result<StoryOptions, DataError> {
        let preset = StoryOptions::for_window(window);
        let or = |dial: usize, usual: usize| if dial == 0 { usual } else { dial };
        let options = StoryOptions {
            people: or(people, preset.people),
            nearest: or(nearest, preset.nearest),
            farthest: or(farthest, preset.farthest),
            ..preset
        };
        if options == preset {
            return Ok(options);
        }
        let bad = |option, reason: String| Err(DataError::BadStoryOption { option, reason });
        if options.farthest > window {
            let reason = format!(
                "an answer {} bytes away lies outside train.window = {window}; lower the dial or raise the window",
                options.farthest
            );
            return bad("farthest", reason);
        }
        // No question comes before everybody was introduced.
        let introduced = options.people * INTRODUCTION;
        let first = introduced.max(INTRODUCTION + options.nearest) + QUESTION;
        if first > window {
            let option = if introduced + QUESTION > window { "people" } else { "nearest" };
            let reason = format!(
                "with {} people and answers from {} bytes on, the first answer ends {first} bytes into a story, \
                 but train.window is {window}; lower the dial or raise the window",
                options.people, options.nearest
            );
            return bad(option, reason);
        }
        Ok(options)
    }
}

/// A grammar with its dials set. It holds no text: every window is made when asked for.
#[derive(Clone, Debug)]
pub struct StoryCorpus {
    options: StoryOptions,
}

impl StoryCorpus {
    /// Errors: [`DataError::BadStoryOption`] for dials that no story can meet.
    pub fn new(options: StoryOptions) -> Result<StoryCorpus, DataError> {
        let bad = |option, reason: String| Err(DataError::BadStoryOption { option, reason });
        let most = words::OBJECTS.len();
        if !(2..=most).contains(&options.people) {
            return bad("people", format!("{} is outside 2..={most}", options.people));
        }
        if options.nearest == 0 || options.nearest >= options.farthest {
            let range = format!("{}..{}", options.nearest, options.farthest);
            return bad("nearest", format!("the range of distances {range} is empty or starts at 0"));
        }
        Ok(StoryCorpus { options })
    }

    pub fn options(&self) -> &StoryOptions {
        &self.options
    }

    /// Window `index` of a split, cut to `length + 1` bytes (`length` tokens and as many targets).
    ///
    /// A function of its arguments: a longer window begins with the shorter one.
    pub fn window(&self, split: Split, seed: u64, index: u64, length: usize) -> StoryWindow {
        let name = match split {
            Split::Train => "story/training",
            Split::Validation => "story/validation",
        };
        self.tell(Teller::drawing(Stream::new(seed, name, index), length + 1))
    }

    /// Charges a given text as far as it is grammatical, stories in sequence from its first byte: the
    /// result's `bytes` are the longest prefix of `text` that the grammar can begin with.
    pub fn follow(&self, text: &[u8]) -> StoryWindow {
        self.tell(Teller::following(text))
    }

    fn tell(&self, mut teller: Teller) -> StoryWindow {
        // A story has at least one byte, so the teller reaches its limit.
        while grammar::tell(&mut teller, &self.options).is_ok() {}
        teller.finish()
    }

    /// Every character a story can hold: ASCII, in ascending order.
    pub fn alphabet() -> &'static str {
        words::ALPHABET
    }

    /// The tokenizer over all characters a story can hold, whether or not a given text has them.
    pub fn char_tokenizer() -> Tokenizer {
        Tokenizer::char_of(words::ALPHABET)
    }
}
