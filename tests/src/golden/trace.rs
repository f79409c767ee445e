//! Cases that are traced: a family builds outputs from inputs with the façade of plugin authors, over a graph whose
//! inputs are the tensors of the case. What is the same for all of them happens here: inputs, the sum of outputs times
//! cotangents, its gradients, the run.

use std::cell::RefCell;
use std::panic::Location;

use engine::trace::{Sequence, memory_path, open_region};
use graph::interp;
use graph::{DType, Graph, NodeId, Op, Ty};
use plugin_api::abi::NONE;
use plugin_api::{Builder, Cx, Init, Role, Tensor};

use super::cms;
use super::file::{self, Case};
use super::{Device, Stop, Value, Values};

/// Named results of a family. It may give more than a case asks for, and a name twice where there are two ways to one
/// result: both are compared, and gradients are those of the first.
pub type Outputs<'c> = Vec<(String, Tensor<'c>)>;

/// A family: from the inputs and scalars of a case to its outputs.
pub type Build = for<'c> fn(&Given<'c>) -> Outputs<'c>;

/// What a family builds from.
pub struct Given<'c> {
    pub cx: &'c Cx<'c>,
    pub case: &'c Case,
    trace: &'c Trace<'c>,
}

impl<'c> Given<'c> {
    /// A tensor of the case: f32, or i32 where it holds whole numbers.
    #[track_caller]
    pub fn x(&self, name: &str) -> Tensor<'c> {
        self.cx.tensor(self.trace.input(name, DType::I32, Location::caller()))
    }

    /// A tensor of the case that holds words of 32 bits.
    #[track_caller]
    pub fn words(&self, name: &str) -> Tensor<'c> {
        self.cx.tensor(self.trace.input(name, DType::U32, Location::caller()))
    }

    pub fn has(&self, name: &str) -> bool {
        self.case.tensors.contains_key(name)
    }

    /// A scalar of the case.
    #[track_caller]
    pub fn number(&self, key: &str) -> f64 {
        self.optional(key).unwrap_or_else(|| {
            self.cx.fail(&format!("the case has no number {key:?}"));
            f64::NAN
        })
    }

    /// A scalar that not every case of the family has.
    pub fn optional(&self, key: &str) -> Option<f64> {
        self.case.scalars.get(key).and_then(serde_json::Value::as_f64)
    }

    /// Whole numbers of the case; none where it has no such list.
    pub fn list(&self, key: &str) -> Vec<usize> {
        let numbers = self.case.scalars.get(key).and_then(serde_json::Value::as_array);
        let numbers = numbers.into_iter().flatten().filter_map(serde_json::Value::as_u64);
        numbers.filter_map(|number| usize::try_from(number).ok()).collect()
    }

    /// A scalar that the façade or the engine fixes: another value in the case is an error. A case may leave it out.
    #[track_caller]
    pub fn fixed(&self, key: &str, value: f64) {
        let said = self.optional(key).unwrap_or(value);
        if (said - value).abs() > 1e-12 * value.abs() {
            self.cx.fail(&format!("{key} is {said} in the case, and always {value} here"));
        }
    }

    /// Works on the graph directly, for what the engine builds without the façade.
    pub fn graph<R>(&self, build: impl FnOnce(&mut Graph) -> R) -> R {
        build(&mut self.trace.graph.borrow_mut())
    }
}

/// Traces a family and runs it.
pub fn run(build: Build, case: &Case, device: Device) -> Result<Values, Stop> {
    let (graph, names) = trace(build, case)?;
    let inputs: Vec<interp::Tensor> = graph
        .inputs
        .iter()
        .map(|decl| interp::Tensor { ty: decl.ty.clone(), data: case.tensors[&decl.name].data.clone() })
        .collect();
    let outputs = device.load(&graph)?.run(&inputs).map_err(Stop::Broken)?;
    let values = outputs.into_iter().map(|tensor| Value { dims: tensor.ty.dims, data: tensor.data });
    Ok(names.into_iter().zip(values).collect())
}

/// A graph with an output for each way to each tensor that the case wants, and the names of these tensors.
fn trace(build: Build, case: &Case) -> Result<(Graph, Vec<String>), Stop> {
    let trace = Trace { case, graph: RefCell::default(), sequence: RefCell::default() };
    let cx = Cx::new(&trace);
    let given = Given { cx: &cx, case, trace: &trace };
    let outputs = build(&given);
    let ways = |name: &str| -> Vec<Tensor<'_>> {
        outputs.iter().filter(|(known, _)| known == name).map(|(_, tensor)| *tensor).collect()
    };

    let mut results: Vec<(&str, Tensor<'_>)> = Vec::new();
    let (mut gradients, mut wrt) = (Vec::new(), Vec::new());
    for (name, _) in case.wanted() {
        let tensors = ways(name);
        match name.strip_prefix("grad_") {
            _ if !tensors.is_empty() => results.extend(tensors.into_iter().map(|tensor| (name, tensor))),
            // Of an input, or of a tensor that lies between the inputs and the loss.
            Some(of) => {
                gradients.push(name);
                wrt.push(ways(of).first().copied().unwrap_or_else(|| given.x(of)));
            }
            None => return Err(Stop::Broken(format!("the family has no result {name}"))),
        }
    }
    if !wrt.is_empty() {
        let weighed = case.tensors.iter().filter(|(_, golden)| golden.role == file::Role::Cotangent);
        let weighed = weighed.filter_map(|(name, _)| {
            let tensor = *ways(name.strip_prefix("ct_")?).first()?;
            Some((tensor * given.x(name)).total())
        });
        let Some(loss) = weighed.reduce(|sum, term| sum + term) else {
            return Err(Stop::Broken("the case wants gradients and has no cotangent".into()));
        };
        results.extend(gradients.into_iter().zip(cx.grad(loss, &wrt)));
    }
    for (index, (name, tensor)) in results.iter().enumerate() {
        // Two outputs of a graph must not share a name.
        given.graph(|graph| graph.output(&format!("{name}.{index}"), NodeId(tensor.id())));
    }
    let names = results.iter().map(|(name, _)| name.to_string()).collect();
    let graph = trace.graph.into_inner();
    match graph.errors.first() {
        Some(error) => Err(Stop::Broken(error.to_string())),
        None => Ok((graph::compact(&graph), names)),
    }
}

/// The façade's builder over a bare graph: no run, no plugins, and every parameter is a tensor of the case.
struct Trace<'c> {
    case: &'c Case,
    graph: RefCell<Graph>,
    sequence: RefCell<Sequence>,
}

impl Trace<'_> {
    /// Applies `change`; errors it records get the line of the caller.
    fn with<R>(&self, at: &Location<'_>, change: impl FnOnce(&mut Graph) -> R) -> R {
        let mut graph = self.graph.borrow_mut();
        let before = graph.errors.len();
        let result = change(&mut graph);
        let place = format!("{}:{}", at.file(), at.line());
        graph.errors[before..].iter_mut().for_each(|error| error.location = place.clone());
        result
    }

    /// An input of the graph: f32, or of the type `whole` where the case has whole numbers.
    fn input(&self, name: &str, whole: DType, at: &Location<'_>) -> u32 {
        self.with(at, |graph| match self.case.tensors.get(name) {
            Some(golden) => {
                let dtype = if golden.integer { whole } else { DType::F32 };
                graph.input(name, Ty::new(dtype, &golden.dims))
            }
            None => graph.fail(None, format!("the case has no tensor {name}"), ""),
        })
        .0
    }

    fn refuse(&self, what: &str, at: &Location<'_>) -> u32 {
        self.with(at, |graph| graph.fail(None, format!("golden cases have no {what}"), "")).0
    }
}

impl Builder for Trace<'_> {
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

    /// `norm.gain` is the case's `gain`: layers name the parts of their parameters. Levels have scopes of their own.
    fn parameter(&self, name: &str, dims: &[usize], _: Role, _: Init, at: &Location<'_>) -> u32 {
        let of_level = cms::named(self.graph.borrow().current_scope(), name);
        let name = of_level.unwrap_or_else(|| name.rsplit('.').next().unwrap_or(name).to_string());
        let name = name.as_str();
        let id = self.input(name, DType::I32, at);
        self.with(at, |graph| {
            let id = NodeId(id);
            if id == NodeId::POISON || graph.dims(id) == dims {
                return id;
            }
            let message = format!("parameter {name} should be {dims:?}, the case has {}", graph.ty(id));
            graph.fail(None, message, "")
        })
        .0
    }

    /// Zeros where no path leads, as for plugins.
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

    fn component(&self, _: u8, _: &str, _: &str, _: &[u32], at: &Location<'_>) -> u32 {
        self.refuse("components", at)
    }

    fn scalar(&self, _: u16, _: f64, at: &Location<'_>) -> u32 {
        self.refuse("scalars of a step", at)
    }

    fn optimizer_state(&self, _: &str, _: &[usize], at: &Location<'_>) -> u32 {
        self.refuse("optimizer state", at)
    }

    fn write(&self, _: u32, _: u32, at: &Location<'_>) {
        self.refuse("writes", at);
    }

    fn report(&self, _: &str, _: u32, at: &Location<'_>) {
        self.refuse("metrics", at);
    }

    fn fail(&self, message: &str, at: &Location<'_>) {
        self.with(at, |graph| graph.fail(None, message, ""));
    }

    fn training(&self) -> bool {
        true
    }

    fn vocab(&self) -> usize {
        0
    }
    fn region_begin(&self, op: Op, inputs: &[u32], ints: &[i64], at: &Location<'_>) -> Vec<u32> {
        let inputs: Vec<NodeId> = inputs.iter().copied().map(NodeId).collect();
        let inside = self.with(at, |graph| open_region(graph, op, &inputs, ints));
        inside.unwrap_or_default().into_iter().map(|id| id.0).collect()
    }

    fn region_end(&self, results: &[u32], at: &Location<'_>) -> Vec<u32> {
        let results: Vec<NodeId> = results.iter().copied().map(NodeId).collect();
        self.with(at, |graph| graph.close_region(&results)).into_iter().map(|id| id.0).collect()
    }

    fn random(&self, _: &[usize], at: &Location<'_>) -> u32 {
        self.refuse("random numbers", at)
    }

    fn chunk(&self, start: u64, at: &Location<'_>) {
        self.with(at, |graph| self.sequence.borrow_mut().begin(graph, start));
    }

    fn chunk_start(&self) -> u64 {
        self.sequence.borrow().start()
    }

    fn fast_read(&self, name: &str, _: &Location<'_>) -> u32 {
        let path = memory_path(&self.graph.borrow(), name);
        self.sequence.borrow().read(&path).map_or(NONE, |id| id.0)
    }

    fn fast_write(&self, name: &str, value: u32, at: &Location<'_>) {
        self.with(at, |graph| {
            let path = memory_path(graph, name);
            self.sequence.borrow_mut().write(graph, path, NodeId(value))
        });
    }
}
