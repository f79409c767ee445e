//! What a configuration makes a device run, without data and without the device: the plans of its training and of the
//! sessions that evals ask.

use compiler::Options;
use engine::config::{Request, Resolved, resolve};
use engine::machine::states;
use engine::plugins::Registry;
use engine::trace::{Program, Programs, SessionPrograms, SessionShape, Shape};
use graph::{DType, Graph};
use plan::{DeviceCaps, PlanSet, Region, Slot, StateLayout, StateSlot};

/// A preset of `configs` with changes, as the command line makes them.
#[derive(Clone, Copy, Debug)]
pub struct Configured {
    /// Its path below `configs`, without the ending.
    pub preset: &'static str,
    /// `key=value` each.
    pub sets: &'static [&'static str],
}

/// Every text is of this many different words: their number says nothing about kernels.
const VOCABULARY: usize = 256;
/// Texts side by side in a session, and tokens that it reads at once.
const ROWS: usize = 3;
const WIDTH: usize = 16;

impl Configured {
    pub fn name(&self) -> String {
        [&[self.preset], self.sets].concat().join(" ")
    }

    fn resolved(&self, registry: &Registry) -> Resolved {
        let request = Request {
            files: vec![crate::root().join("configs").join(self.preset).with_extension("toml")],
            sets: self.sets.iter().map(ToString::to_string).collect(),
            no_preset: true,
            no_evals: true,
            ..Request::default()
        };
        resolve(&request, registry).unwrap_or_else(|error| panic!("{}: {error}", self.name()))
    }

    /// The graphs of its training run, and if asked for those of a session of what was trained.
    pub fn graphs(&self, registry: &Registry, with_session: bool) -> Vec<Vec<Program>> {
        let resolved = self.resolved(registry);
        let train = &resolved.settings.train;
        let shape = Shape {
            batch: train.batch,
            window: train.window,
            vocab: VOCABULARY,
            accumulate: train.accumulate,
            clip: train.clip,
            stream: train.stream,
        };
        let programs = Programs::trace(&resolved, registry, shape);
        let programs = programs.unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        let mut sets = vec![programs.list];
        if with_session {
            let shape = SessionShape {
                rows: ROWS,
                capacity: train.window,
                width: WIDTH.min(train.window),
                vocab: VOCABULARY,
            };
            let session = SessionPrograms::trace(&resolved, registry, &programs.banks, shape);
            sets.push(session.unwrap_or_else(|error| panic!("{}: {error}", self.name())).list);
        }
        sets
    }
}

/// The State of a run's graphs, as it lies on a device.
pub fn layout<'g>(graphs: impl IntoIterator<Item = &'g Graph>) -> StateLayout {
    let mut layout = StateLayout::default();
    for decl in states(graphs) {
        let bytes = decl.ty.elements() * DType::BYTES;
        let slot = Slot { region: Region::State, offset: layout.bytes, bytes };
        layout.slots.push(StateSlot { name: decl.name, dtype: decl.ty.dtype, dims: decl.ty.dims, slot });
        layout.bytes += bytes.next_multiple_of(256);
    }
    layout
}

/// The plans of a run for a device.
pub fn plans(programs: &[Program], caps: &DeviceCaps) -> PlanSet {
    let states = layout(programs.iter().map(|program| &program.graph));
    let plan = |program: &Program| {
        let plan = compiler::compile(program.name, &program.graph, &states, caps, Options::default());
        plan.unwrap_or_else(|error| panic!("{}: {error}", program.name))
    };
    let plans = programs.iter().map(plan).collect();
    PlanSet { states, plans }
}
