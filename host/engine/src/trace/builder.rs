//! The graph builder of the ABI over a trace: ids and extents checked, errors recorded, nothing trusted.

use abi_stable::std_types::{RSlice, RStr, RVec};
use graph::{DType, NodeId, Op, Ty};
use plugin_api::abi::{GraphBuilder, Loc, NONE, ParameterSpec, TensorInfo, kind, scalar};

use super::banks::Parameter;
use super::sequence::path;
use super::tracer::{Parameters, STEP_INDEX, Scalar, State, Tracer};
use super::{random, regions};

/// An id that came over the ABI, checked: one that is no tensor is an error, not an index.
pub(super) fn known(state: &mut State<'_>, id: u32) -> NodeId {
    let id = NodeId(id);
    let is_tensor = |op: Op| !matches!(op, Op::Scan | Op::When | Op::Write | Op::Output);
    if id == NodeId::POISON || state.graph.nodes.get(id.index()).is_some_and(|node| is_tensor(node.op)) {
        return id;
    }
    state.graph.fail(
        None,
        format!("got tensor {id}, which no call returned"),
        "pass on ids as the host gave them",
    )
}

/// [`known`], and not of a region that has ended: what an emit checks of its operands.
pub(super) fn seen(state: &mut State<'_>, id: u32) -> NodeId {
    let id = known(state, id);
    if id == NodeId::POISON {
        return id;
    }
    // A reshape to its own extents is the tensor itself, where the graph lets it be read.
    let dims: Vec<i64> = state.graph.dims(id).iter().map(|dim| *dim as i64).collect();
    let same = state.graph.emit(Op::Reshape, &[id], &dims, &[]);
    if same == NodeId::POISON
        && let Some(error) = state.graph.errors.last_mut()
    {
        error.op = None;
    }
    same
}

pub(super) fn extents(dims: &RSlice<'_, u64>) -> Vec<usize> {
    dims.iter().map(|dim| *dim as usize).collect()
}

/// Effects stand outside regions, where they happen once in each step.
fn refuse_inside(state: &mut State<'_>, what: &str) -> bool {
    let Some(region) = state.regions.last() else { return false };
    let message = format!("{what} inside a {}", region.op);
    state.graph.fail(None, message, "return the value from the body and use it outside");
    true
}

impl GraphBuilder for Tracer<'_> {
    fn emit(
        &self,
        opcode: u16,
        inputs: RSlice<'_, u32>,
        ints: RSlice<'_, i64>,
        floats: RSlice<'_, f64>,
        loc: Loc<'_>,
    ) -> u32 {
        self.with(loc, |state| {
            let Some(op) = Op::from_code(opcode) else {
                let hint = "build the plugin against this host's plugin-api";
                return state.graph.fail(None, format!("op number {opcode} is not known to this host"), hint);
            };
            let hint = match op {
                Op::Input | Op::State | Op::Write | Op::Output => "use parameter, optimizer_state or write",
                Op::Scan | Op::When => "use region_begin and region_end",
                op if op.is_internal() => "use Attention or GatedDeltaRule, and grad",
                _ => "",
            };
            if !hint.is_empty() {
                return state.graph.fail(Some(op), "cannot be emitted by a plugin", hint);
            }
            let inputs: Vec<NodeId> = inputs.iter().map(|id| known(state, *id)).collect();
            state.graph.emit(op, &inputs, ints.as_slice(), floats.as_slice())
        })
    }

    fn tensor_info(&self, id: u32) -> TensorInfo {
        let state = self.state.borrow();
        match state.graph.nodes.get(id as usize) {
            Some(node) => TensorInfo {
                dtype: node.ty.dtype as u8,
                dims: node.ty.dims.iter().map(|dim| *dim as u64).collect(),
            },
            None => TensorInfo { dtype: u8::MAX, dims: RVec::new() },
        }
    }

    fn push_scope(&self, name: RStr<'_>) {
        self.state.borrow_mut().enter(&name);
    }

    /// Leaves a scope that the running component entered; those of its callers stay.
    fn pop_scope(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(frame) = state.frames.last_mut() {
            let Some(left) = frame.scopes.checked_sub(1) else { return };
            frame.scopes = left;
        }
        state.graph.pop_scope();
    }

    fn parameter(&self, spec: ParameterSpec<'_>, loc: Loc<'_>) -> u32 {
        self.with(loc, |state| {
            let scope = state.graph.current_scope();
            let path =
                if scope.is_empty() { spec.name.to_string() } else { format!("{scope}.{}", spec.name) };
            let dims = extents(&spec.dims);
            if !Ty::is_supported(&dims) {
                return state.graph.fail(
                    None,
                    format!("parameter {path} has extents {dims:?}"),
                    "check the options",
                );
            }
            let ty = Ty::new(DType::F32, &dims);
            if let Some(id) = state.tensors.get(&path).copied() {
                if state.graph.ty(id) == &ty {
                    return id;
                }
                let message =
                    format!("parameter {path} is {} and asked for again as {ty}", state.graph.ty(id));
                return state.graph.fail(None, message, "use another name or scope");
            }
            let (role, init, init_argument) = (spec.role, spec.init, spec.init_argument);
            let id = match &mut state.parameters {
                Parameters::Discover(list) => {
                    list.push(Parameter { path: path.clone(), dims, role, init, init_argument });
                    state.graph.input(&path, ty)
                }
                Parameters::Banks(banks) => match banks.find(&path) {
                    // Whichever body asks first, every other one may read it.
                    Some((bank, offset)) => state.graph.outside_regions(|graph| {
                        let whole = graph.state(&bank.state(), bank.ty());
                        let part = bank.part(ty.elements());
                        // Of each axis but the first, all of it.
                        let mut ranges: Vec<i64> = part.iter().flat_map(|dim| [0, *dim as i64]).collect();
                        ranges[0] = (offset * part[0] / ty.elements()) as i64;
                        let slice = graph.emit(Op::Slice, &[whole], &ranges, &[]);
                        let ints: Vec<i64> = ty.dims.iter().map(|dim| *dim as i64).collect();
                        graph.emit(Op::Reshape, &[slice], &ints, &[])
                    }),
                    None => {
                        let message = format!("parameter {path} appears only in some traces of the model");
                        state.graph.fail(
                            None,
                            message,
                            "declare the same parameters in training and evaluation",
                        )
                    }
                },
            };
            state.graph.names.insert(id, path.clone());
            state.tensors.insert(path, id);
            id
        })
    }

    fn grad(&self, loss: u32, wrt: RSlice<'_, u32>, loc: Loc<'_>) -> RVec<u32> {
        let mut ids = Vec::new();
        self.with(loc, |state| {
            let loss = seen(state, loss);
            let wrt: Vec<NodeId> = wrt.iter().map(|id| seen(state, *id)).collect();
            let cotangents = graph::grad(&mut state.graph, loss, &wrt);
            for (cotangent, of) in cotangents.into_iter().zip(wrt) {
                let id = cotangent.unwrap_or_else(|| {
                    let dims = state.graph.dims(of).to_vec();
                    state.graph.constant(0.0, DType::F32, &dims)
                });
                ids.push(id.0);
            }
            loss
        });
        ids.into()
    }

    fn component(
        &self,
        kind: u8,
        name: RStr<'_>,
        options: RStr<'_>,
        inputs: RSlice<'_, u32>,
        loc: Loc<'_>,
    ) -> u32 {
        let refuse = |message: String| self.with(loc, |state| state.graph.fail(None, message, ""));
        if kind != kind::ATTENTION || inputs.len() != 2 {
            return refuse(format!("asks for a component of kind {kind} with {} inputs", inputs.len()));
        }
        let chosen = match self.attention(&name, &options) {
            Ok(chosen) => chosen,
            Err(error) => return refuse(error.to_string()),
        };
        let object = match chosen.component.attention(&chosen.options) {
            Ok(object) => object,
            Err(error) => return refuse(error.to_string()),
        };
        let (x, positions) = (inputs[0], inputs[1]);
        if self.with(loc, |state| seen(state, x)) == NodeId::POISON.0 {
            return NodeId::POISON.0;
        }
        let dims = self.tensor_info(x).dims;
        let mixed =
            self.call(&chosen, |builder| chosen.component.outcome(object.trace(builder, x, positions)));
        let Some(mixed) = mixed else { return NodeId::POISON.0 };
        self.with(loc, |state| {
            let mixed = seen(state, mixed);
            let same =
                mixed == NodeId::POISON || state.graph.dims(mixed).iter().map(|dim| *dim as u64).eq(dims);
            if same {
                return mixed;
            }
            let got = state.graph.describe(mixed);
            let message = format!(
                "attention {} returned {got} for {}",
                chosen.component.name(),
                state.graph.describe(NodeId(x))
            );
            state.graph.fail(None, message, "a backbone keeps [B, T, D]")
        })
    }

    fn scalar(&self, code: u16, argument: f64, loc: Loc<'_>) -> u32 {
        self.with(loc, |state| {
            let name = match code {
                scalar::LEARNING_RATE if state.rate == 1.0 => "learning_rate".to_string(),
                scalar::LEARNING_RATE => format!("learning_rate({:?})", state.rate),
                scalar::BIAS_CORRECTION => format!("bias_correction({argument:?})"),
                scalar::STEP => "step".to_string(),
                scalar::STEP_INDEX => STEP_INDEX.to_string(),
                _ => {
                    return state.graph.fail(
                        None,
                        format!("scalar number {code} is not known to this host"),
                        "",
                    );
                }
            };
            let argument = if code == scalar::LEARNING_RATE { state.rate } else { argument };
            state.scalars.insert(name.clone(), Scalar { code, argument });
            let dtype = if code == scalar::STEP_INDEX { DType::I32 } else { DType::F32 };
            state.graph.input(&name, Ty::scalar(dtype))
        })
    }

    fn optimizer_state(&self, name: RStr<'_>, dims: RSlice<'_, u64>, loc: Loc<'_>) -> u32 {
        self.with(loc, |state| {
            if state.bank.is_empty() {
                return state.graph.fail(None, "asks for optimizer state outside an optimizer", "");
            }
            let name = format!("{}.{name}", state.bank);
            state.graph.state(&name, Ty::new(DType::F32, &extents(&dims)))
        })
    }

    fn write(&self, state_id: u32, value: u32, loc: Loc<'_>) {
        self.with(loc, |state| {
            let (target, value) = (seen(state, state_id), seen(state, value));
            let is_poisoned = target == NodeId::POISON || value == NodeId::POISON;
            if is_poisoned || refuse_inside(state, "writes optimizer state") {
                return NodeId::POISON;
            }
            if state.graph.node(target).op != Op::State || state.graph.ty(target) != state.graph.ty(value) {
                let (target, value) = (state.graph.describe(target), state.graph.describe(value));
                return state.graph.fail(
                    None,
                    format!("cannot write {value} to {target}"),
                    "write to optimizer state of the same shape",
                );
            }
            state.writes.push((target, value));
            value
        });
    }

    fn report(&self, name: RStr<'_>, value: u32, loc: Loc<'_>) {
        self.with(loc, |state| {
            let value = seen(state, value);
            if value != NodeId::POISON && !refuse_inside(state, &format!("reports metric {name}")) {
                if state.graph.ty(value).elements() != 1 || !state.graph.ty(value).dtype.is_float() {
                    let got = state.graph.describe(value);
                    return state.graph.fail(
                        None,
                        format!("metric {name} is not one f32 number but {got}"),
                        "",
                    );
                }
                state.reports.push((name.to_string(), value));
            }
            value
        });
    }

    fn fail(&self, message: RStr<'_>, loc: Loc<'_>) {
        self.with(loc, |state| state.graph.fail(None, message.as_str(), ""));
    }

    fn training(&self) -> bool {
        self.training
    }

    fn vocab(&self) -> u64 {
        self.context.vocab as u64
    }
    fn region_begin(
        &self,
        op: u16,
        inputs: RSlice<'_, u32>,
        ints: RSlice<'_, i64>,
        loc: Loc<'_>,
    ) -> RVec<u32> {
        let inside = self.noting(loc, |state| {
            let inputs: Vec<NodeId> = inputs.iter().map(|id| seen(state, *id)).collect();
            regions::begin(state, op, &inputs, ints.as_slice(), loc)
        });
        inside.into_iter().map(|id| id.0).collect()
    }

    fn region_end(&self, results: RSlice<'_, u32>, loc: Loc<'_>) -> RVec<u32> {
        let after = self.noting(loc, |state| {
            let results: Vec<NodeId> = results.iter().map(|id| seen(state, *id)).collect();
            regions::end(state, &results)
        });
        after.into_iter().map(|id| id.0).collect()
    }

    fn random(&self, dims: RSlice<'_, u64>, loc: Loc<'_>) -> u32 {
        self.with(loc, |state| {
            if !self.training {
                let hint = "ask whether the trace is for training first";
                return state.graph.fail(None, "draws random numbers in evaluation", hint);
            }
            random::draw(state, &extents(&dims))
        })
    }

    fn chunk(&self, start: u64, loc: Loc<'_>) {
        self.with(loc, |state| state.sequence.begin(&mut state.graph, start));
    }

    fn chunk_start(&self) -> u64 {
        self.state.borrow().sequence.start()
    }

    fn fast_read(&self, name: RStr<'_>, _loc: Loc<'_>) -> u32 {
        let state = self.state.borrow();
        state.sequence.read(&path(&state.graph, &name)).map_or(NONE, |id| id.0)
    }

    fn fast_write(&self, name: RStr<'_>, value: u32, loc: Loc<'_>) {
        self.with(loc, |state| {
            let value = known(state, value);
            let path = path(&state.graph, &name);
            state.sequence.write(&mut state.graph, path, value)
        });
    }

    fn fast_outlives(&self, lifetime: u8) -> bool {
        self.state.borrow().carry.outlives(lifetime)
    }

    fn fast_state(&self, name: RStr<'_>, dims: RSlice<'_, u64>, lifetime: u8, loc: Loc<'_>) -> u32 {
        if !self.state.borrow().carry.outlives(lifetime) {
            return NONE;
        }
        self.with(loc, |state| {
            let path = path(&state.graph, &name);
            state.carry.state(&mut state.graph, &path, &extents(&dims))
        })
    }

    fn fast_keep(&self, name: RStr<'_>, value: u32, loc: Loc<'_>) {
        self.with(loc, |state| {
            let value = seen(state, value);
            if refuse_inside(state, &format!("keeps the memory {name}")) {
                return NodeId::POISON;
            }
            let path = path(&state.graph, &name);
            state.carry.keep(&mut state.graph, &path, value)
        });
    }

    fn stream(&self, loc: Loc<'_>) -> u32 {
        self.noting(loc, |state| state.carry.read(&mut state.graph)).map_or(NONE, |id| id.0)
    }

    fn context(&self, loc: Loc<'_>) -> u32 {
        self.noting(loc, |state| state.carry.context(&mut state.graph)).map_or(NONE, |id| id.0)
    }

    fn capacity(&self) -> u64 {
        self.state.borrow().carry.capacity() as u64
    }

    fn correct(&self, value: u32, loc: Loc<'_>) {
        self.with(loc, |state| {
            state.correct = Some(known(state, value));
            NodeId::POISON
        });
    }
}
