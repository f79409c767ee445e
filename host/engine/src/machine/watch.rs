//! Clocks and counters around replays.

use std::time::Instant;

use plan::{Device, Outputs};

use crate::Error;

/// What is measured of replays; times and counts add up until they are taken out.
#[derive(Debug, Default)]
pub struct Watch {
    /// Whether there is a clock around each launch, too.
    pub launches: bool,
    /// Number of heap allocations so far, from whoever can count them.
    pub count: Option<fn() -> u64>,
    /// Seconds within replays: no uploads, no downloads.
    pub seconds: f64,
    /// Heap allocations within replays.
    pub allocations: u64,
    /// (plan, launch, nanoseconds), in the order in which they ran.
    pub times: Vec<(usize, usize, u64)>,
}

impl Watch {
    /// Replays a plan and waits until its outputs, `count` of them, are there: a device may go on alone after `replay`.
    pub(super) fn replay(
        &mut self,
        device: &mut dyn Device,
        plan: usize,
        count: usize,
    ) -> Result<Outputs, Error> {
        let before = self.count.map_or(0, |count| count());
        let clock = Instant::now();
        if self.launches {
            device.replay_timed(plan, &mut |launch, time| self.times.push((plan, launch, time)))?;
        } else {
            device.replay(plan)?;
        }
        self.seconds += clock.elapsed().as_secs_f64();
        self.allocations += self.count.map_or(0, |count| count()) - before;
        let clock = Instant::now();
        match device.outputs(plan, count)? {
            coming @ Outputs::Coming(_) => {
                let all = device.fetch(coming)?;
                self.seconds += clock.elapsed().as_secs_f64();
                Ok(Outputs::Here(all))
            }
            here => Ok(here),
        }
    }
}
