//! The device: two memories, the loaded plans, and one command buffer for each replay.

use std::collections::BTreeMap;
use std::ops::Range;

use plan::{Device, DeviceCaps, DeviceError, IoSlot, Outputs, Plan, PlanSet, Region, Slot};
use wgpu::BufferUsages;

use crate::adapters::Adapter;
use crate::gpu::{self, buffer};
use crate::loaded::{Loaded, LoadedPlan};
use crate::memory::{MAX_RANGES, Memory};
use crate::readback::{Replayed, Staging};
use crate::sources::{at_launch, dispatches};
use crate::step::{Builder, Step, UNIFORM_ALIGNMENT};
use crate::timing;
use crate::wgsl::{self, Dispatch};

/// Longest row that is folded whole: longer ones are cut, and their elements are not used again.
const MAX_ROW: usize = 65_536;

/// An adapter as a device.
pub struct Wgpu {
    adapter: Adapter,
    loaded: Option<Loaded>,
}

fn nothing_loaded() -> DeviceError {
    DeviceError::Unknown { kind: "plan set", name: "loaded".to_string() }
}

/// Bytes `start..start + count` of a State, if it has them.
fn part_of(name: &str, slot: Slot, start: usize, count: usize) -> Result<Range<usize>, DeviceError> {
    let want = slot.bytes.saturating_sub(start);
    match count <= want {
        true => Ok(start..start + count),
        false => Err(DeviceError::WrongSize { name: name.to_string(), got: count, want }),
    }
}

impl Wgpu {
    pub fn new(adapter: Adapter) -> Wgpu {
        Wgpu { adapter, loaded: None }
    }

    pub fn caps() -> DeviceCaps {
        DeviceCaps {
            name: "wgpu",
            max_bindings: MAX_RANGES,
            max_row: MAX_ROW,
            attention: Some(wgsl::ATTENTION),
            cross_entropy: Some(wgsl::CROSS_ENTROPY),
            delta: None,
        }
    }

    fn loaded(&self) -> Result<&Loaded, DeviceError> {
        self.loaded.as_ref().ok_or_else(nothing_loaded)
    }

    fn loaded_mut(&mut self) -> Result<&mut Loaded, DeviceError> {
        self.loaded.as_mut().ok_or_else(nothing_loaded)
    }

    /// Whether the adapter has room for what a plan binds.
    fn check_limits(&self, plan: &Plan, dispatches: &[(usize, Dispatch)]) -> Result<u64, DeviceError> {
        let limit = self.adapter.limits.max_storage_buffer_binding_size;
        let mut largest = 0;
        for (launch, dispatch) in dispatches {
            let bytes = dispatch.ranges.iter().map(|range| range.end - range.start).max().unwrap_or(0) as u64;
            if bytes > limit {
                let reason = format!(
                    "a kernel binds {bytes} bytes at once, and {} allows {limit}; make the model or the batch smaller",
                    self.adapter.name
                );
                return Err(at_launch(plan, *launch, reason));
            }
            largest = largest.max(bytes);
        }
        Ok(largest)
    }

    fn unavailable(&self, reason: String) -> DeviceError {
        self.judged(DeviceError::Unavailable { device: self.describe(), reason })
    }

    /// An error, or that the device is gone, which then explains it.
    fn judged(&self, error: DeviceError) -> DeviceError {
        match self.loaded.as_ref().and_then(|loaded| loaded.gpu.lost()) {
            Some(reason) => DeviceError::Lost { device: self.describe(), reason },
            None => error,
        }
    }
}

/// For comparisons: another kernel in place of a plan's first.
#[cfg(test)]
impl Wgpu {
    pub fn kernel(
        &self,
        text: &str,
        storage_buffers: usize,
        groups: [u32; 3],
    ) -> Result<(wgpu::ComputePipeline, [u32; 3]), String> {
        let loaded = self.loaded().map_err(|error| error.to_string())?;
        loaded.gpu.compile(&[(text, storage_buffers)]).map_err(|(_, reason)| reason)?;
        Ok((loaded.gpu.pipeline(text).ok_or("it was not kept")?, groups))
    }

    pub fn swap_first(&mut self, other: &mut (wgpu::ComputePipeline, [u32; 3])) {
        if let Some(step) = self.loaded.as_mut().and_then(|loaded| loaded.plans[0].steps.first_mut()) {
            std::mem::swap(&mut step.pipeline, &mut other.0);
            std::mem::swap(&mut step.groups, &mut other.1);
        }
    }
}

impl Device for Wgpu {
    fn describe(&self) -> String {
        format!("wgpu: {}", self.adapter.describe())
    }

    fn load(&mut self, set: PlanSet) -> Result<(), DeviceError> {
        self.loaded = None;
        let mut printed = Vec::with_capacity(set.plans.len());
        let mut binding_bytes = 0;
        for plan in &set.plans {
            plan.validate(set.states.bytes)?;
            let dispatches = dispatches(plan, self.adapter.tiles)?;
            binding_bytes = binding_bytes.max(self.check_limits(plan, &dispatches)?);
            printed.push(dispatches);
        }
        for slot in &set.states.slots {
            if slot.slot.region != Region::State || slot.slot.offset + slot.slot.bytes > set.states.bytes {
                let reason = format!("state {} lies outside the slab", slot.name);
                return Err(DeviceError::BadPlan { plan: "states".to_string(), reason });
            }
        }
        let all = || printed.iter().flatten().map(|(_, dispatch)| dispatch);
        let of_scratch =
            all().flat_map(|dispatch| &dispatch.ranges).filter(|range| range.memory == Memory::Scratch);
        let scratch_bytes = of_scratch.map(|range| range.end).max().unwrap_or(0);
        let mut words = Vec::new();
        for dispatch in all() {
            words.extend(dispatch.words.iter().flat_map(|word| word.to_le_bytes()));
            words.resize(words.len().next_multiple_of(UNIFORM_ALIGNMENT), 0);
        }
        let sizes = [set.states.bytes, set.arena_bytes(), scratch_bytes, words.len()];
        let names = ["state", "arena", "scratch", "uniforms"];
        let limit = self.adapter.limits.max_buffer_size;
        for (what, bytes) in names.into_iter().zip(sizes) {
            if bytes as u64 > limit {
                let reason = format!("the {what} needs a buffer of {bytes} bytes, and {limit} are allowed");
                return Err(self.unavailable(reason));
            }
        }
        let buffer_bytes = sizes.into_iter().max().unwrap_or(0) as u64;
        let gpu = gpu::open(&self.adapter, buffer_bytes, binding_bytes)
            .map_err(|reason| self.unavailable(reason))?;
        let kernels: Vec<(&str, usize)> =
            all().map(|dispatch| (dispatch.source.as_str(), dispatch.ranges.len())).collect();
        gpu.compile(&kernels).map_err(|(index, reason)| {
            let mut before = index;
            for (plan, dispatches) in set.plans.iter().zip(&printed) {
                match dispatches.get(before) {
                    Some((launch, _)) => return at_launch(plan, *launch, reason),
                    None => before -= dispatches.len(),
                }
            }
            self.unavailable(reason)
        })?;
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let state = buffer(&gpu, "state", sizes[0], usage)?;
        let arena = buffer(&gpu, "arena", sizes[1], usage)?;
        let scratch = buffer(&gpu, "scratch", sizes[2], usage)?;
        let uniforms = buffer(&gpu, "uniforms", sizes[3], BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        gpu.queue.write_buffer(&uniforms, 0, &words);
        let builder =
            Builder { gpu: &gpu, state: &state, arena: &arena, scratch: &scratch, uniforms: &uniforms };
        let mut plans = Vec::with_capacity(set.plans.len());
        let mut at = 0;
        for (plan, dispatches) in set.plans.into_iter().zip(&printed) {
            let mut steps = Vec::with_capacity(dispatches.len());
            for (launch, dispatch) in dispatches {
                let step = builder.step(*launch, dispatch, at);
                steps.push(step.map_err(|reason| at_launch(&plan, *launch, reason))?);
                at += 1;
            }
            let (block, counters) = (vec![0; plan.block_bytes], vec![0; plan.inputs.len()]);
            let staging = Staging::new(&plan);
            plans.push(LoadedPlan { plan, staging, steps, block, counters });
        }
        let (last, coming, handed_out) = (None, BTreeMap::new(), 0);
        let states = set.states;
        self.loaded = Some(Loaded { gpu, states, plans, state, arena, last, coming, handed_out });
        Ok(())
    }

    fn write_state(&mut self, name: &str, bytes: &[u8]) -> Result<(), DeviceError> {
        let want = self.loaded()?.find_state(name)?.bytes;
        if bytes.len() != want {
            return Err(DeviceError::WrongSize { name: name.to_string(), got: bytes.len(), want });
        }
        self.write_state_part(name, 0, bytes)
    }

    fn write_state_part(&mut self, name: &str, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded()?;
        let slot = loaded.find_state(name)?;
        part_of(name, slot, start, bytes.len())?;
        loaded.write(slot, start, bytes);
        Ok(())
    }

    fn read_state(&self, name: &str) -> Result<Vec<u8>, DeviceError> {
        let loaded = self.loaded()?;
        let slot = loaded.find_state(name)?;
        let bytes = loaded.read(slot, 0..slot.bytes);
        bytes.map_err(|reason| self.unavailable(format!("state {name}: {reason}")))
    }

    fn read_state_part(&self, name: &str, start: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded()?;
        let slot = loaded.find_state(name)?;
        let read = loaded.read(slot, part_of(name, slot, start, bytes.len())?);
        let read = read.map_err(|reason| self.unavailable(format!("state {name}: {reason}")))?;
        bytes.copy_from_slice(&read);
        Ok(())
    }

    fn upload(&mut self, plan: usize, input: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded_mut()?;
        let io = Loaded::find_io("input", &loaded.find_plan(plan)?.plan.inputs, input)?;
        let slot = io.slot;
        if bytes.len() != slot.bytes {
            let name = io.name.clone();
            return Err(DeviceError::WrongSize { name, got: bytes.len(), want: slot.bytes });
        }
        let of_plan = &mut loaded.plans[plan];
        if let Ok(word) = bytes.try_into() {
            of_plan.counters[input] = i32::from_le_bytes(word);
        }
        match of_plan.block.get_mut(slot.offset..slot.offset + slot.bytes) {
            Some(place) => place.copy_from_slice(bytes),
            None => loaded.write(slot, 0, bytes),
        }
        Ok(())
    }

    fn replay(&mut self, plan: usize) -> Result<(), DeviceError> {
        let loaded = self.loaded_mut()?;
        let runs = loaded.begin(plan)?;
        loaded.forget_last();
        let Loaded { gpu, plans, state, arena, .. } = loaded;
        let LoadedPlan { plan: of_plan, staging, steps, .. } = &mut plans[plan];
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            steps.iter().filter(|step| runs[step.launch]).for_each(|step| step.encode(&mut pass));
        }
        let memory = |output: &IoSlot| if output.slot.region == Region::State { &*state } else { &*arena };
        let copy = staging.copy(gpu, &mut encoder, &of_plan.outputs, memory);
        let copy = match copy {
            Ok(copy) => copy,
            Err(error) => return Err(self.judged(error)),
        };
        let submission = gpu.queue.submit([encoder.finish()]);
        loaded.last = copy.map(|copy| Replayed::new(plan, copy, submission));
        let trouble = loaded.trouble(&loaded.plans[plan].plan);
        trouble.map_err(|error| self.judged(error))
    }

    fn replay_timed(&mut self, plan: usize, sink: &mut dyn FnMut(usize, u64)) -> Result<(), DeviceError> {
        self.loaded_mut()?.forget_last();
        let loaded = self.loaded()?;
        let runs = loaded.begin(plan)?;
        let LoadedPlan { plan, steps, .. } = &loaded.plans[plan];
        let steps: Vec<&Step> = steps.iter().filter(|step| runs[step.launch]).collect();
        loaded.gpu.wait().map_err(|reason| self.unavailable(reason))?;
        let failed = |(launch, reason)| self.judged(at_launch(plan, launch, reason));
        timing::timed(&loaded.gpu, &steps, sink).map_err(failed)
    }

    fn download(&self, plan: usize, output: usize) -> Result<Vec<u8>, DeviceError> {
        let loaded = self.loaded()?;
        let of_plan = loaded.find_plan(plan)?;
        let io = Loaded::find_io("output", &of_plan.plan.outputs, output)?;
        let bytes = match loaded.last.as_ref().filter(|last| last.plan == plan) {
            Some(last) => last.bytes(&loaded.gpu).map(|bytes| of_plan.staging.part(bytes, output).to_vec()),
            None => loaded.read(io.slot, 0..io.slot.bytes),
        };
        bytes.map_err(|reason| self.unavailable(format!("output {}: {reason}", io.name)))
    }

    fn outputs(&mut self, plan: usize, count: usize) -> Result<Outputs, DeviceError> {
        let loaded = self.loaded_mut()?;
        let is_it = |last: &mut Replayed| last.plan == plan;
        let Some(last) = loaded.last.take_if(is_it) else {
            let all = (0..count).map(|output| self.download(plan, output));
            return Ok(Outputs::Here(all.collect::<Result<_, _>>()?));
        };
        last.ask();
        loaded.handed_out += 1;
        loaded.coming.insert(loaded.handed_out, last);
        Ok(Outputs::Coming(loaded.handed_out))
    }

    fn fetch(&mut self, outputs: Outputs) -> Result<Vec<Vec<u8>>, DeviceError> {
        let number = match outputs {
            Outputs::Here(all) => return Ok(all),
            Outputs::Coming(number) => number,
        };
        let loaded = self.loaded_mut()?;
        let replayed = loaded.coming.remove(&number);
        let unknown = || DeviceError::Unknown { kind: "replay", name: number.to_string() };
        let replayed = replayed.ok_or_else(unknown)?;
        let of_plan = &mut loaded.plans[replayed.plan];
        let outputs = 0..of_plan.plan.outputs.len();
        let all = replayed.bytes(&loaded.gpu).map(|bytes| {
            outputs.map(|output| of_plan.staging.part(bytes, output).to_vec()).collect::<Vec<_>>()
        });
        match all {
            Ok(all) => {
                of_plan.staging.give_back(replayed);
                Ok(all)
            }
            Err(reason) => {
                let name = of_plan.plan.name.clone();
                Err(self.unavailable(format!("plan {name}: {reason}")))
            }
        }
    }
}
