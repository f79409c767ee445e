//! Texts as a run reads them: each row of a batch window by window, while its memories last.
//!
//! B rows, T tokens of a window, N windows of a text (`train.stream`). All rows are at the same place of their texts. What
//! is read at a step is a function of the seed and the step, as where texts are single windows.

use data::{Batch, DataError, Dataset, Window};

use crate::machine::Feed;
use crate::trace::{STREAM_FRESH, STREAM_READ, Shape};

/// Where the rows of a batch stand in their texts: all at the same place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Tokens that each row has read of its text.
    read: Vec<i32>,
    fresh: Vec<i32>,
}

impl Reading {
    /// For a plan that reads nothing.
    pub fn nothing() -> Reading {
        Reading { batch: Batch { tokens: vec![], targets: vec![] }, place: Place::new(0, 0, 0) }
    }
}

impl Place {
    /// Rows at window `part` of their texts, counted from 0.
    pub fn new(rows: usize, part: usize, window: usize) -> Place {
        Place { read: vec![(part * window) as i32; rows], fresh: vec![i32::from(part == 0); rows] }
    }

    /// Value of an input by its name.
    pub fn feed(&self, name: &str) -> Option<Feed<'_>> {
        match name {
            STREAM_READ => Some(Feed::I32(&self.read)),
            STREAM_FRESH => Some(Feed::I32(&self.fresh)),
            _ => None,
        }
    }
}

/// What a micro-batch reads: windows, and where in their texts they stand.
pub(crate) struct Reading {
    pub batch: Batch,
    pub place: Place,
}

/// The training data of a micro-batch, counted from 0 through all steps.
pub(crate) fn training(
    dataset: &Dataset,
    shape: Shape,
    seed: u64,
    micro_batch: u64,
) -> Result<Reading, DataError> {
    let windows = shape.stream as u64;
    let part = (micro_batch % windows) as usize;
    let texts = dataset.train_batch(seed, micro_batch / windows, shape.batch, shape.window * shape.stream)?;
    let batch = Batch {
        tokens: windows_at(&texts.tokens, shape, part),
        targets: windows_at(&texts.targets, shape, part),
    };
    Ok(Reading { batch, place: Place::new(shape.batch, part, shape.window) })
}

/// Validation texts of N windows each, at most `windows` windows of them.
pub(crate) fn validation(dataset: &Dataset, shape: Shape, windows: usize) -> Result<Vec<Window>, DataError> {
    dataset.validation(shape.window * shape.stream, windows.div_ceil(shape.stream))
}

/// Window `part` of each row of `[B, N * T]`, as `[B, T]`.
pub(crate) fn windows_at(texts: &[i32], shape: Shape, part: usize) -> Vec<i32> {
    let rows = texts.chunks(shape.window * shape.stream);
    rows.flat_map(|row| &row[part * shape.window..(part + 1) * shape.window]).copied().collect()
}
