//! From a configuration to plans: what a researcher waits for before the first step, memory and initial values aside.

use std::time::Instant;

use compiler::Options;
use device_cpu::Cpu;
use engine::config::{Request, Resolved, resolve};
use engine::plugins::Registry;
use engine::trace::{Programs, Shape};
use graph::DType;
use plan::{Region, Slot, StateLayout, StateSlot};

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
        let train = &self.resolved.settings.train;
        let shape = Shape {
            batch: train.batch,
            window: train.window,
            vocab: VOCAB,
            accumulate: train.accumulate,
            clip: train.clip,
            stream: train.stream,
        };
        let clock = Instant::now();
        let programs = Programs::trace(&self.resolved, &self.registry, shape);
        let programs = programs.map_err(|error| error.to_string())?;
        let mut states = StateLayout::default();
        for decl in engine::machine::states(programs.list.iter().map(|program| &program.graph)) {
            let bytes = decl.ty.elements() * DType::BYTES;
            let slot = Slot { region: Region::State, offset: states.bytes, bytes };
            states.slots.push(StateSlot { name: decl.name, dtype: decl.ty.dtype, dims: decl.ty.dims, slot });
            states.bytes += bytes.next_multiple_of(256);
        }
        for program in &programs.list {
            let options = Options::default();
            compiler::compile(program.name, &program.graph, &states, &Cpu::caps(), options)
                .map_err(|error| error.to_string())?;
        }
        Ok(Step { seconds: clock.elapsed().as_secs_f64(), loss: f64::NAN })
    }
}
