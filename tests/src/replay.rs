//! A graph compiled for the CPU device, beside the same graph in the interpreter.

use compiler::{Options, compile};
use data::Stream;
use device_cpu::Cpu;
use graph::interp::{self, Tensor};
use graph::{DType, Graph, Op, Ty};
use plan::{Device, PlanSet, Region, Slot, StateLayout, StateSlot};

/// Values in (-1, 1) for every input and State; exact in f32.
pub fn inputs(graph: &Graph, seed: u64) -> (Vec<Tensor>, Vec<Tensor>) {
    let mut stream = Stream::new(seed, "values", 0);
    let mut fill = |ty: &Ty| Tensor {
        ty: ty.clone(),
        data: (0..ty.elements()).map(|_| f64::from((2.0 * stream.uniform() - 1.0) as f32)).collect(),
    };
    let inputs = graph.inputs.iter().map(|decl| fill(&decl.ty)).collect();
    (inputs, graph.states.iter().map(|decl| fill(&decl.ty)).collect())
}

/// Outputs, then States after the run, in double precision.
pub fn interpreted(graph: &Graph, seed: u64) -> Vec<Vec<f64>> {
    let (inputs, mut states) = inputs(graph, seed);
    let outputs = interp::run(graph, &inputs, &mut states);
    outputs.into_iter().chain(states).map(|tensor| tensor.data).collect()
}

/// As `interpreted`, with every f32 value rounded to f32: by how much rounding alone can move the results.
pub fn rounded(graph: &Graph, seed: u64) -> Vec<Vec<f64>> {
    let graph = graph::expand(graph);
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
    let mut layout = StateLayout::default();
    for decl in &graph.states {
        let slot =
            Slot { region: Region::State, offset: layout.bytes, bytes: decl.ty.elements() * DType::BYTES };
        let (name, dims) = (decl.name.clone(), decl.ty.dims.clone());
        layout.slots.push(StateSlot { name, dtype: decl.ty.dtype, dims, slot });
        layout.bytes += slot.bytes.next_multiple_of(256);
    }
    let options = Options {
        disabled: disabled.iter().map(|name| name.to_string()).collect(),
        verify: true,
        ..Options::default()
    };
    let plan =
        compile("test", graph, &layout, &Cpu::caps(), options).unwrap_or_else(|error| panic!("{error}"));
    let (inputs, states) = inputs(graph, seed);
    let mut device = Cpu::new(threads);
    let outputs = plan.outputs.len();
    let names: Vec<String> = plan.inputs.iter().map(|io| io.name.clone()).collect();
    device.load(PlanSet { states: layout, plans: vec![plan] }).unwrap_or_else(|error| panic!("{error}"));
    let bytes =
        |tensor: &Tensor| tensor.data.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect::<Vec<u8>>();
    for (decl, tensor) in graph.states.iter().zip(&states) {
        device.write_state(&decl.name, &bytes(tensor)).unwrap();
    }
    for (index, name) in names.iter().enumerate() {
        let at = graph.inputs.iter().position(|decl| decl.name == *name).unwrap();
        device.upload(0, index, &bytes(&inputs[at])).unwrap();
    }
    device.replay(0).unwrap();
    let floats = |bytes: Vec<u8>| {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>()
    };
    let mut results: Vec<Vec<f32>> =
        (0..outputs).map(|index| floats(device.download(0, index).unwrap())).collect();
    results.extend(graph.states.iter().map(|decl| floats(device.read_state(&decl.name).unwrap())));
    results
}
