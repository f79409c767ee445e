//! One optimizer step as replays: its micro-batches in, losses and metrics out. Training, profiles and benches share it.

use super::feed::Inputs;
use super::{Prepared, text};
use crate::Error;
use crate::machine::Watch;

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

    pub(crate) fn take_step(
        &mut self,
        step: u64,
        lr: f64,
        mut watch: Option<&mut Watch>,
    ) -> Result<Stepped, Error> {
        let micro_plan = self.machine.plan(self.micro_plan());
        let micro_plan = micro_plan.ok_or_else(|| Error::said("there is no training plan"))?;
        let Prepared { resolved, dataset, programs, machine, shape, .. } = self;
        let (seed, shape, scalars) = (resolved.settings.seed, *shape, &programs.scalars);
        let (mut loss, mut outputs, mut last) = (0.0, Vec::new(), text::Reading::nothing());
        let mut micro_batch = step * shape.accumulate as u64;
        for micro in 0..shape.accumulate as u64 {
            micro_batch = step * shape.accumulate as u64 + micro;
            last = text::training(dataset, shape, seed, micro_batch)?;
            let inputs = Inputs { reading: &last, scalars, lr, step, seed, micro_batch };
            let results = machine.run_watched(micro_plan, |name| inputs.feed(name), watch.as_deref_mut())?;
            let of_batch = results
                .iter()
                .find(|(name, _)| name == "loss")
                .map_or(f64::NAN, |(_, value)| value[0].into());
            loss += of_batch / shape.accumulate as f64;
            outputs.extend(results);
        }
        if let Some(apply) = machine.plan("apply") {
            let inputs = Inputs { reading: &last, scalars, lr, step, seed, micro_batch };
            outputs.extend(machine.run_watched(apply, |name| inputs.feed(name), watch)?);
        }
        Ok(Stepped { loss, outputs, last, micro_batch })
    }
}
