//! Running graphs: compiled onto a device, or interpreted in f64. One face for both.

mod awaited;
mod watch;

use std::ops::Range;
use std::time::Instant;

use compiler::{CompileError, Options};
use graph::interp::{self, Tensor};
use graph::{DType, Decl, Graph, Ty};
use plan::{Device, PlanSet, Region, Slot, StateLayout, StateSlot};

use crate::config::DeviceName;
use crate::{Error, devices, dump};
use awaited::Values;

pub use awaited::Awaited;
pub use watch::Watch;

/// Where each State starts: multiples of this.
const ALIGNMENT: usize = 256;

/// Elements of a State that are on their way to the device or back at once.
const AT_ONCE: usize = 1 << 18;

/// The graphs of a run, ready to be replayed.
pub struct Machine {
    backend: Backend,
    names: Vec<String>,
    inputs: Vec<Vec<Decl>>,
    outputs: Vec<Vec<Decl>>,
    /// What the device replays; none on the interpreter.
    plans: Vec<plan::Plan>,
    states: Vec<Decl>,
    pub facts: Facts,
}

/// What is printed before the first step and kept in the summary.
#[derive(Clone, Debug)]
pub struct Facts {
    pub device: String,
    pub threads: usize,
    pub arena_bytes: usize,
    /// What no planner could go below, for the largest plan.
    pub live_bytes: usize,
    pub state_bytes: usize,
    /// What is alive at the peak of the largest plan, the largest first.
    pub peak: Vec<plan::Held>,
    pub launches: usize,
    pub plan_digest: String,
}

enum Backend {
    Device(Box<dyn Device>),
    Interpreter { graphs: Vec<Graph>, states: Vec<(String, Tensor)> },
}

/// A value handed to a plan: row-major.
#[derive(Clone, Copy, Debug)]
pub enum Feed<'f> {
    F32(f32),
    I32(&'f [i32]),
    /// One i32.
    Count(i32),
    /// A key of random numbers.
    U32([u32; 2]),
}

impl Machine {
    /// Compiles (or keeps) the graphs and maps memory. All States start as zeros.
    pub fn load(device: DeviceName, threads: usize, graphs: &[(&str, &Graph)]) -> Result<Machine, Error> {
        Machine::load_within(0, device, threads, graphs)
    }

    /// The same in at most `budget` bytes of State and arena; 0 means no limit. The interpreter knows none.
    pub fn load_within(
        budget: u64,
        device: DeviceName,
        threads: usize,
        graphs: &[(&str, &Graph)],
    ) -> Result<Machine, Error> {
        let names = graphs.iter().map(|(name, _)| name.to_string()).collect();
        let outputs = graphs.iter().map(|(_, graph)| graph.outputs.clone()).collect();
        let mut inputs: Vec<Vec<Decl>> = graphs.iter().map(|(_, graph)| graph.inputs.clone()).collect();
        let mut plans = Vec::new();
        let (backend, facts) = match device {
            DeviceName::Interpreter => interpreter(graphs),
            DeviceName::Auto | DeviceName::Cpu | DeviceName::Wgpu(_) => {
                let (backend, facts, used) = compiled(device, budget, threads, graphs)?;
                let decl =
                    |io: &plan::IoSlot| Decl { name: io.name.clone(), ty: Ty::new(io.dtype, &io.dims) };
                inputs = used.iter().map(|plan| plan.inputs.iter().map(decl).collect()).collect();
                plans = used;
                (backend, facts)
            }
        };
        let states = states(graphs.iter().map(|(_, graph)| *graph));
        Ok(Machine { backend, names, inputs, outputs, plans, states, facts })
    }

    /// What the device replays, in the order of `plan`'s indices; none on the interpreter.
    pub fn plans(&self) -> &[plan::Plan] {
        &self.plans
    }

    pub fn plan(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Runs a plan once; `feed` gives the value of each of its inputs by name. Returns its outputs by name.
    pub fn run<'f>(
        &mut self,
        plan: usize,
        feed: impl FnMut(&str) -> Option<Feed<'f>>,
    ) -> Result<Vec<(String, Vec<f32>)>, Error> {
        self.run_watched(plan, feed, None)
    }

    /// As `run`, measured.
    pub fn run_watched<'f>(
        &mut self,
        plan: usize,
        feed: impl FnMut(&str) -> Option<Feed<'f>>,
        watch: Option<&mut Watch>,
    ) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let awaited = self.begin(plan, feed, watch)?;
        self.finish(awaited)
    }

    /// Runs a plan without waiting for what it computes. A watch waits.
    pub fn begin<'f>(
        &mut self,
        plan: usize,
        mut feed: impl FnMut(&str) -> Option<Feed<'f>>,
        watch: Option<&mut Watch>,
    ) -> Result<Awaited, Error> {
        let mut feeds = Vec::with_capacity(self.inputs[plan].len());
        for decl in &self.inputs[plan] {
            let missing = || {
                Error::said(format!(
                    "plan {} wants an input {:?} that nothing provides",
                    self.names[plan], decl.name
                ))
            };
            feeds.push(feed(&decl.name).ok_or_else(missing)?);
        }
        let values = match &mut self.backend {
            Backend::Device(device) => {
                for (index, feed) in feeds.iter().enumerate() {
                    device.upload(plan, index, &feed.bytes())?;
                }
                let count = self.outputs[plan].len();
                Values::OfDevice(match watch {
                    Some(watch) => watch.replay(device.as_mut(), plan, count)?,
                    None => {
                        device.replay(plan)?;
                        device.outputs(plan, count)?
                    }
                })
            }
            Backend::Interpreter { graphs, states } => {
                let inputs: Vec<Tensor> =
                    feeds.iter().zip(&self.inputs[plan]).map(|(feed, decl)| feed.tensor(&decl.ty)).collect();
                let outputs = interpret(&graphs[plan], &inputs, states);
                let values = |tensor: &Tensor| tensor.data.iter().map(|value| *value as f32).collect();
                Values::Here(outputs.iter().map(values).collect())
            }
        };
        Ok(Awaited { plan, values })
    }

    pub fn write_state(&mut self, name: &str, values: &[f32]) -> Result<(), Error> {
        self.write_state_part(name, 0, values)
    }

    /// Elements of a State, those from `start` on.
    pub fn write_state_part(&mut self, name: &str, start: usize, values: &[f32]) -> Result<(), Error> {
        match &mut self.backend {
            Backend::Device(device) => {
                for (index, values) in values.chunks(AT_ONCE).enumerate() {
                    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    device.write_state_part(name, (start + index * AT_ONCE) * DType::BYTES, &bytes)?;
                }
            }
            Backend::Interpreter { states, .. } => {
                let state = states.iter_mut().find(|(known, _)| known == name);
                let (_, tensor) = state.ok_or_else(|| Error::said(format!("there is no State {name}")))?;
                let elements = tensor.data.len();
                let part = tensor.data.get_mut(start..start + values.len());
                let part =
                    part.ok_or_else(|| Error::said(format!("State {name} has {elements} elements")))?;
                part.iter_mut().zip(values).for_each(|(to, value)| *to = f64::from(*value));
            }
        }
        Ok(())
    }

    pub fn read_state(&self, name: &str) -> Result<Vec<f32>, Error> {
        let decl = self.states.iter().find(|decl| decl.name == name);
        let decl = decl.ok_or_else(|| Error::said(format!("there is no State {name}")))?;
        self.read_state_part(name, 0..decl.ty.elements())
    }

    /// Elements of a State.
    pub fn read_state_part(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>, Error> {
        let mut values = Vec::with_capacity(range.len());
        self.each_part(name, range, |bytes| values.extend(floats(bytes)))?;
        Ok(values)
    }

    /// The same as little-endian bytes.
    pub fn read_state_bytes(&self, name: &str, range: Range<usize>) -> Result<Vec<u8>, Error> {
        let mut all = Vec::with_capacity(range.len() * DType::BYTES);
        self.each_part(name, range, |bytes| all.extend_from_slice(bytes))?;
        Ok(all)
    }

    /// Hands over elements of a State in order, some at a time.
    fn each_part(&self, name: &str, range: Range<usize>, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        match &self.backend {
            Backend::Device(device) => {
                let mut bytes = vec![0; AT_ONCE.min(range.len()) * DType::BYTES];
                for start in range.clone().step_by(AT_ONCE) {
                    let bytes = &mut bytes[..AT_ONCE.min(range.end - start) * DType::BYTES];
                    device.read_state_part(name, start * DType::BYTES, bytes)?;
                    take(bytes);
                }
            }
            Backend::Interpreter { states, .. } => {
                let state = states.iter().find(|(known, _)| known == name);
                let part = state.and_then(|(_, tensor)| tensor.data.get(range));
                let part = part.ok_or_else(|| Error::said(format!("there is no such State {name}")))?;
                part.iter().for_each(|value| take(&(*value as f32).to_le_bytes()));
            }
        }
        Ok(())
    }
}

impl Feed<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Feed::F32(value) => value.to_le_bytes().to_vec(),
            Feed::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Feed::Count(value) => value.to_le_bytes().to_vec(),
            Feed::U32(words) => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        }
    }

    /// As the interpreter holds it.
    pub fn tensor(&self, ty: &Ty) -> Tensor {
        let data = match self {
            Feed::F32(value) => vec![f64::from(*value)],
            Feed::I32(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Feed::Count(value) => vec![f64::from(*value)],
            Feed::U32(words) => words.map(f64::from).to_vec(),
        };
        Tensor { ty: ty.clone(), data }
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let chunk = |chunk: &[u8]| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    bytes.chunks_exact(DType::BYTES).map(chunk)
}

/// Every State of the graphs, once.
pub fn states<'g>(graphs: impl IntoIterator<Item = &'g Graph>) -> Vec<Decl> {
    let mut states: Vec<Decl> = Vec::new();
    for decl in graphs.into_iter().flat_map(|graph| &graph.states) {
        if !states.iter().any(|known| known.name == decl.name) {
            states.push(decl.clone());
        }
    }
    states
}

fn slab(states: &[Decl]) -> StateLayout {
    let mut layout = StateLayout::default();
    for decl in states {
        let bytes = decl.ty.elements() * DType::BYTES;
        let slot = Slot { region: Region::State, offset: layout.bytes, bytes };
        let (name, dtype, dims) = (decl.name.clone(), decl.ty.dtype, decl.ty.dims.clone());
        layout.slots.push(StateSlot { name, dtype, dims, slot });
        layout.bytes += bytes.next_multiple_of(ALIGNMENT);
    }
    layout
}

/// Also returns the plans: an input that nothing reads is in none, and profiles name their launches.
fn compiled(
    name: DeviceName,
    budget: u64,
    threads: usize,
    graphs: &[(&str, &Graph)],
) -> Result<(Backend, Facts, Vec<plan::Plan>), Error> {
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = if threads == 0 { cores } else { threads };
    let layout = slab(&states(graphs.iter().map(|(_, graph)| *graph)));
    let mut opened = devices::open(name, threads)?;
    let mut set = PlanSet { states: layout, plans: Vec::new() };
    for (name, graph) in graphs {
        let clock = Instant::now();
        let mut dump = dump::to_folder(name);
        let dump = dump.as_mut().map(|dump| dump as &mut compiler::Dump<'_>);
        // What the State leaves of the budget.
        let of_arena = (budget > 0).then(|| (budget as usize).saturating_sub(set.states.bytes));
        let options = Options { dump, budget: of_arena, ..Options::default() };
        let plan = compiler::compile(name, graph, &set.states, &opened.caps, options);
        set.plans.push(plan.map_err(|error| refused(error, budget, set.states.bytes))?);
        tracing::debug!("plan {name}: {} nodes compiled in {:?}", graph.nodes.len(), clock.elapsed());
    }
    let largest = set.plans.iter().max_by_key(|plan| plan.arena_bytes);
    let peak = largest.map_or(Vec::new(), |plan| plan.peak.clone());
    if let Some(folder) = dump::folder()
        && let Err(error) = opened.dump(&set, &folder)
    {
        tracing::warn!("HOST_DUMP: {}: {error}", folder.display());
    }
    let facts = Facts {
        device: opened.device.describe(),
        threads,
        arena_bytes: set.arena_bytes(),
        live_bytes: set.plans.iter().map(|plan| plan.live_bytes).max().unwrap_or(0),
        state_bytes: set.states.bytes,
        peak,
        launches: set.plans.first().map_or(0, |plan| plan.launches.len()),
        plan_digest: set.digest(),
    };
    // The CPU touches every page at once, so a run that does not fit would be killed instead of refused.
    let needed = facts.arena_bytes as u64 + facts.state_bytes as u64;
    let available = crate::resources::available_bytes().filter(|_| opened.uses_host_memory());
    if let Some(available) = available.filter(|available| needed > *available) {
        let mib = |bytes: u64| bytes >> 20;
        return Err(Error::said(format!(
            "the run needs {} MiB of memory and {} MiB are free; lower train.batch and raise train.accumulate instead, \
             or lower train.window or the model's size",
            mib(needed),
            mib(available)
        )));
    }
    let plans = set.plans.clone();
    opened.device.load(set)?;
    Ok((Backend::Device(opened.device), facts, plans))
}

/// A budget that cannot be met names the least that can, State included.
fn refused(error: CompileError, budget: u64, state_bytes: usize) -> Error {
    let CompileError::Budget { plan, least, largest, .. } = error else { return error.into() };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    Error::said(format!(
        "memory_budget: {} are too little: plan {plan} needs {} at least, of which State takes {}; the largest tensors at \
         its peak are {largest}",
        mib(budget),
        mib((least + state_bytes) as u64),
        mib(state_bytes as u64)
    ))
}

fn interpreter(graphs: &[(&str, &Graph)]) -> (Backend, Facts) {
    let graphs: Vec<Graph> = graphs.iter().map(|(_, graph)| graph::meaning(graph)).collect();
    let states = states(&graphs).into_iter().map(|decl| (decl.name, Tensor::zeros(&decl.ty))).collect();
    let facts = Facts {
        device: "f64 interpreter".into(),
        threads: 1,
        arena_bytes: 0,
        live_bytes: 0,
        state_bytes: 0,
        peak: Vec::new(),
        launches: graphs.first().map_or(0, |graph| graph.nodes.len()),
        plan_digest: "interpreter".into(),
    };
    (Backend::Interpreter { graphs, states }, facts)
}

fn interpret(graph: &Graph, inputs: &[Tensor], states: &mut [(String, Tensor)]) -> Vec<Tensor> {
    let at = |name: &str| {
        states.iter().position(|(known, _)| known == name).expect("every State of a graph is held")
    };
    let places: Vec<usize> = graph.states.iter().map(|decl| at(&decl.name)).collect();
    let mut own: Vec<Tensor> = places.iter().map(|place| states[*place].1.clone()).collect();
    let outputs = interp::run(graph, inputs, &mut own);
    for (place, tensor) in places.into_iter().zip(own) {
        states[place].1 = tensor;
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Op;

    #[test]
    fn an_input_that_nothing_reads_does_not_shift_the_others() {
        let mut graph = Graph::default();
        graph.input("unused", Ty::scalar(DType::F32));
        let used = graph.input("used", Ty::scalar(DType::F32));
        let twice = graph.emit(Op::Add, &[used, used], &[], &[]);
        graph.output("twice", twice);
        for device in [DeviceName::Cpu, DeviceName::Interpreter] {
            let mut machine = Machine::load(device, 1, &[("plan", &graph)]).unwrap();
            let feed = |name: &str| Some(Feed::F32(if name == "used" { 3.0 } else { 1.0 }));
            assert_eq!(machine.run(0, feed).unwrap(), [("twice".to_string(), vec![6.0])], "{device:?}");
        }
    }
}
