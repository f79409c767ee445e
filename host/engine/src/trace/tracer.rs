//! One trace: the graph it builds, what it gathers beside it, and whose code is running.
//!
//! Nothing stays borrowed across a call, so a component may ask for another while its own trace runs.

use std::cell::RefCell;
use std::collections::BTreeMap;

use abi_stable::RRef;
use abi_stable::sabi_trait::TD_Opaque;
use graph::{Graph, GraphError, NodeId, Ty};
use plugin_api::abi::{BuilderRef, GraphBuilder_TO, Loc, NONE, scalar};
use serde_json::Value;

use super::banks::{Banks, Parameter};
use crate::Error;
use crate::config::Chosen;
use crate::plugins::{Kind, Registry};

/// Where parameters of a trace come from.
pub(super) enum Parameters<'t> {
    /// First trace of a model: what it declares is noted, each an input.
    Discover(Vec<Parameter>),
    /// Slices of the banks.
    Banks(&'t Banks),
}

/// A scalar that the host computes for each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalar {
    pub code: u16,
    pub argument: f64,
}

impl Scalar {
    /// Its value at `step`, counted from 1, where the schedule says `lr`.
    pub fn value(&self, lr: f64, step: u64) -> f64 {
        match self.code {
            scalar::LEARNING_RATE => lr,
            scalar::BIAS_CORRECTION => 1.0 - self.argument.powf(step as f64),
            _ => step as f64,
        }
    }
}

/// What a trace has gathered so far.
pub(super) struct State<'t> {
    pub(super) graph: Graph,
    pub(super) parameters: Parameters<'t>,
    /// Tensor of each parameter that was asked for, by path.
    pub(super) tensors: BTreeMap<String, NodeId>,
    pub(super) scalars: BTreeMap<String, Scalar>,
    pub(super) writes: Vec<(NodeId, NodeId)>,
    pub(super) reports: Vec<(String, NodeId)>,
    /// Prefix of the optimizer States of the bank being updated.
    pub(super) bank: String,
    /// Plugins whose code is running, outermost first.
    pub(super) plugins: Vec<String>,
}

/// What all traces of a run share.
pub struct Context<'t> {
    pub registry: &'t Registry,
    /// The run's backbone; None where an optimizer is traced alone.
    pub attention: Option<&'t Chosen>,
    pub vocab: usize,
}

/// One trace.
pub struct Tracer<'t> {
    pub(super) state: RefCell<State<'t>>,
    pub(super) context: &'t Context<'t>,
    pub(super) training: bool,
}

/// What a finished trace leaves beside its graph.
pub struct Traced {
    pub graph: Graph,
    pub parameters: Vec<Parameter>,
    pub scalars: BTreeMap<String, Scalar>,
}

impl<'t> Tracer<'t> {
    /// With `banks` None, parameters are discovered.
    pub fn new(context: &'t Context<'t>, banks: Option<&'t Banks>, training: bool) -> Tracer<'t> {
        let parameters = banks.map_or(Parameters::Discover(Vec::new()), Parameters::Banks);
        let state = State {
            graph: Graph::default(),
            parameters,
            tensors: BTreeMap::new(),
            scalars: BTreeMap::new(),
            writes: Vec::new(),
            reports: Vec::new(),
            bank: String::new(),
            plugins: Vec::new(),
        };
        Tracer { state: RefCell::new(state), context, training }
    }

    pub fn finish(self, plan: &str) -> Result<Traced, Error> {
        let state = self.state.into_inner();
        if !state.graph.errors.is_empty() {
            state.graph.errors.iter().for_each(|error| tracing::debug!("{error}"));
            return Err(Error::Trace { plan: plan.into(), errors: state.graph.errors });
        }
        let parameters = match state.parameters {
            Parameters::Discover(list) => list,
            Parameters::Banks(_) => Vec::new(),
        };
        Ok(Traced { graph: state.graph, parameters, scalars: state.scalars })
    }

    /// Works on the graph directly, for what the host itself adds to a trace.
    pub fn graph<R>(&self, build: impl FnOnce(&mut Graph) -> R) -> R {
        build(&mut self.state.borrow_mut().graph)
    }

    /// Tensors of all parameters that were asked for, by path.
    pub fn tensors(&self) -> BTreeMap<String, NodeId> {
        self.state.borrow().tensors.clone()
    }

    pub fn take_writes(&self) -> Vec<(NodeId, NodeId)> {
        std::mem::take(&mut self.state.borrow_mut().writes)
    }

    pub fn take_reports(&self) -> Vec<(String, NodeId)> {
        std::mem::take(&mut self.state.borrow_mut().reports)
    }

    /// Optimizer States asked for from now on belong to this bank.
    pub fn enter_bank(&self, role: &str) {
        self.state.borrow_mut().bank = format!("optimizer.{role}");
    }

    /// Runs plugin code with a builder. Its failure, and errors it causes, name the plugin.
    pub fn call<R>(
        &self,
        chosen: &Chosen,
        run: impl FnOnce(BuilderRef<'_>) -> Result<R, Error>,
    ) -> Option<R> {
        self.state.borrow_mut().plugins.push(chosen.component.plugin.clone());
        let scope = self.state.borrow().graph.current_scope().to_string();
        let result = run(GraphBuilder_TO::from_ptr(RRef::new(self), TD_Opaque));
        let mut state = self.state.borrow_mut();
        // Recorded where it happened, inside the scopes that a panic leaves open.
        let value = result.map_err(|error| {
            state.graph.fail(None, error.to_string(), "");
        });
        while state.graph.current_scope() != scope {
            state.graph.pop_scope();
        }
        state.plugins.pop();
        value.ok()
    }

    /// Applies `change` to the state; errors it records get the plugins and the source line.
    pub(super) fn with(&self, loc: Option<Loc<'_>>, change: impl FnOnce(&mut State<'t>) -> NodeId) -> u32 {
        let mut state = self.state.borrow_mut();
        let before = state.graph.errors.len();
        let id = change(&mut state);
        let plugins = state.plugins.join(" > ");
        let location = match loc {
            Some(loc) if !loc.file.is_empty() => format!("plugin {plugins}, {}:{}", loc.file, loc.line),
            _ => format!("plugin {plugins}"),
        };
        state.graph.errors[before..]
            .iter_mut()
            .for_each(|error: &mut GraphError| error.location = location.clone());
        id.0
    }
}

impl Tracer<'_> {
    /// The run's attention, or a named one, with options laid over the run's.
    pub(super) fn attention(&self, name: &str, options: &str) -> Result<Chosen, Error> {
        let no_backbone = || Error::said("asks for the run's attention backbone outside a model");
        let own = self.context.attention.ok_or_else(no_backbone)?;
        let malformed =
            |error: serde_json::Error| Error::said(format!("attention options are malformed: {error}"));
        let overlay: Value = serde_json::from_str(options).map_err(malformed)?;
        let is_own = name.is_empty() || name == own.component.name();
        let empty = overlay.as_object().is_none_or(serde_json::Map::is_empty);
        if is_own && empty {
            return Ok(own.clone());
        }
        let component =
            if is_own { own.component.clone() } else { self.context.registry.find(Kind::Attention, name)? };
        let mut options = if is_own { own.options.clone() } else { Value::Object(Default::default()) };
        if let (Some(map), Some(overlay)) = (options.as_object_mut(), overlay.as_object()) {
            map.extend(overlay.clone());
        }
        let options = component.resolve(&options)?;
        Ok(Chosen { component, options })
    }
}

/// The id of an optional operand.
pub fn optional(id: u32) -> Option<NodeId> {
    (id != NONE).then_some(NodeId(id))
}

/// Poison, with an error, where a component returned something of another type.
pub(super) fn check(graph: &mut Graph, id: NodeId, wanted: &Ty, what: &str) -> NodeId {
    if id == NodeId::POISON {
        return id;
    }
    if id.index() >= graph.nodes.len() {
        return graph.fail(None, format!("{what}: {id} is no tensor of this trace"), "");
    }
    if graph.ty(id) == wanted {
        return id;
    }
    let got = graph.describe(id);
    graph.fail(None, format!("{what} should be {wanted}, got {got}"), "")
}
