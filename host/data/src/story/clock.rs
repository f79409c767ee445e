//! When a fact is asked about: a log-uniform distance, told as a hazard.
//!
//! Drawing the distance in secret would leave a latent variable in the text, and the text's probability
//! would be a sum over it. So it is turned into the probability, at each sentence boundary, of asking now
//! given that it was not asked before. The hazard depends on positions in the text alone.

use super::StoryOptions;

/// Half a typical sentence, in bytes. A fact due before the middle of the coming sentence is asked about
/// now, so that rounding to sentence boundaries moves distances up as often as down.
const HALF_SENTENCE: usize = 12;

/// When a fact was stated, and how far its question has come.
pub struct Clock {
    /// Position after the sentence that states the fact.
    pub stated: usize,
    /// Distance at the last boundary where the question could have been asked and was not.
    pub declined: Option<usize>,
    /// Still to be asked about.
    pub open: bool,
}

impl Clock {
    pub fn starting(stated: usize) -> Clock {
        Clock { stated, declined: None, open: true }
    }

    /// May the fact change at `position`? Only where that cannot cut a distance short: before the
    /// question may come at all, or after it came.
    pub fn may_change(&self, position: usize, options: &StoryOptions) -> bool {
        !self.open || position - self.stated < options.nearest
    }

    /// The probability of asking where the answer would be `distance` bytes away, given that it was not
    /// asked at a shorter distance.
    pub fn hazard(&self, distance: usize, options: &StoryOptions) -> f64 {
        if !self.open || distance < options.nearest || distance > options.farthest {
            return 0.0;
        }
        let before = self.declined.map_or(0.0, |declined| reach(declined, options));
        if before >= 1.0 { 1.0 } else { (reach(distance, options) - before) / (1.0 - before) }
    }
}

/// The log-uniform distribution function over the options' range, half a sentence ahead of `distance`.
fn reach(distance: usize, options: &StoryOptions) -> f64 {
    let (nearest, farthest) = (options.nearest as f64, options.farthest as f64);
    let due = (distance + HALF_SENTENCE) as f64;
    ((due / nearest).ln() / (farthest / nearest).ln()).clamp(0.0, 1.0)
}
