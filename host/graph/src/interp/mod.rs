//! The f64 interpreter: slow, obvious, and the meaning of every op.
//!
//! It is the first device and the oracle of every other. All numbers are held as f64 whatever their dtype; i32, u32
//! and bool values are exact in it. `Bitcast` goes through the 32-bit pattern, so finiteness tests mean the same here.

mod axis;
mod dot;
mod movement;
mod region;
mod scalar;

use std::collections::HashMap;

use ops::{Class, Op};

use crate::attributes::usizes;
use crate::{Graph, Node, NodeId, Ty, meaning};

pub use scalar::scalar;

/// A value: row-major numbers with their type.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub ty: Ty,
    pub data: Vec<f64>,
}

impl Tensor {
    pub fn zeros(ty: &Ty) -> Tensor {
        Tensor { ty: ty.clone(), data: vec![0.0; ty.elements()] }
    }
}

/// Evaluates a graph: inputs and states by declaration order; returns outputs by declaration order and replaces the
/// written states. Composites are evaluated by their decomposition.
pub fn run(graph: &Graph, inputs: &[Tensor], states: &mut [Tensor]) -> Vec<Tensor> {
    watch(&meaning(graph), inputs, states, |_, _| {})
}

/// [`run`] on a graph without composites, showing each value as it is computed: for hunting the first bad one.
pub fn watch(
    graph: &Graph,
    inputs: &[Tensor],
    states: &mut [Tensor],
    mut see: impl FnMut(NodeId, &Tensor),
) -> Vec<Tensor> {
    let mut last_use = vec![usize::MAX; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for input in &node.inputs {
            last_use[input.index()] = index;
        }
    }
    let mut values: Vec<Option<Tensor>> = vec![None; graph.nodes.len()];
    let mut results: HashMap<NodeId, Vec<Tensor>> = HashMap::new();
    let mut written: Vec<(usize, Tensor)> = Vec::new();
    let mut outputs: Vec<Option<Tensor>> = vec![None; graph.outputs.len()];
    for id in graph.ids() {
        let node = graph.node(id);
        let slot = || node.ints[0] as usize;
        match node.op {
            Op::Input => values[id.index()] = Some(inputs[slot()].clone()),
            Op::State => values[id.index()] = Some(states[slot()].clone()),
            Op::Write => written.push((slot(), operand(&values, node, 0).clone())),
            Op::Output => outputs[slot()] = Some(operand(&values, node, 0).clone()),
            Op::Scan | Op::When => {
                let operands: Vec<&Tensor> =
                    (0..node.inputs.len()).map(|index| operand(&values, node, index)).collect();
                let several = match node.op {
                    Op::Scan => region::scan(graph, node, &operands),
                    _ => region::when(graph, node, &operands),
                };
                results.insert(id, several);
            }
            Op::Result => values[id.index()] = Some(results[&node.inputs[0]][slot()].clone()),
            _ => values[id.index()] = Some(evaluate(&values, node)),
        }
        if let Some(value) = &values[id.index()] {
            see(id, value);
        }
        for input in &node.inputs {
            if last_use[input.index()] == id.index() {
                values[input.index()] = None;
                results.remove(input);
            }
        }
    }
    for (slot, value) in written {
        states[slot] = value;
    }
    outputs.into_iter().flatten().collect()
}

fn operand<'v>(values: &'v [Option<Tensor>], node: &Node, index: usize) -> &'v Tensor {
    values[node.inputs[index].index()].as_ref().expect("operands are evaluated before their users")
}

fn evaluate(values: &[Option<Tensor>], node: &Node) -> Tensor {
    let x = |index: usize| operand(values, node, index);
    let data = match node.op {
        Op::Const => vec![node.floats[0]; node.ty.elements()],
        Op::Iota => movement::iota(&node.ty, node.ints[0] as usize),
        Op::Reshape | Op::StopGrad | Op::Save => x(0).data.clone(),
        Op::Permute => movement::permute(x(0), &usizes(&node.ints)),
        Op::Broadcast => movement::broadcast(x(0), &node.ty),
        Op::Slice => movement::slice(x(0), &node.ints, &node.ty),
        Op::Pad => movement::pad(x(0), &node.ints, node.floats[0], &node.ty),
        Op::Concat => {
            movement::concat(&node.inputs.iter().enumerate().map(|(i, _)| x(i)).collect::<Vec<_>>(), node)
        }
        Op::Gather => movement::gather(x(0), x(1)),
        Op::ScatterAdd => movement::scatter_add(x(0), x(1), &node.ty),
        Op::DynSlice => axis::dyn_slice(x(0), x(1), node),
        Op::DynUpdateSlice => axis::dyn_update_slice(x(0), x(1), x(2), &node.ty, node.ints[0] as usize),
        Op::ArgMax => axis::arg_max(x(0), node),
        Op::CumSum => axis::cum_sum(x(0), node),
        Op::Sum => movement::reduce(x(0), &node.ty, 0.0, |sum, value| sum + value),
        Op::ReduceMax => movement::reduce(x(0), &node.ty, f64::NEG_INFINITY, f64::max),
        Op::Dot => dot::dot(x(0), x(1), node.inputs.get(2).map(|_| x(2)), node),
        op if op.row().class == Class::Elementwise => {
            let from = x(node.inputs.len() - 1).ty.dtype;
            let mut args = [0.0; 4];
            (0..node.ty.elements())
                .map(|element| {
                    for (slot, input) in node.inputs.iter().enumerate() {
                        let tensor = values[input.index()].as_ref().expect("operands precede users");
                        args[slot] = tensor.data[element];
                    }
                    scalar(op, &args[..node.inputs.len()], from, node.ty.dtype).unwrap_or(f64::NAN)
                })
                .collect()
        }
        op => unreachable!("{op} is expanded or handled by run"),
    };
    Tensor { ty: node.ty.clone(), data }
}

/// Evaluates one node from values of its operands; tests of single ops use it.
pub fn single(graph: &Graph, id: NodeId, operands: &[Tensor]) -> Tensor {
    let node = Node { inputs: (0..operands.len() as u32).map(NodeId).collect(), ..graph.node(id).clone() };
    evaluate(&operands.iter().cloned().map(Some).collect::<Vec<_>>(), &node)
}
