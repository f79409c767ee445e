//! A plan set on the device: its memories, its plans as steps, and the replays whose outputs are on their way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;

use plan::{DeviceError, IoSlot, Plan, Region, Slot, StateLayout};
use wgpu::{Buffer, BufferUsages, MapMode};

use crate::gpu::{Gpu, buffer};
use crate::readback::{Replayed, Staging};
use crate::step::Step;

pub struct Loaded {
    pub gpu: Arc<Gpu>,
    pub states: StateLayout,
    pub plans: Vec<LoadedPlan>,
    pub state: Buffer,
    pub arena: Buffer,
    /// The replay submitted last, unless its outputs were handed out or are copied by none.
    pub last: Option<Replayed>,
    /// Replays whose outputs are yet to be fetched, by their number.
    pub coming: BTreeMap<u64, Replayed>,
    /// Replays whose outputs were handed out.
    pub handed_out: u64,
}

pub struct LoadedPlan {
    pub plan: Plan,
    pub staging: Staging,
    /// In order; a launch may have several.
    pub steps: Vec<Step>,
    /// The block of small inputs, as it goes to the start of the arena.
    pub block: Vec<u8>,
    /// The number that was uploaded to each input of one element.
    pub counters: Vec<i32>,
}

impl Loaded {
    pub fn find_plan(&self, plan: usize) -> Result<&LoadedPlan, DeviceError> {
        self.plans.get(plan).ok_or_else(|| DeviceError::Unknown { kind: "plan", name: plan.to_string() })
    }

    pub fn find_state(&self, name: &str) -> Result<Slot, DeviceError> {
        let state = self.states.find(name).map(|state| state.slot);
        state.ok_or_else(|| DeviceError::Unknown { kind: "state", name: name.to_string() })
    }

    pub fn find_io<'a>(
        kind: &'static str,
        list: &'a [IoSlot],
        index: usize,
    ) -> Result<&'a IoSlot, DeviceError> {
        list.get(index).ok_or_else(|| DeviceError::Unknown { kind, name: index.to_string() })
    }

    pub fn memory(&self, region: Region) -> &Buffer {
        if region == Region::State { &self.state } else { &self.arena }
    }

    /// What nobody asked for by the next replay is not asked for any more.
    pub fn forget_last(&mut self) {
        if let Some(last) = self.last.take() {
            self.plans[last.plan].staging.give_back(last);
        }
    }

    /// Sets bytes of a slot, from `start` on.
    pub fn write(&self, slot: Slot, start: usize, bytes: &[u8]) {
        self.gpu.queue.write_buffer(self.memory(slot.region), (slot.offset + start) as u64, bytes);
    }

    /// Waits for everything submitted and copies bytes of a slot out.
    pub fn read(&self, slot: Slot, part: Range<usize>) -> Result<Vec<u8>, String> {
        let usage = BufferUsages::COPY_DST | BufferUsages::MAP_READ;
        let staging = buffer(&self.gpu, "read-back", part.len(), usage).map_err(|error| error.to_string())?;
        let Gpu { device, queue, .. } = &*self.gpu;
        let mut encoder = device.create_command_encoder(&Default::default());
        let (from, bytes) = ((slot.offset + part.start) as u64, part.len() as u64);
        encoder.copy_buffer_to_buffer(self.memory(slot.region), from, &staging, 0, bytes);
        queue.submit([encoder.finish()]);
        let (sender, receiver) = mpsc::channel();
        staging.map_async(MapMode::Read, 0..bytes, move |outcome| {
            // The receiver lives until the wait below is over.
            let _ = sender.send(outcome);
        });
        self.gpu.wait()?;
        let mapped = receiver.recv().map_err(|error| error.to_string())?;
        mapped.map_err(|error| error.to_string())?;
        let view = staging.get_mapped_range(0..bytes).map_err(|error| error.to_string())?;
        Ok(view.to_vec())
    }

    /// Which launches of a plan run with the counters that were uploaded, and the first upload.
    pub fn begin(&self, plan: usize) -> Result<Vec<bool>, DeviceError> {
        let LoadedPlan { plan, block, counters, .. } = self.find_plan(plan)?;
        if !block.is_empty() {
            self.gpu.queue.write_buffer(&self.arena, 0, block);
        }
        let holds: Vec<bool> = plan.guards.iter().map(|guard| guard.holds(counters[guard.input])).collect();
        Ok(plan.launches.iter().map(|launch| launch.guards.iter().all(|guard| holds[*guard])).collect())
    }

    pub fn trouble(&self, plan: &Plan) -> Result<(), DeviceError> {
        let failed = |reason| DeviceError::BadPlan { plan: plan.name.clone(), reason };
        self.gpu.trouble().map_or(Ok(()), |reason| Err(failed(reason)))
    }
}
