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
use super::carry::{Carry, Lasting};
use super::regions::{self, Region};
use super::sequence::Sequence;
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

/// Most calls that a trace may make and most ops that it may have, derivatives included: beyond it, a loop has no end.
/// The largest plan here has ninety thousand.
const MOST_CALLS: usize = 1 << 22;

/// Errors of one trace after which nothing more is looked at.
const MOST_ERRORS: usize = 10_000;

/// Components that may be traced inside each other; more of them are one that asks for itself.
const MOST_FRAMES: usize = 64;

/// Longest path of scopes: each op remembers its own.
const MOST_SCOPE: usize = 4096;

/// Name of the input that holds the step, counted from 0: the one scalar that evaluation has too.
pub const STEP_INDEX: &str = "step_index";

/// A scalar that the host computes for each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalar {
    pub code: u16,
    /// Of the learning rate: the factor of the optimizer that asks.
    pub argument: f64,
}

impl Scalar {
    /// Its value at `step`, counted from 1, where the schedule says `lr`.
    pub fn value(&self, lr: f64, step: u64) -> f64 {
        match self.code {
            scalar::LEARNING_RATE => lr * self.argument,
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
    /// Learning rate of the running optimizer as a factor of the schedule's.
    pub(super) rate: f64,
    /// Plugins whose code is running, outermost first.
    pub(super) frames: Vec<Frame>,
    /// Regions that are open, outermost first.
    pub(super) regions: Vec<Region>,
    /// Draws of random numbers so far, by scope.
    pub(super) draws: BTreeMap<String, usize>,
    pub(super) sequence: Sequence,
    /// Memories that outlive the trace.
    pub(super) carry: Carry,
    /// What the model says of its targets, where its training pass is not its forward pass.
    pub(super) correct: Option<NodeId>,
    /// Calls that plugins have made.
    calls: usize,
    /// No call is looked at any more.
    spent: bool,
}

/// A component while its code runs. It ends only the scopes and regions that it began.
pub(super) struct Frame {
    plugin: String,
    /// Scopes it has open.
    pub(super) scopes: usize,
    /// Regions that were open before it.
    pub(super) regions: usize,
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
        Tracer::lasting(context, banks, training, Lasting::Trace)
    }

    /// A trace whose memories may outlive it.
    pub fn lasting(
        context: &'t Context<'t>,
        banks: Option<&'t Banks>,
        training: bool,
        lasting: Lasting,
    ) -> Tracer<'t> {
        let parameters = banks.map_or(Parameters::Discover(Vec::new()), Parameters::Banks);
        let state = State {
            graph: Graph::default(),
            parameters,
            tensors: BTreeMap::new(),
            scalars: BTreeMap::new(),
            writes: Vec::new(),
            reports: Vec::new(),
            bank: String::new(),
            rate: 1.0,
            frames: Vec::new(),
            regions: Vec::new(),
            draws: BTreeMap::new(),
            sequence: Sequence::default(),
            carry: Carry::new(lasting),
            correct: None,
            calls: 0,
            spent: false,
        };
        Tracer { state: RefCell::new(state), context, training }
    }

    pub fn finish(self, plan: &str) -> Result<Traced, Error> {
        let mut state = self.state.into_inner();
        regions::unwind(&mut state, 0, true);
        if !state.graph.errors.is_empty() {
            state.graph.errors.iter().for_each(|error| tracing::debug!("{error}"));
            return Err(Error::Trace { plan: plan.into(), errors: state.graph.errors });
        }
        let parameters = match state.parameters {
            Parameters::Discover(list) => list,
            Parameters::Banks(_) => Vec::new(),
        };
        // Closed regions leave what they were built from.
        let graph = if state.graph.had_regions() { graph::compact(&state.graph) } else { state.graph };
        Ok(Traced { graph, parameters, scalars: state.scalars })
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

    /// Memories at the end of a sequence that was read in chunks, by path.
    pub fn memories(&self) -> BTreeMap<String, NodeId> {
        self.state.borrow().sequence.memories.clone()
    }

    /// Writes the memories that outlive the trace, where `finite` (bool[]) holds.
    pub fn write_memories(&self, finite: Option<NodeId>) {
        let state = &mut *self.state.borrow_mut();
        if state.graph.errors.is_empty() {
            state.carry.write(&mut state.graph, finite);
        }
    }

    /// Tokens that the model reads before its memories may be written; None where it reads a window at once.
    pub fn chunk_tokens(&self) -> Option<usize> {
        self.state.borrow().sequence.chunk_tokens.map(|tokens| tokens as usize)
    }

    /// Whether the trace keeps memories.
    pub fn keeps_memories(&self) -> bool {
        self.state.borrow().carry.is_kept()
    }

    /// What the model has said of its targets.
    pub fn take_correct(&self) -> Option<NodeId> {
        self.state.borrow_mut().correct.take()
    }

    pub fn take_reports(&self) -> Vec<(String, NodeId)> {
        std::mem::take(&mut self.state.borrow_mut().reports)
    }

    /// Optimizer States asked for from now on belong to this bank, learning rates to an optimizer with this factor.
    pub fn enter_bank(&self, name: &str, rate: f64) {
        let mut state = self.state.borrow_mut();
        state.bank = format!("optimizer.{name}");
        state.rate = rate;
    }

    /// Runs plugin code with a builder. Its failure, and errors it causes, name the plugin.
    pub fn call<R>(
        &self,
        chosen: &Chosen,
        run: impl FnOnce(BuilderRef<'_>) -> Result<R, Error>,
    ) -> Option<R> {
        let mut state = self.state.borrow_mut();
        let frame =
            Frame { plugin: chosen.component.plugin.clone(), scopes: 0, regions: state.regions.len() };
        state.frames.push(frame);
        drop(state);
        let result = run(GraphBuilder_TO::from_ptr(RRef::new(self), TD_Opaque));
        let mut state = self.state.borrow_mut();
        // Recorded where it happened, inside the scopes and regions that a panic leaves open.
        let value = result.map_err(|error| {
            state.graph.fail(None, error.to_string(), "");
        });
        if let Some(frame) = state.frames.pop() {
            regions::unwind(&mut state, frame.regions, value.is_ok());
            (0..frame.scopes).for_each(|_| state.graph.pop_scope());
        }
        value.ok()
    }

    /// Applies `change` to the state; errors it records get the plugins and the source line.
    pub(super) fn with(&self, loc: Loc<'_>, change: impl FnOnce(&mut State<'t>) -> NodeId) -> u32 {
        self.noting(loc, |state| Some(change(state))).unwrap_or(NodeId::POISON).0
    }

    /// [`Tracer::with`] for whatever `change` returns; nothing, where the trace has outgrown its limits.
    pub(super) fn noting<R: Default>(&self, loc: Loc<'_>, change: impl FnOnce(&mut State<'t>) -> R) -> R {
        let mut state = self.state.borrow_mut();
        let before = state.graph.errors.len();
        let result = if state.may_go_on() { change(&mut state) } else { R::default() };
        if state.graph.errors.len() == before {
            return result;
        }
        let location = state.location(loc);
        state.graph.errors[before..]
            .iter_mut()
            .for_each(|error: &mut GraphError| error.location = location.clone());
        result
    }
}

impl State<'_> {
    /// Counts a call; false, with an error, for the one that is too many.
    fn may_go_on(&mut self) -> bool {
        if self.spent {
            return false;
        }
        self.calls += 1;
        let what = if self.calls > MOST_CALLS {
            format!("the trace makes more than {MOST_CALLS} calls")
        } else if self.graph.nodes.len() > MOST_CALLS {
            format!("the trace has more than {MOST_CALLS} ops")
        } else if self.graph.errors.len() > MOST_ERRORS {
            format!("the trace has more than {MOST_ERRORS} errors")
        } else {
            return true;
        };
        self.spent = true;
        self.graph.fail(None, what, "what is repeated at run time is a Scan; is there a loop without end?");
        false
    }

    /// Enters a scope for the running component.
    pub(super) fn enter(&mut self, name: &str) {
        if !self.may_go_on() {
            return;
        }
        if self.graph.current_scope().len() + name.len() > MOST_SCOPE {
            self.graph.fail(None, format!("scopes are nested deeper than {MOST_SCOPE} letters"), "");
            return;
        }
        self.graph.push_scope(name);
        if let Some(frame) = self.frames.last_mut() {
            frame.scopes += 1;
        }
    }

    /// `plugin model-transformer > attention-full, src/lib.rs:31`
    pub(super) fn location(&self, loc: Loc<'_>) -> String {
        let plugins: Vec<&str> = self.frames.iter().map(|frame| frame.plugin.as_str()).collect();
        let plugins = plugins.join(" > ");
        if loc.file.is_empty() {
            return format!("plugin {plugins}");
        }
        format!("plugin {plugins}, {}:{}", loc.file, loc.line)
    }
}

impl Tracer<'_> {
    /// The run's attention, or a named one, with options laid over the run's.
    pub(super) fn attention(&self, name: &str, options: &str) -> Result<Chosen, Error> {
        let no_backbone = || Error::said("asks for the run's attention backbone outside a model");
        let own = self.context.attention.ok_or_else(no_backbone)?;
        if self.state.borrow().frames.len() > MOST_FRAMES {
            return Err(Error::said(format!("components ask for each other more than {MOST_FRAMES} deep")));
        }
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
