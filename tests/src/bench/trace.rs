//! From a configuration to plans: what a researcher waits for before the first step, memory and initial values aside.

use std::time::Instant;

use compiler::Options;
use device_cpu::Cpu;
use engine::config::{Request, Resolved, resolve};
use engine::plugins::Registry;
use engine::trace::{Programs, Shape};
use graph::DType;
use plan::{Plan, Region, Slot, StateLayout, StateSlot};

use super::Step;

/// The size of the comparisons: some 48 M parameters, 15 layers.
const PRESET: &str = "pilot";
const VOCAB: usize = 256;

pub struct Tracing {
    resolved: Resolved,
    registry: Registry,
}

impl Tracing {
    pub fn prepare() -> Result<Tracing, String> {
        let registry = Registry::discover();
        let request = Request { preset: Some(PRESET.into()), ..Request::default() };
        let resolved = resolve(&request, &registry).map_err(|error| error.to_string())?;
        Ok(Tracing { resolved, registry })
    }

    pub fn step(&mut self) -> Result<Step, String> {
        let clock = Instant::now();
        plans(&self.resolved, &self.registry, VOCAB, Options::default)?;
        Ok(Step { seconds: clock.elapsed().as_secs_f64(), loss: f64::NAN })
    }
}

/// All plans of a run and the State they share, as the engine makes them, over a vocabulary of this size.
pub fn plans<'d>(
    resolved: &Resolved,
    registry: &Registry,
    vocab: usize,
    mut options: impl FnMut() -> Options<'d>,
) -> Result<(StateLayout, Vec<Plan>), String> {
    let train = &resolved.settings.train;
    let shape = Shape {
        batch: train.batch,
        window: train.window,
        vocab,
        accumulate: train.accumulate,
        clip: train.clip,
        stream: train.stream,
    };
    let programs = Programs::trace(resolved, registry, shape).map_err(|error| error.to_string())?;
    let mut states = StateLayout::default();
    for decl in engine::machine::states(programs.list.iter().map(|program| &program.graph)) {
        let bytes = decl.ty.elements() * DType::BYTES;
        let slot = Slot { region: Region::State, offset: states.bytes, bytes };
        states.slots.push(StateSlot { name: decl.name, dtype: decl.ty.dtype, dims: decl.ty.dims, slot });
        states.bytes += bytes.next_multiple_of(256);
    }
    let compiled = |program: &engine::trace::Program| {
        compiler::compile(program.name, &program.graph, &states, &Cpu::caps(), options())
            .map_err(|error| error.to_string())
    };
    let plans = programs.list.iter().map(compiled).collect::<Result<_, _>>()?;
    Ok((states, plans))
}
