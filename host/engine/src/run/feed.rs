//! What a training plan is fed: tokens, the host's scalars, and keys of random numbers, all functions of seed and step.

use std::collections::BTreeMap;

use crate::machine::Feed;
use crate::trace::{STEP_INDEX, Scalar, key};

use super::text::Reading;

/// The inputs of one micro-batch.
pub(crate) struct Inputs<'b> {
    pub reading: &'b Reading,
    /// By input name.
    pub scalars: &'b BTreeMap<String, Scalar>,
    pub lr: f64,
    /// Counted from 0.
    pub step: u64,
    pub seed: u64,
    /// Counted from 0 through all steps.
    pub micro_batch: u64,
}

impl<'b> Inputs<'b> {
    /// Value of an input by its name.
    pub fn feed(&self, name: &str) -> Option<Feed<'b>> {
        match name {
            "tokens" => return Some(Feed::I32(&self.reading.batch.tokens)),
            "targets" => return Some(Feed::I32(&self.reading.batch.targets)),
            STEP_INDEX => return Some(Feed::Count(self.step as i32)),
            _ => {}
        }
        if let Some(place) = self.reading.place.feed(name) {
            return Some(place);
        }
        if let Some(key) = key(name, self.seed, self.micro_batch) {
            return Some(Feed::U32(key));
        }
        Some(Feed::F32(self.scalars.get(name)?.value(self.lr, self.step + 1) as f32))
    }
}
