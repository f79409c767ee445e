//! The device: two memories, the loaded plans, and the loop over launches.

use std::time::Instant;

use plan::{
    Device, DeviceCaps, DeviceError, IoSlot, Launch, LaunchOp, Plan, PlanSet, Region, Slot, StateLayout,
};

use crate::memory::Map;
use crate::place::Memory;
use crate::pool::{Pool, TaskPanicked};
use crate::tile::{self, Isa, Program, Workspace};
use crate::{attention, delta, gemm, panel, scatter};

/// Most memory operands of a tile kernel; a limit of this device only so that addresses fit on the stack.
const MAX_BINDINGS: usize = 31;

/// The CPU as a device.
pub struct Cpu {
    pool: Pool,
    isa: Isa,
    /// Of our own products.
    shape: Option<panel::Shape>,
    loaded: Option<Loaded>,
}

struct Loaded {
    states: StateLayout,
    plans: Vec<LoadedPlan>,
    state: Map,
    arena: Map,
    workspace: Workspace,
}

struct LoadedPlan {
    plan: Plan,
    /// One per kernel of the plan.
    programs: Vec<Program>,
}

impl Cpu {
    /// A device that computes on `threads` threads, the caller's among them.
    pub fn new(threads: usize) -> Cpu {
        let isa = Isa::available().last().copied().unwrap_or(Isa::Portable);
        Cpu::with_isa(threads, isa)
    }

    /// `isa` must come from [`Isa::available`].
    pub(crate) fn with_isa(threads: usize, isa: Isa) -> Cpu {
        Cpu { pool: Pool::new(threads), isa, shape: panel::Shape::of(isa), loaded: None }
    }

    pub fn caps() -> DeviceCaps {
        DeviceCaps {
            name: "cpu",
            max_bindings: MAX_BINDINGS,
            max_row: tile::MAX_ROW,
            attention: Some(attention::CAPS),
            delta: Some(delta::CAPS),
        }
    }

    fn loaded(&self) -> Result<&Loaded, DeviceError> {
        self.loaded.as_ref().ok_or_else(nothing_loaded)
    }
}

fn nothing_loaded() -> DeviceError {
    DeviceError::Unknown { kind: "plan set", name: "loaded".to_string() }
}

fn compile(plan: Plan, state_bytes: usize) -> Result<LoadedPlan, DeviceError> {
    plan.validate(state_bytes)?;
    let bad = |reason: String| DeviceError::BadPlan { plan: plan.name.clone(), reason };
    let mut programs = Vec::with_capacity(plan.kernels.len());
    for (index, kernel) in plan.kernels.iter().enumerate() {
        if kernel.bindings.len() > MAX_BINDINGS {
            return Err(bad(format!(
                "kernel {index} has {} bindings of {MAX_BINDINGS}",
                kernel.bindings.len()
            )));
        }
        programs.push(tile::compile(kernel).map_err(|reason| bad(format!("kernel {index}: {reason}")))?);
    }
    Ok(LoadedPlan { plan, programs })
}

impl Loaded {
    fn find_plan(&self, plan: usize) -> Result<&LoadedPlan, DeviceError> {
        self.plans.get(plan).ok_or_else(|| DeviceError::Unknown { kind: "plan", name: plan.to_string() })
    }

    fn find_state(&self, name: &str) -> Result<&Slot, DeviceError> {
        let state = self.states.find(name).map(|state| &state.slot);
        state.ok_or_else(|| DeviceError::Unknown { kind: "state", name: name.to_string() })
    }

    fn find_io<'a>(kind: &'static str, list: &'a [IoSlot], index: usize) -> Result<&'a IoSlot, DeviceError> {
        list.get(index).ok_or_else(|| DeviceError::Unknown { kind, name: index.to_string() })
    }

    fn bytes(&self, slot: &Slot) -> &[u8] {
        let map = if slot.region == Region::State { &self.state } else { &self.arena };
        &map.bytes()[slot.offset..slot.offset + slot.bytes]
    }

    fn write(&mut self, slot: Slot, name: &str, bytes: &[u8]) -> Result<(), DeviceError> {
        if bytes.len() != slot.bytes {
            let name = name.to_string();
            return Err(DeviceError::WrongSize { name, got: bytes.len(), want: slot.bytes });
        }
        let map = if slot.region == Region::State { &mut self.state } else { &mut self.arena };
        map.bytes_mut()[slot.offset..slot.offset + slot.bytes].copy_from_slice(bytes);
        Ok(())
    }

    /// The number that was uploaded to an i32[] input.
    fn counter(&self, plan: &Plan, input: usize) -> i32 {
        let bytes = self.bytes(&plan.inputs[input].slot);
        bytes.try_into().map_or(0, i32::from_le_bytes)
    }

    fn replay(
        &mut self,
        index: usize,
        (isa, shape): (Isa, Option<panel::Shape>),
        pool: &mut Pool,
        mut timed: Option<&mut dyn FnMut(usize, u64)>,
    ) -> Result<(), DeviceError> {
        self.find_plan(index)?;
        let LoadedPlan { plan, programs } = &self.plans[index];
        let (state, arena) = (self.state.start(), self.arena.start());
        let address = |slot: &Slot| match slot.region {
            Region::State => state.wrapping_add(slot.offset),
            Region::Arena => arena.wrapping_add(slot.offset),
        };
        let holds: Vec<bool> =
            plan.guards.iter().map(|guard| guard.holds(self.counter(plan, guard.input))).collect();
        for (at, launch) in plan.launches.iter().enumerate() {
            if !launch.guards.iter().all(|guard| holds[*guard]) {
                continue;
            }
            let clock = timed.is_some().then(Instant::now);
            // SAFETY: `load` validated the plan against the sizes of both maps and compiled its programs, on which
            // `workspace` is sized; `&mut self` keeps everyone else away from the maps.
            let outcome = unsafe {
                match &launch.op {
                    LaunchOp::Tile { kernel, bindings } => {
                        let mut addresses = [std::ptr::null_mut(); MAX_BINDINGS];
                        for (to, slot) in addresses.iter_mut().zip(bindings) {
                            *to = address(slot).cast::<u32>();
                        }
                        let addresses = &addresses[..bindings.len()];
                        tile::run(&programs[*kernel], addresses, isa, pool, &mut self.workspace)
                    }
                    LaunchOp::Gemm(product) => {
                        let [a, b, out] =
                            [product.a, product.b, product.out].map(|matrix| address(&matrix.slot));
                        let scratch = self.workspace.shared();
                        let c = product.c.map_or(std::ptr::null_mut(), |c| address(&c.slot));
                        let [a, b, c] = [a, b, c].map(|start| start.cast::<f32>().cast_const());
                        let operands = gemm::Operands { a, b, c, out: out.cast(), scratch };
                        gemm::run(product, shape, operands, pool)
                    }
                    LaunchOp::Attention(launch) => {
                        let memory = Memory { state, arena };
                        attention::run(launch, memory, self.workspace.shared(), isa, pool)
                    }
                    LaunchOp::AttentionGrad(launch) => {
                        let memory = Memory { state, arena };
                        attention::run_grad(launch, memory, self.workspace.shared(), isa, pool)
                    }
                    LaunchOp::DeltaRule(launch) => {
                        let memory = Memory { state, arena };
                        delta::run(launch, memory, self.workspace.shared(), isa, pool)
                    }
                    LaunchOp::DeltaRuleGrad(launch) => {
                        let memory = Memory { state, arena };
                        delta::run_grad(launch, memory, self.workspace.shared(), isa, pool)
                    }
                    LaunchOp::ScatterAdd(scatter) => {
                        let [out, ids, source] =
                            [scatter.out, scatter.ids, scatter.source].map(|slot| address(&slot));
                        let operands =
                            scatter::Operands { out: out.cast(), ids: ids.cast(), source: source.cast() };
                        scatter::run(scatter, operands, pool)
                    }
                }
            };
            outcome.map_err(|TaskPanicked| DeviceError::Launch {
                plan: plan.name.clone(),
                launch: launch.label.clone(),
                reason: "a task panicked; this is a bug of the host".to_string(),
            })?;
            if let (Some(sink), Some(clock)) = (&mut timed, clock) {
                sink(at, clock.elapsed().as_nanos() as u64);
            }
        }
        Ok(())
    }
}

impl Device for Cpu {
    fn describe(&self) -> String {
        format!("cpu: {}, {} threads, {} tiles", model(), self.pool.threads(), self.isa.name())
    }

    fn load(&mut self, set: PlanSet) -> Result<(), DeviceError> {
        self.loaded = None;
        let arena_bytes = set.arena_bytes();
        let state_bytes = set.states.bytes;
        let plans =
            set.plans.into_iter().map(|plan| compile(plan, state_bytes)).collect::<Result<Vec<_>, _>>()?;
        let (shape, threads) = (self.shape, self.pool.threads());
        let scratch = |launch: &Launch| match &launch.op {
            LaunchOp::Gemm(product) => gemm::scratch(product, shape, threads),
            LaunchOp::Attention(launch) => attention::scratch(launch, threads),
            LaunchOp::AttentionGrad(launch) => attention::grad_scratch(launch, threads),
            LaunchOp::DeltaRule(launch) => delta::scratch(launch, threads),
            LaunchOp::DeltaRuleGrad(launch) => delta::grad_scratch(launch, threads),
            _ => 0,
        };
        let shared = plans.iter().flat_map(|plan| &plan.plan.launches).map(scratch).max();
        let programs = plans.iter().flat_map(|plan| &plan.programs);
        let workspace = Workspace::new(programs, shared.unwrap_or(0), threads)?;
        let state = Map::new("state", state_bytes)?;
        let arena = Map::new("arena", arena_bytes)?;
        for slot in &set.states.slots {
            if slot.slot.region != Region::State || slot.slot.offset + slot.slot.bytes > state_bytes {
                let reason = format!("state {} lies outside the slab", slot.name);
                return Err(DeviceError::BadPlan { plan: "states".to_string(), reason });
            }
        }
        self.loaded = Some(Loaded { states: set.states, plans, state, arena, workspace });
        Ok(())
    }

    fn write_state(&mut self, name: &str, bytes: &[u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded.as_mut().ok_or_else(nothing_loaded)?;
        let slot = *loaded.find_state(name)?;
        loaded.write(slot, name, bytes)
    }

    fn read_state(&self, name: &str) -> Result<Vec<u8>, DeviceError> {
        let loaded = self.loaded()?;
        Ok(loaded.bytes(loaded.find_state(name)?).to_vec())
    }

    fn upload(&mut self, plan: usize, input: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded.as_mut().ok_or_else(nothing_loaded)?;
        let io = Loaded::find_io("input", &loaded.find_plan(plan)?.plan.inputs, input)?;
        let (slot, name) = (io.slot, io.name.clone());
        loaded.write(slot, &name, bytes)
    }

    fn replay(&mut self, plan: usize) -> Result<(), DeviceError> {
        let loaded = self.loaded.as_mut().ok_or_else(nothing_loaded)?;
        loaded.replay(plan, (self.isa, self.shape), &mut self.pool, None)
    }

    fn replay_timed(&mut self, plan: usize, sink: &mut dyn FnMut(usize, u64)) -> Result<(), DeviceError> {
        let loaded = self.loaded.as_mut().ok_or_else(nothing_loaded)?;
        loaded.replay(plan, (self.isa, self.shape), &mut self.pool, Some(sink))
    }

    fn download(&self, plan: usize, output: usize) -> Result<Vec<u8>, DeviceError> {
        let loaded = self.loaded()?;
        let io = Loaded::find_io("output", &loaded.find_plan(plan)?.plan.outputs, output)?;
        Ok(loaded.bytes(&io.slot).to_vec())
    }
}

/// The processor's name as the system tells it.
fn model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name =
        line.and_then(|line| line.split_once(':')).map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    name.to_string()
}
