//! Launches of cross-entropy from hidden states and the rows of a language-model head: losses, cotangents, or both.

use ops::DType;

use crate::Slot;

/// `loss[n] = log sum over v of e^(x[n] w[v]') - x[n] w[target]'` for N tokens, D wide, and V rows of w, and the cotangents
/// of x and w. All f32 but the targets, which are i32. What is computed overlaps no operand.
///
/// A target outside 0..V is ignored: its loss is 0, and so is what it adds to the cotangents. Which tokens are computed
/// together may depend on the shape, never on the number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    pub tokens: usize,
    pub width: usize,
    pub vocabulary: usize,
    /// `[N, D]` and `[V, D]`.
    pub x: Rows,
    pub w: Rows,
    /// `[N]`.
    pub targets: Numbered,
    /// `[N]`, one after another; None where nobody asks.
    pub loss: Option<Slot>,
    pub grad: Option<CrossEntropyGrad>,
}

/// Cotangents, each of which may be missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropyGrad {
    /// Of the losses, `[N]`.
    pub ct: Numbered,
    /// `[N, D]` and `[V, D]`, row-major.
    pub ct_x: Option<Slot>,
    pub ct_w: Option<Slot>,
}

/// A matrix whose rows are `stride` elements apart (0 repeats one), the elements of a row one after another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rows {
    pub slot: Slot,
    pub stride: usize,
}

/// One number a token, `stride` elements apart (0 repeats one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbered {
    pub slot: Slot,
    pub stride: usize,
}

type Check = Result<(), String>;

impl CrossEntropy {
    /// Every slot, for checks of where it lies.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![self.x.slot, self.w.slot, self.targets.slot];
        slots.extend(self.grad.map(|grad| grad.ct.slot));
        slots.extend(self.results().map(|(_, slot, _)| slot));
        slots
    }

    /// Name, place and number of elements of what is computed.
    fn results(&self) -> impl Iterator<Item = (&'static str, Slot, usize)> + use<> {
        let grad = self.grad;
        let all = [
            ("loss", self.loss, self.tokens),
            ("ct_x", grad.and_then(|grad| grad.ct_x), self.tokens * self.width),
            ("ct_w", grad.and_then(|grad| grad.ct_w), self.vocabulary * self.width),
        ];
        all.into_iter().filter_map(|(name, slot, elements)| Some((name, slot?, elements)))
    }

    pub(crate) fn check(&self) -> Check {
        let CrossEntropy { tokens, width, vocabulary, .. } = *self;
        // Targets are compared as i32.
        if [tokens, width, vocabulary].contains(&0) || vocabulary > i32::MAX as usize {
            return Err(format!(
                "no cross-entropy of {tokens} tokens, width {width}, vocabulary {vocabulary}"
            ));
        }
        let within = |name: &str, slot: Slot, last: usize| {
            let fits = (last + 1) * DType::BYTES <= slot.bytes;
            if fits { Ok(()) } else { Err(format!("{name}: element {last} lies outside slot {slot}")) }
        };
        within("x", self.x.slot, (tokens - 1) * self.x.stride + width - 1)?;
        within("w", self.w.slot, (vocabulary - 1) * self.w.stride + width - 1)?;
        within("targets", self.targets.slot, (tokens - 1) * self.targets.stride)?;
        if let Some(grad) = self.grad {
            within("ct", grad.ct.slot, (tokens - 1) * grad.ct.stride)?;
        }
        let operands =
            || [self.x.slot, self.w.slot, self.targets.slot].into_iter().chain(self.grad.map(|g| g.ct.slot));
        for (name, slot, elements) in self.results() {
            within(name, slot, elements - 1)?;
            // One chunk of tokens is finished before the next reads what it needs.
            if operands().any(|operand| operand.overlaps(&slot)) {
                return Err(format!("{name}: {slot} overlaps an operand"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Region;

    fn slot(offset: usize, elements: usize) -> Slot {
        Slot { region: Region::Arena, offset: 4 * offset, bytes: 4 * elements }
    }

    /// 5 tokens of width 3, a vocabulary of 7, everything side by side.
    fn launch() -> CrossEntropy {
        let ct = Numbered { slot: slot(46, 5), stride: 1 };
        CrossEntropy {
            tokens: 5,
            width: 3,
            vocabulary: 7,
            x: Rows { slot: slot(0, 15), stride: 3 },
            w: Rows { slot: slot(15, 21), stride: 3 },
            targets: Numbered { slot: slot(36, 5), stride: 1 },
            loss: Some(slot(41, 5)),
            grad: Some(CrossEntropyGrad { ct, ct_x: Some(slot(51, 15)), ct_w: Some(slot(66, 21)) }),
        }
    }

    type Change = fn(&mut CrossEntropy);

    #[test]
    fn a_launch_that_leaves_its_slots_is_refused() {
        assert_eq!(launch().check(), Ok(()));
        let mut repeated = launch();
        (repeated.x.stride, repeated.targets.stride) = (0, 0);
        assert_eq!(repeated.check(), Ok(()));
        let changes: [(&str, Change); 6] = [
            ("no cross-entropy", |launch| launch.tokens = 0),
            ("x: element 18", |launch| launch.x.stride = 4),
            ("w: element 23", |launch| launch.vocabulary = 8),
            ("targets: element 8", |launch| launch.targets.stride = 2),
            ("loss: element 4", |launch| launch.loss = Some(slot(41, 4))),
            ("ct_x: A+0..60 overlaps", |launch| {
                launch.grad = launch.grad.map(|grad| CrossEntropyGrad { ct_x: Some(slot(0, 15)), ..grad });
            }),
        ];
        for (message, change) in changes {
            let mut launch = launch();
            change(&mut launch);
            let refused = launch.check().expect_err(message);
            assert!(refused.contains(message), "{refused} for {message}");
        }
    }
}
