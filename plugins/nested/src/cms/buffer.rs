//! What a level was taught since its last write: slopes of the stretches read, and how surprising they were.

use plugin_api::prelude::*;

use super::level::Slopes;

#[derive(Default)]
pub(super) struct Buffer<'c> {
    slopes: Vec<Slopes<'c>>,
    tokens: usize,
    /// Sum of the surprise of counted tokens, and their number, `[B]`; None where nothing asks for it.
    surprise: Option<(Tensor<'c>, Tensor<'c>)>,
}

/// A buffer's content, taken out.
pub(super) struct Taken<'c> {
    pub slopes: Slopes<'c>,
    pub surprise: Option<(Tensor<'c>, Tensor<'c>)>,
}

impl<'c> Buffer<'c> {
    /// Tokens that wait for a write.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds a stretch with its surprise `[B, C]`, of which `counted` tells the tokens that have a target.
    pub fn push(
        &mut self,
        slopes: Slopes<'c>,
        tokens: usize,
        surprise: Option<Tensor<'c>>,
        counted: Option<Tensor<'c>>,
    ) {
        self.slopes.push(slopes);
        self.tokens += tokens;
        if let Some(values) = surprise {
            let counted = counted.unwrap_or_else(|| values.cx().constant(1.0, DType::F32, &values.dims()));
            let sum = |x: Tensor<'c>| x.sum(&[1]).reshape(&[x.dim(0)]);
            let (value, count) = (sum(values * counted), sum(counted));
            self.surprise = Some(match self.surprise {
                Some((values, counts)) => (values + value, counts + count),
                None => (value, count),
            });
        }
    }

    /// Everything, and an empty buffer; None if it is empty already.
    pub fn take(&mut self, cx: &'c Cx<'c>) -> Option<Taken<'c>> {
        let Buffer { slopes, surprise, .. } = std::mem::take(self);
        Some(Taken { slopes: Slopes::joined(cx, &slopes)?, surprise })
    }
}
