//! The façade's builder over a bare graph: no run, no other plugins.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::Location;

use graph::{Graph, NodeId, Ty};
use plugin_api::abi::scalar;
use plugin_api::{Builder, DType, Init, Op, Role};

use crate::VOCAB;

/// A trace in progress.
#[derive(Default)]
pub struct Trace {
    pub graph: RefCell<Graph>,
    /// Extents and initial values, by path.
    pub parameters: RefCell<BTreeMap<String, (Vec<usize>, Init)>>,
}

impl Trace {
    /// Applies `change`; errors it records get the line of the caller.
    fn with<R>(&self, at: &Location<'_>, change: impl FnOnce(&mut Graph) -> R) -> R {
        let mut graph = self.graph.borrow_mut();
        let before = graph.errors.len();
        let result = change(&mut graph);
        let place = format!("{}:{}", at.file(), at.line());
        graph.errors[before..].iter_mut().for_each(|error| error.location = place.clone());
        result
    }

    fn refuse(&self, what: &str, at: &Location<'_>) -> u32 {
        let hint = "a test of the plugin alone has none: look at it in a run";
        self.with(at, |graph| graph.fail(None, format!("asks for {what}"), hint)).0
    }
}

impl Builder for Trace {
    fn emit(&self, op: Op, inputs: &[u32], ints: &[i64], floats: &[f64], at: &Location<'_>) -> u32 {
        let inputs: Vec<NodeId> = inputs.iter().copied().map(NodeId).collect();
        self.with(at, |graph| graph.emit(op, &inputs, ints, floats)).0
    }

    fn info(&self, id: u32) -> Option<(DType, Vec<usize>)> {
        let graph = self.graph.borrow();
        graph.nodes.get(id as usize).map(|node| (node.ty.dtype, node.ty.dims.clone()))
    }

    fn push_scope(&self, name: &str) {
        self.graph.borrow_mut().push_scope(name);
    }

    fn pop_scope(&self) {
        self.graph.borrow_mut().pop_scope();
    }

    fn parameter(&self, name: &str, dims: &[usize], _: Role, init: Init, at: &Location<'_>) -> u32 {
        self.with(at, |graph| {
            if !Ty::is_supported(dims) {
                return graph.fail(None, format!("parameter {name} has extents {dims:?}"), "");
            }
            let scope = graph.current_scope();
            let path = if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") };
            let mut parameters = self.parameters.borrow_mut();
            let (known, _) = parameters.entry(path.clone()).or_insert_with(|| (dims.to_vec(), init));
            if known != dims {
                let message = format!("parameter {path} is {known:?} and asked for again as {dims:?}");
                return graph.fail(None, message, "use another name or scope");
            }
            graph.input(&path, Ty::new(DType::F32, dims))
        })
        .0
    }

    /// Zeros where no path leads, as in a run.
    fn grad(&self, loss: u32, wrt: &[u32], at: &Location<'_>) -> Vec<u32> {
        let wrt: Vec<NodeId> = wrt.iter().copied().map(NodeId).collect();
        self.with(at, |graph| {
            let cotangents = graph::grad(graph, NodeId(loss), &wrt);
            let or_zeros = |(cotangent, of): (Option<NodeId>, &NodeId)| {
                let cotangent = cotangent.unwrap_or_else(|| {
                    let dims = graph.dims(*of).to_vec();
                    graph.constant(0.0, DType::F32, &dims)
                });
                cotangent.0
            };
            cotangents.into_iter().zip(&wrt).map(or_zeros).collect()
        })
    }

    /// A backbone that leaves each token as it is.
    fn component(&self, _: u8, _: &str, _: &str, inputs: &[u32], at: &Location<'_>) -> u32 {
        inputs.first().copied().unwrap_or_else(|| self.refuse("a component without inputs", at))
    }

    fn scalar(&self, code: u16, argument: f64, at: &Location<'_>) -> u32 {
        let (name, dtype) = match code {
            scalar::LEARNING_RATE => ("learning_rate".to_string(), DType::F32),
            scalar::BIAS_CORRECTION => (format!("bias_correction({argument:?})"), DType::F32),
            scalar::STEP => ("step".to_string(), DType::F32),
            scalar::STEP_INDEX => ("step_index".to_string(), DType::I32),
            _ => return self.refuse(&format!("scalar number {code}"), at),
        };
        self.with(at, |graph| graph.input(&name, Ty::scalar(dtype))).0
    }

    fn optimizer_state(&self, name: &str, dims: &[usize], at: &Location<'_>) -> u32 {
        self.with(at, |graph| graph.state(name, Ty::new(DType::F32, dims))).0
    }

    fn write(&self, state: u32, value: u32, at: &Location<'_>) {
        self.with(at, |graph| {
            let (state, value) = (NodeId(state), NodeId(value));
            let is_state = state == NodeId::POISON || graph.node(state).op == Op::State;
            match is_state {
                true => graph.write(state, value),
                false => drop(graph.fail(None, "writes to what is no optimizer state", "")),
            }
        });
    }

    /// Metrics are read by nobody here.
    fn report(&self, _: &str, _: u32, _: &Location<'_>) {}

    fn fail(&self, message: &str, at: &Location<'_>) {
        self.with(at, |graph| graph.fail(None, message, ""));
    }

    fn training(&self) -> bool {
        true
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn region_begin(&self, _: Op, inputs: &[u32], _: &[i64], at: &Location<'_>) -> Vec<u32> {
        vec![self.refuse("a loop or a condition", at); 1 + inputs.len()]
    }

    fn region_end(&self, _: &[u32], _: &Location<'_>) -> Vec<u32> {
        Vec::new()
    }

    fn random(&self, _: &[usize], at: &Location<'_>) -> u32 {
        self.refuse("random numbers", at)
    }
}
