//! The device: two memories, the loaded plans, and one command buffer for each replay.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use plan::{Device, DeviceCaps, DeviceError, IoSlot, Plan, PlanSet, Region, Slot, StateLayout};
use wgpu::{Buffer, BufferDescriptor, BufferUsages, MapMode};

use crate::adapters::Adapter;
use crate::gpu::{self, Gpu};
use crate::memory::{MAX_RANGES, Memory};
use crate::sources::{at_launch, dispatches};
use crate::step::{Builder, Step, UNIFORM_ALIGNMENT};
use crate::wgsl::{self, Dispatch};

/// Longest row that is folded whole: longer ones are cut, and their elements are not used again.
const MAX_ROW: usize = 65_536;

/// An adapter as a device.
pub struct Wgpu {
    adapter: Adapter,
    loaded: Option<Loaded>,
}

struct Loaded {
    gpu: Arc<Gpu>,
    states: StateLayout,
    plans: Vec<LoadedPlan>,
    state: Buffer,
    arena: Buffer,
}

struct LoadedPlan {
    plan: Plan,
    /// In order; a launch may have several.
    steps: Vec<Step>,
    /// The block of small inputs, as it goes to the start of the arena.
    block: Vec<u8>,
    /// The number that was uploaded to each input of one element.
    counters: Vec<i32>,
}

fn nothing_loaded() -> DeviceError {
    DeviceError::Unknown { kind: "plan set", name: "loaded".to_string() }
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
            cross_entropy: None,
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
        DeviceError::Unavailable { device: format!("wgpu: {}", self.adapter.describe()), reason }
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

/// A buffer of the device; `what` names it in errors.
fn buffer(gpu: &Gpu, what: &str, bytes: usize, usage: BufferUsages) -> Result<Buffer, DeviceError> {
    let size = bytes.next_multiple_of(4).max(4) as u64;
    let descriptor = BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
    let out_of_memory = |_| DeviceError::OutOfMemory { what: what.to_string(), bytes };
    gpu.checked(|device| device.create_buffer(&descriptor)).map_err(out_of_memory)
}

impl Loaded {
    fn find_plan(&self, plan: usize) -> Result<&LoadedPlan, DeviceError> {
        self.plans.get(plan).ok_or_else(|| DeviceError::Unknown { kind: "plan", name: plan.to_string() })
    }

    fn find_state(&self, name: &str) -> Result<Slot, DeviceError> {
        let state = self.states.find(name).map(|state| state.slot);
        state.ok_or_else(|| DeviceError::Unknown { kind: "state", name: name.to_string() })
    }

    fn find_io<'a>(kind: &'static str, list: &'a [IoSlot], index: usize) -> Result<&'a IoSlot, DeviceError> {
        list.get(index).ok_or_else(|| DeviceError::Unknown { kind, name: index.to_string() })
    }

    fn memory(&self, region: Region) -> &Buffer {
        if region == Region::State { &self.state } else { &self.arena }
    }

    fn write(&self, slot: Slot, bytes: &[u8]) {
        self.gpu.queue.write_buffer(self.memory(slot.region), slot.offset as u64, bytes);
    }

    /// Waits for everything submitted and copies a slot out.
    fn read(&self, slot: Slot) -> Result<Vec<u8>, String> {
        let usage = BufferUsages::COPY_DST | BufferUsages::MAP_READ;
        let staging = buffer(&self.gpu, "read-back", slot.bytes, usage).map_err(|error| error.to_string())?;
        let Gpu { device, queue, .. } = &*self.gpu;
        let mut encoder = device.create_command_encoder(&Default::default());
        let bytes = slot.bytes as u64;
        encoder.copy_buffer_to_buffer(self.memory(slot.region), slot.offset as u64, &staging, 0, bytes);
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
    fn begin(&self, plan: usize) -> Result<Vec<bool>, DeviceError> {
        let LoadedPlan { plan, block, counters, .. } = self.find_plan(plan)?;
        if !block.is_empty() {
            self.gpu.queue.write_buffer(&self.arena, 0, block);
        }
        let holds: Vec<bool> = plan.guards.iter().map(|guard| guard.holds(counters[guard.input])).collect();
        Ok(plan.launches.iter().map(|launch| launch.guards.iter().all(|guard| holds[*guard])).collect())
    }

    fn trouble(&self, plan: &Plan) -> Result<(), DeviceError> {
        let failed = |reason| DeviceError::BadPlan { plan: plan.name.clone(), reason };
        self.gpu.trouble().map_or(Ok(()), |reason| Err(failed(reason)))
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
            plans.push(LoadedPlan { plan, steps, block, counters });
        }
        self.loaded = Some(Loaded { gpu, states: set.states, plans, state, arena });
        Ok(())
    }

    fn write_state(&mut self, name: &str, bytes: &[u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded()?;
        let slot = loaded.find_state(name)?;
        if bytes.len() != slot.bytes {
            return Err(DeviceError::WrongSize {
                name: name.to_string(),
                got: bytes.len(),
                want: slot.bytes,
            });
        }
        loaded.write(slot, bytes);
        Ok(())
    }

    fn read_state(&self, name: &str) -> Result<Vec<u8>, DeviceError> {
        let loaded = self.loaded()?;
        let slot = loaded.find_state(name)?;
        loaded.read(slot).map_err(|reason| self.unavailable(format!("state {name}: {reason}")))
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
            None => loaded.write(slot, bytes),
        }
        Ok(())
    }

    fn replay(&mut self, plan: usize) -> Result<(), DeviceError> {
        let loaded = self.loaded()?;
        let runs = loaded.begin(plan)?;
        let LoadedPlan { plan, steps, .. } = &loaded.plans[plan];
        let mut encoder = loaded.gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            steps.iter().filter(|step| runs[step.launch]).for_each(|step| step.encode(&mut pass));
        }
        loaded.gpu.queue.submit([encoder.finish()]);
        loaded.trouble(plan)
    }

    /// One submission for each launch, so that its time holds that of a submission.
    fn replay_timed(&mut self, plan: usize, sink: &mut dyn FnMut(usize, u64)) -> Result<(), DeviceError> {
        let loaded = self.loaded()?;
        let runs = loaded.begin(plan)?;
        let LoadedPlan { plan, steps, .. } = &loaded.plans[plan];
        loaded.gpu.wait().map_err(|reason| self.unavailable(reason))?;
        for of_launch in steps.chunk_by(|step, next| step.launch == next.launch) {
            let launch = of_launch[0].launch;
            if !runs[launch] {
                continue;
            }
            let clock = Instant::now();
            let mut encoder = loaded.gpu.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                of_launch.iter().for_each(|step| step.encode(&mut pass));
            }
            loaded.gpu.queue.submit([encoder.finish()]);
            loaded.gpu.wait().map_err(|reason| at_launch(plan, launch, reason))?;
            sink(launch, clock.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    fn download(&self, plan: usize, output: usize) -> Result<Vec<u8>, DeviceError> {
        let loaded = self.loaded()?;
        let io = Loaded::find_io("output", &loaded.find_plan(plan)?.plan.outputs, output)?;
        loaded.read(io.slot).map_err(|reason| self.unavailable(format!("output {}: {reason}", io.name)))
    }
}
