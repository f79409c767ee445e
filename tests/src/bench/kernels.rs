//! Single operations, forwards and backwards, on operands that a formula gives on both sides.
//!
//! The number to agree on is the loss: the mean cross-entropy, or the sum of the result times fixed weights.

use std::time::Instant;

use device_cpu::Cpu;
use graph::{Builder, DType, Graph, NodeId, Op, Ty, grad};
use plan::{Cost, Device};

use super::Step;
use crate::replay::prepared;

pub struct Kernel {
    device: Cpu,
    pub costs: Vec<Cost>,
}

impl Kernel {
    /// None where no kernel has this name.
    pub fn prepare(name: &str, threads: usize) -> Result<Option<Kernel>, String> {
        let graph = match name {
            "linear-ce" => linear_cross_entropy(2048, 512, 32000),
            "delta-rule" => delta_rule([2, 4, 2048, 64]),
            _ => match name.strip_prefix("attention-").and_then(|tokens| tokens.parse().ok()) {
                Some(tokens) => attention([1, 8, tokens, 64]),
                None => return Ok(None),
            },
        };
        if let Some(error) = graph.errors.first() {
            return Err(error.to_string());
        }
        let set = prepared(&graph, &Cpu::caps(), &[])?;
        let (inputs, costs) = (set.plans[0].inputs.clone(), super::costs(&set.plans, ""));
        let mut device = Cpu::new(threads);
        let said = |error: plan::DeviceError| error.to_string();
        device.load(set).map_err(said)?;
        for (index, input) in inputs.iter().enumerate() {
            device.upload(0, index, &values(&input.name, &input.dims, input.dtype)).map_err(said)?;
        }
        Ok(Some(Kernel { device, costs }))
    }

    pub fn step(&mut self) -> Result<Step, String> {
        let clock = Instant::now();
        self.device.replay(0).map_err(|error| error.to_string())?;
        let seconds = clock.elapsed().as_secs_f64();
        // The loss is the first output.
        let loss = self.device.download(0, 0).map_err(|error| error.to_string())?;
        let loss = loss.try_into().map_or(f64::NAN, |bytes| f64::from(f32::from_le_bytes(bytes)));
        Ok(Step { seconds, loss })
    }
}

/// Element i of the input `n...` (n from 1) is sin(i (0.7 + 0.1 n)) times a scale; targets are i 7919 mod V.
fn values(name: &str, dims: &[usize], dtype: DType) -> Vec<u8> {
    let count: usize = dims.iter().product();
    // Names are `1.x`, `2.targets.32000`, `4.log_alpha`.
    let mut parts = name.split('.');
    let number = parts.next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
    let kind = parts.next().unwrap_or("");
    if dtype == DType::I32 {
        let vocab = parts.next().and_then(|vocab| vocab.parse().ok()).unwrap_or(1);
        return (0..count).flat_map(|i| ((i * 7919 % vocab) as i32).to_le_bytes()).collect();
    }
    let wave = |i: usize| (i as f64 * (0.7 + 0.1 * number)).sin();
    // Keys of the delta rule are short, as normalised ones would be; decays are small and steps lie in (0, 1).
    let value = |i: usize| match kind {
        "log_alpha" => -0.05 * (1.0 + wave(i)),
        "beta" => 0.5 + 0.45 * wave(i),
        "key" => wave(i) * (2.0 / dims[dims.len() - 1] as f64).sqrt(),
        "head" => wave(i) * 0.05,
        _ => wave(i),
    };
    (0..count).flat_map(|i| (value(i) as f32).to_le_bytes()).collect()
}

fn input(graph: &mut Graph, name: &str, dims: &[usize]) -> NodeId {
    graph.input(name, Ty::new(DType::F32, dims))
}

/// Declares the loss first, then the derivatives by `wrt`.
fn outputs(graph: &mut Graph, loss: NodeId, wrt: &[NodeId]) {
    let slopes = grad(graph, loss, wrt);
    graph.output("loss", loss);
    for (index, slope) in slopes.into_iter().flatten().enumerate() {
        graph.output(&format!("slope{index}"), slope);
    }
}

/// The sum of `y` times fixed weights, f32[].
fn weighed(graph: &mut Graph, y: NodeId, weights: NodeId) -> NodeId {
    Builder::with(graph, |b| {
        let (y, weights) = (b.var(y), b.var(weights));
        let axes: Vec<usize> = (0..y.rank()).collect();
        (y * weights).sum(&axes).reshape(&[]).id
    })
}

fn linear_cross_entropy(tokens: usize, width: usize, vocab: usize) -> Graph {
    let mut graph = Graph::default();
    let x = input(&mut graph, "1.x", &[tokens, width]);
    let head = input(&mut graph, "2.head", &[vocab, width]);
    let targets = graph.input(&format!("3.targets.{vocab}"), Ty::new(DType::I32, &[tokens]));
    let losses = graph.emit(Op::LinearCrossEntropy, &[x, head, targets], &[], &[]);
    let mean = |b: &Builder| b.var(losses).sum(&[0]).scale(1.0 / tokens as f64).reshape(&[]).id;
    let loss = Builder::with(&mut graph, mean);
    outputs(&mut graph, loss, &[x, head]);
    graph
}

fn attention(dims: [usize; 4]) -> Graph {
    let mut graph = Graph::default();
    let operands = ["1.q", "2.k", "3.v"].map(|name| input(&mut graph, name, &dims));
    let weights = input(&mut graph, "4.weights", &dims);
    let scale = (dims[3] as f64).sqrt().recip();
    let y = graph.emit(Op::Attention, &operands, &[1, 0, 0, 0], &[scale]);
    let loss = weighed(&mut graph, y, weights);
    outputs(&mut graph, loss, &operands);
    graph
}

fn delta_rule(dims: [usize; 4]) -> Graph {
    let [batch, heads, _, width] = dims;
    let mut graph = Graph::default();
    let [q, k, v] = ["1.q", "2.key", "3.v"].map(|name| input(&mut graph, name, &dims));
    let gates = ["4.log_alpha", "5.beta"].map(|name| input(&mut graph, name, &dims[..3]));
    let weights = input(&mut graph, "6.weights", &dims);
    let state = graph.constant(0.0, DType::F32, &[batch, heads, width, width]);
    let operands = [q, k, v, gates[0], gates[1], state];
    let both = graph.emit(Op::GatedDeltaRule, &operands, &[64], &[]);
    let y = graph.emit(Op::Result, &[both], &[0], &[]);
    let loss = weighed(&mut graph, y, weights);
    outputs(&mut graph, loss, &operands[..5]);
    graph
}
