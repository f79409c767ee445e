//! The device: two memories, the loaded plans, and the loop over launches.

use std::ops::Range;
use std::time::Instant;

use plan::{
    Device, DeviceCaps, DeviceError, IoSlot, Launch, LaunchOp, Plan, PlanSet, Region, Slot, StateLayout,
};

use crate::groups::{Scratch, groups};
use crate::memory::Map;
use crate::place::Memory;
use crate::pool::{Pool, TaskPanicked};
use crate::team::{self, Team};
use crate::tile::{self, Isa, Program, Workspace};
use crate::{attention, cross_entropy, delta, gemm, panel, scatter};

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
    /// Panels that the plan in replay keeps.
    panels: Map,
    /// Which guards of the plan that is replayed hold. Its memory is kept: a replay asks the heap for nothing.
    holds: Vec<bool>,
}

struct LoadedPlan {
    plan: Plan,
    /// One per kernel of the plan.
    programs: Vec<Program>,
    /// Launches that run side by side.
    groups: Vec<Range<usize>>,
    kept: panel::Kept,
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
            cross_entropy: Some(cross_entropy::CAPS),
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

fn compile(plan: Plan, state_bytes: usize, shape: Option<panel::Shape>) -> Result<LoadedPlan, DeviceError> {
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
    let kept = panel::Kept::of(&plan, shape);
    let scratch = |at: usize, launch: &Launch| match &launch.op {
        LaunchOp::Gemm(_) if kept.is_read_by(at) => Scratch::None,
        LaunchOp::Tile { kernel, .. } if programs[*kernel].partials == 0 => Scratch::None,
        LaunchOp::Gemm(product) if gemm::terms_of_a_part(product) < product.k => Scratch::Whole,
        LaunchOp::Gemm(product) if panel::suits(product, shape).is_some() => Scratch::Panels,
        LaunchOp::Gemm(product) if gemm::scratch(product, shape, 1) == 0 => Scratch::None,
        LaunchOp::ScatterAdd(_) => Scratch::None,
        _ => Scratch::Whole,
    };
    let groups = groups(&plan, scratch);
    Ok(LoadedPlan { plan, programs, groups, kept })
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
        timed: Option<&mut dyn FnMut(usize, u64)>,
    ) -> Result<(), DeviceError> {
        self.find_plan(index)?;
        let mut holds = std::mem::take(&mut self.holds);
        holds.clear();
        let plan = &self.plans[index].plan;
        holds.extend(plan.guards.iter().map(|guard| guard.holds(self.counter(plan, guard.input))));
        self.holds = holds;
        let (loaded, holds) = (&self.plans[index], &self.holds);
        let plan = &loaded.plan;
        loaded.kept.forget();
        let is_due = |at: usize| plan.launches[at].guards.iter().all(|guard| holds[*guard]);
        // SAFETY: `load` validated the plan against the sizes of both maps and compiled its programs, on which
        // `workspace` is sized; `&mut self` keeps everyone else away from the maps. Launches that run side by side
        // do not disturb each other: so `groups` made them.
        let start = |at: usize, team: &mut Team<'_>| unsafe { self.launch(loaded, at, (isa, shape), team) };
        let mut run = |group: Range<usize>| {
            let label = &plan.launches[group.start].label;
            // SAFETY: as for the launches themselves.
            let packed = unsafe { self.pack(loaded, group.clone(), shape, pool) };
            packed.and_then(|()| team::run(pool, group, &start)).map_err(|TaskPanicked| DeviceError::Launch {
                plan: plan.name.clone(),
                launch: label.clone(),
                reason: "a task panicked; this is a bug of the host".to_string(),
            })
        };
        // Launches of a group have the same guards.
        let Some(sink) = timed else {
            return loaded.groups.iter().filter(|group| is_due(group.start)).cloned().try_for_each(run);
        };
        for at in (0..plan.launches.len()).filter(|at| is_due(*at)) {
            let clock = Instant::now();
            run(at..at + 1)?;
            sink(at, clock.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    /// Packs what the products of a group are the first to read from kept panels.
    ///
    /// # Safety
    /// The launches are those of a loaded plan, and nobody writes what they read meanwhile.
    unsafe fn pack(
        &self,
        loaded: &LoadedPlan,
        group: Range<usize>,
        shape: Option<panel::Shape>,
        pool: &mut Pool,
    ) -> Result<(), TaskPanicked> {
        for at in group {
            if let LaunchOp::Gemm(product) = &loaded.plan.launches[at].op {
                let b = self.address(&product.b.slot).cast::<f32>().cast_const();
                // SAFETY: the caller's; the map has room for the panels of any plan, and one is in replay.
                unsafe { loaded.kept.prepare(at, (product, shape), b, self.panels.start().cast(), pool)? };
            }
        }
        Ok(())
    }

    fn address(&self, slot: &Slot) -> *mut u8 {
        match slot.region {
            Region::State => self.state.start().wrapping_add(slot.offset),
            Region::Arena => self.arena.start().wrapping_add(slot.offset),
        }
    }

    /// # Safety
    /// The launch is one of a loaded plan, and nobody else uses what it writes, or writes what it reads, meanwhile.
    unsafe fn launch(
        &self,
        loaded: &LoadedPlan,
        at: usize,
        (isa, shape): (Isa, Option<panel::Shape>),
        team: &mut Team<'_>,
    ) -> Result<(), TaskPanicked> {
        let memory = Memory { state: self.state.start(), arena: self.arena.start() };
        let address = |slot: &Slot| self.address(slot);
        let scratch = self.workspace.shared();
        // SAFETY: the caller's.
        unsafe {
            match &loaded.plan.launches[at].op {
                LaunchOp::Tile { kernel, bindings } => {
                    let mut addresses = [std::ptr::null_mut(); MAX_BINDINGS];
                    for (to, slot) in addresses.iter_mut().zip(bindings) {
                        *to = address(slot).cast::<u32>();
                    }
                    let addresses = &addresses[..bindings.len()];
                    tile::run(&loaded.programs[*kernel], addresses, isa, team, &self.workspace)
                }
                LaunchOp::Gemm(product) => {
                    let [a, b, out] = [product.a, product.b, product.out].map(|matrix| address(&matrix.slot));
                    let c = product.c.map_or(std::ptr::null_mut(), |c| address(&c.slot));
                    let [a, b, c] = [a, b, c].map(|start| start.cast::<f32>().cast_const());
                    let operands = gemm::Operands { a, b, c, out: out.cast(), scratch };
                    let panels = loaded.kept.panels(at, self.panels.start().cast());
                    gemm::run(product, shape, operands, panels, team)
                }
                LaunchOp::Attention(launch) => attention::run(launch, memory, scratch, isa, team),
                LaunchOp::AttentionGrad(launch) => attention::run_grad(launch, memory, scratch, isa, team),
                LaunchOp::CrossEntropy(launch) => cross_entropy::run(launch, memory, scratch, isa, team),
                LaunchOp::DeltaRule(launch) => delta::run(launch, memory, scratch, isa, team),
                LaunchOp::DeltaRuleGrad(launch) => delta::run_grad(launch, memory, scratch, isa, team),
                LaunchOp::ScatterAdd(scatter) => {
                    let [out, ids, source] =
                        [scatter.out, scatter.ids, scatter.source].map(|slot| address(&slot));
                    let operands =
                        scatter::Operands { out: out.cast(), ids: ids.cast(), source: source.cast() };
                    scatter::run(scatter, operands, team)
                }
            }
        }
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
        let (shape, threads) = (self.shape, self.pool.threads());
        let compiled = set.plans.into_iter().map(|plan| compile(plan, state_bytes, shape));
        let plans = compiled.collect::<Result<Vec<_>, _>>()?;
        let scratch = |launch: &Launch| match &launch.op {
            LaunchOp::Gemm(product) => gemm::scratch(product, shape, threads),
            LaunchOp::Attention(launch) => attention::scratch(launch, threads),
            LaunchOp::AttentionGrad(launch) => attention::grad_scratch(launch, threads),
            LaunchOp::CrossEntropy(launch) => cross_entropy::scratch(launch, threads),
            LaunchOp::DeltaRule(launch) => delta::scratch(launch, threads),
            LaunchOp::DeltaRuleGrad(launch) => delta::grad_scratch(launch, threads),
            _ => 0,
        };
        let shared = plans.iter().flat_map(|plan| &plan.plan.launches).map(scratch).max();
        let programs = plans.iter().flat_map(|plan| &plan.programs);
        let pool = &mut self.pool;
        let workspace = Workspace::new(programs, shared.unwrap_or(0), pool)?;
        let guards = plans.iter().map(|plan| plan.plan.guards.len()).max();
        let holds = Vec::with_capacity(guards.unwrap_or(0));
        let kept = plans.iter().map(|plan| plan.kept.floats()).max().unwrap_or(0);
        let panels = Map::new("panels", kept * size_of::<f32>(), pool)?;
        let state = Map::new("state", state_bytes, pool)?;
        let arena = Map::new("arena", arena_bytes, pool)?;
        for slot in &set.states.slots {
            if slot.slot.region != Region::State || slot.slot.offset + slot.slot.bytes > state_bytes {
                let reason = format!("state {} lies outside the slab", slot.name);
                return Err(DeviceError::BadPlan { plan: "states".to_string(), reason });
            }
        }
        self.loaded = Some(Loaded { states: set.states, plans, state, arena, workspace, panels, holds });
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

    fn write_state_part(&mut self, name: &str, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded.as_mut().ok_or_else(nothing_loaded)?;
        let slot = part(loaded.find_state(name)?, name, start, bytes.len())?;
        loaded.write(slot, name, bytes)
    }

    fn read_state_part(&self, name: &str, start: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let loaded = self.loaded()?;
        let slot = part(loaded.find_state(name)?, name, start, bytes.len())?;
        bytes.copy_from_slice(loaded.bytes(&slot));
        Ok(())
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

/// Bytes of a State's slot, from `start` on.
fn part(slot: &Slot, name: &str, start: usize, bytes: usize) -> Result<Slot, DeviceError> {
    let want = slot.bytes.saturating_sub(start);
    match bytes <= want {
        true => Ok(Slot { offset: slot.offset + start, bytes, ..*slot }),
        false => Err(DeviceError::WrongSize { name: name.to_string(), got: bytes, want }),
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
