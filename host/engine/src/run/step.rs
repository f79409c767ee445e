//! One optimizer step as replays: its micro-batches in, losses and metrics out. Training, profiles and benches share it.
//!
//! A step begins and finishes apart: a device that works on its own can have the next one before this one's losses are
//! read, and never waits for the host.

use super::feed::Inputs;
use super::{Prepared, text};
use crate::Error;
use crate::machine::{Awaited, Watch};

/// A step that the device has been given.
pub(crate) struct Begun {
    /// Of each micro-batch, and of the update where that is a plan of its own.
    micro_batches: Vec<Awaited>,
    update: Option<Awaited>,
    last: text::Reading,
    micro_batch: u64,
}

impl Begun {
    /// Whether it has run already.
    pub fn is_over(&self) -> bool {
        self.micro_batches.iter().chain(&self.update).all(Awaited::is_here)
    }
}

/// What a step computed, and what its last micro-batch was fed, for whoever has to look at it again.
pub(crate) struct Stepped {
    /// Mean over the micro-batches.
    pub loss: f64,
    /// Outputs of all plans replayed, by name, in order.
    pub outputs: Vec<(String, Vec<f32>)>,
    pub last: text::Reading,
    pub micro_batch: u64,
}

impl Prepared<'_> {
    /// Plan of a micro-batch.
    pub(crate) fn micro_plan(&self) -> &'static str {
        if self.shape.accumulate == 1 { "step" } else { "accumulate" }
    }

    /// Takes step `step`, counted from 0, and returns its loss. The State moves on; nothing is written to disk.
    pub fn step(&mut self, step: u64, lr: f64, watch: Option<&mut Watch>) -> Result<f64, Error> {
        Ok(self.take_step(step, lr, watch)?.loss)
    }

    fn take_step(&mut self, step: u64, lr: f64, watch: Option<&mut Watch>) -> Result<Stepped, Error> {
        let begun = self.begin_step(step, lr, watch)?;
        self.finish_step(begun)
    }

    /// Hands a step to the device. The State moves on.
    pub(crate) fn begin_step(
        &mut self,
        step: u64,
        lr: f64,
        mut watch: Option<&mut Watch>,
    ) -> Result<Begun, Error> {
        let micro_plan = self.machine.plan(self.micro_plan());
        let micro_plan = micro_plan.ok_or_else(|| Error::said("there is no training plan"))?;
        let Prepared { resolved, dataset, programs, machine, shape, .. } = self;
        let (seed, shape, scalars) = (resolved.settings.seed, *shape, &programs.scalars);
        let (mut micro_batches, mut last) = (Vec::new(), text::Reading::nothing());
        let mut micro_batch = step * shape.accumulate as u64;
        for micro in 0..shape.accumulate as u64 {
            micro_batch = step * shape.accumulate as u64 + micro;
            last = text::training(dataset, shape, seed, micro_batch)?;
            let inputs = Inputs { reading: &last, scalars, lr, step, seed, micro_batch };
            micro_batches.push(machine.begin(micro_plan, |name| inputs.feed(name), watch.as_deref_mut())?);
        }
        let update = match machine.plan("apply") {
            Some(apply) => {
                let inputs = Inputs { reading: &last, scalars, lr, step, seed, micro_batch };
                Some(machine.begin(apply, |name| inputs.feed(name), watch)?)
            }
            None => None,
        };
        Ok(Begun { micro_batches, update, last, micro_batch })
    }

    /// What a step computed, as soon as it has.
    pub(crate) fn finish_step(&mut self, begun: Begun) -> Result<Stepped, Error> {
        let Begun { micro_batches, update, last, micro_batch } = begun;
        let count = self.shape.accumulate as f64;
        let (mut loss, mut outputs) = (0.0, Vec::new());
        for awaited in micro_batches {
            let results = self.machine.finish(awaited)?;
            let of_batch: f64 = results
                .iter()
                .find(|(name, _)| name == "loss")
                .map_or(f64::NAN, |(_, value)| value[0].into());
            loss += of_batch / count;
            outputs.extend(results);
        }
        if let Some(update) = update {
            outputs.extend(self.machine.finish(update)?);
        }
        Ok(Stepped { loss, outputs, last, micro_batch })
    }
}
