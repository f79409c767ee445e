//! A graph with given values on the interpreter, or compiled for a device, replayed as often as one likes.

use compiler::{Options, compile};
use data::Stream;
use device_cpu::Cpu;
use graph::interp::{self, Tensor};
use graph::{DType, Graph, Op, Ty};
use plan::{Device, DeviceCaps, PlanSet, Region, Slot, StateLayout, StateSlot};

/// A graph that is ready to run. Its States keep their values from one run to the next.
pub struct Replay {
    graph: Graph,
    backend: Backend,
}

enum Backend {
    Interpreter { states: Vec<Tensor> },
    Device { device: Box<dyn Device>, inputs: Vec<String>, outputs: Vec<String> },
}

impl Replay {
    /// In double precision. States start as zeros.
    pub fn interpreter(graph: &Graph) -> Replay {
        let states = graph.states.iter().map(|decl| Tensor::zeros(&decl.ty)).collect();
        Replay { graph: graph.clone(), backend: Backend::Interpreter { states } }
    }

    /// On the CPU, compiled without the passes named. States start as zeros.
    pub fn cpu(graph: &Graph, disabled: &[&str], threads: usize) -> Result<Replay, String> {
        Replay::loaded(graph, Box::new(Cpu::new(threads)), prepared(graph, &Cpu::caps(), disabled)?)
    }

    /// In single precision, on a device that has nothing loaded yet, from what [`prepared`] made of this graph for the
    /// device. States start as zeros.
    pub fn loaded(graph: &Graph, mut device: Box<dyn Device>, set: PlanSet) -> Result<Replay, String> {
        let names = |list: &[plan::IoSlot]| list.iter().map(|io| io.name.clone()).collect();
        let (inputs, outputs) = (names(&set.plans[0].inputs), names(&set.plans[0].outputs));
        device.load(set).map_err(|error| error.to_string())?;
        Ok(Replay { graph: graph.clone(), backend: Backend::Device { device, inputs, outputs } })
    }

    /// Sets a State, by its place in `Graph::states`.
    pub fn write_state(&mut self, index: usize, value: &Tensor) -> Result<(), String> {
        match &mut self.backend {
            Backend::Interpreter { states } => states[index] = value.clone(),
            Backend::Device { device, .. } => device
                .write_state(&self.graph.states[index].name, &to_bytes(value))
                .map_err(|error| error.to_string())?,
        }
        Ok(())
    }

    /// Every State, in the order of `Graph::states`.
    pub fn states(&self) -> Result<Vec<Tensor>, String> {
        match &self.backend {
            Backend::Interpreter { states } => Ok(states.clone()),
            Backend::Device { device, .. } => {
                let read = |decl: &graph::Decl| {
                    let bytes = device.read_state(&decl.name).map_err(|error| error.to_string())?;
                    Ok(from_bytes(&bytes, &decl.ty))
                };
                self.graph.states.iter().map(read).collect()
            }
        }
    }

    /// One replay: from inputs to outputs, both in the order of the graph's declarations.
    pub fn run(&mut self, values: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let graph = &self.graph;
        match &mut self.backend {
            Backend::Interpreter { states } => Ok(interp::run(graph, values, states)),
            Backend::Device { device, inputs, outputs } => {
                let place = |list: &[graph::Decl], name: &str| list.iter().position(|d| d.name == name);
                for (index, name) in inputs.iter().enumerate() {
                    let at = place(&graph.inputs, name).ok_or_else(|| format!("no input {name}"))?;
                    device.upload(0, index, &to_bytes(&values[at])).map_err(|error| error.to_string())?;
                }
                device.replay(0).map_err(|error| error.to_string())?;
                let read = |decl: &graph::Decl| {
                    let at = outputs.iter().position(|name| *name == decl.name);
                    let at = at.ok_or_else(|| format!("no output {}", decl.name))?;
                    let bytes = device.download(0, at).map_err(|error| error.to_string())?;
                    Ok(from_bytes(&bytes, &decl.ty))
                };
                graph.outputs.iter().map(read).collect()
            }
        }
    }
}

/// One plan, compiled without the passes named, with its States one after another.
pub fn prepared(graph: &Graph, caps: &DeviceCaps, disabled: &[&str]) -> Result<PlanSet, String> {
    prepared_within(graph, caps, disabled, None)
}

/// The same in an arena of so many bytes.
pub fn prepared_within(
    graph: &Graph,
    caps: &DeviceCaps,
    disabled: &[&str],
    budget: Option<usize>,
) -> Result<PlanSet, String> {
    let mut states = StateLayout::default();
    for decl in &graph.states {
        let bytes = decl.ty.elements() * DType::BYTES;
        let slot = Slot { region: Region::State, offset: states.bytes, bytes };
        let (name, dims) = (decl.name.clone(), decl.ty.dims.clone());
        states.slots.push(StateSlot { name, dtype: decl.ty.dtype, dims, slot });
        states.bytes += bytes.next_multiple_of(256);
    }
    let options = Options {
        disabled: disabled.iter().map(|name| name.to_string()).collect(),
        verify: true,
        budget,
        ..Options::default()
    };
    let plan = compile("test", graph, &states, caps, options).map_err(|error| error.to_string())?;
    Ok(PlanSet { states, plans: vec![plan] })
}

/// As a device holds it: four bytes an element.
fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    let word = |x: &f64| match tensor.ty.dtype {
        DType::F32 => (*x as f32).to_bits(),
        DType::I32 => *x as i32 as u32,
        DType::U32 | DType::Bool => *x as u32,
    };
    tensor.data.iter().flat_map(|x| word(x).to_le_bytes()).collect()
}

fn from_bytes(bytes: &[u8], ty: &Ty) -> Tensor {
    let number = |b: &[u8]| {
        let word = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        match ty.dtype {
            DType::F32 => f64::from(f32::from_bits(word)),
            DType::I32 => f64::from(word as i32),
            DType::U32 | DType::Bool => f64::from(word),
        }
    };
    Tensor { ty: ty.clone(), data: bytes.chunks_exact(DType::BYTES).map(number).collect() }
}

/// Values in (-1, 1), exact in f32, for every input and State; integers below 8.
pub fn inputs(graph: &Graph, seed: u64) -> (Vec<Tensor>, Vec<Tensor>) {
    let mut stream = Stream::new(seed, "values", 0);
    let mut value = |dtype: DType| match dtype {
        DType::F32 => f64::from((2.0 * stream.uniform() - 1.0) as f32),
        DType::I32 | DType::U32 => stream.below(8) as f64,
        DType::Bool => stream.below(2) as f64,
    };
    let mut fill = |ty: &Ty| {
        let data = (0..ty.elements()).map(|_| value(ty.dtype)).collect();
        Tensor { ty: ty.clone(), data }
    };
    let inputs = graph.inputs.iter().map(|decl| fill(&decl.ty)).collect();
    (inputs, graph.states.iter().map(|decl| fill(&decl.ty)).collect())
}

/// Outputs, then States after the run, in double precision.
pub fn interpreted(graph: &Graph, seed: u64) -> Vec<Vec<f64>> {
    once(Ok(Replay::interpreter(graph)), graph, seed)
}

/// As `interpreted`, with every f32 value rounded to f32: by how much rounding alone can move the results.
pub fn rounded(graph: &Graph, seed: u64) -> Vec<Vec<f64>> {
    let graph = compiler::straight(graph, &Cpu::caps()).unwrap_or_else(|error| panic!("{error}"));
    let (inputs, mut states) = inputs(&graph, seed);
    let mut outputs: Vec<Vec<f64>> = vec![Vec::new(); graph.outputs.len()];
    let mut values: Vec<Tensor> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let operands: Vec<Tensor> = node.inputs.iter().map(|input| values[input.index()].clone()).collect();
        let place = || node.ints[0] as usize;
        let mut value = match node.op {
            Op::Input => inputs[place()].clone(),
            Op::State => states[place()].clone(),
            Op::Write | Op::Output => operands[0].clone(),
            _ => interp::single(&graph, id, &operands),
        };
        if value.ty.dtype.is_float() {
            value.data.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        }
        values.push(value);
    }
    for id in graph.roots() {
        let (node, value) = (graph.node(id), &values[id.index()]);
        match node.op {
            Op::Write => states[node.ints[0] as usize] = value.clone(),
            _ => outputs[node.ints[0] as usize] = value.data.clone(),
        }
    }
    outputs.into_iter().chain(states.into_iter().map(|tensor| tensor.data)).collect()
}

/// The same on the CPU, compiled without the passes named.
pub fn on_cpu(graph: &Graph, seed: u64, disabled: &[&str], threads: usize) -> Vec<Vec<f32>> {
    let results = once(Replay::cpu(graph, disabled, threads), graph, seed);
    // Every value was an f32, so nothing is rounded here.
    results.into_iter().map(|values| values.into_iter().map(|x| x as f32).collect()).collect()
}

fn once(replay: Result<Replay, String>, graph: &Graph, seed: u64) -> Vec<Vec<f64>> {
    let (inputs, states) = inputs(graph, seed);
    let run = |mut replay: Replay| {
        for (index, state) in states.iter().enumerate() {
            replay.write_state(index, state)?;
        }
        let outputs = replay.run(&inputs)?;
        Ok(outputs.into_iter().chain(replay.states()?).map(|tensor| tensor.data).collect())
    };
    replay.and_then(run).unwrap_or_else(|error: String| panic!("{error}"))
}
