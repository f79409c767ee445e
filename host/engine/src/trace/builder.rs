//! The graph builder of the ABI over a trace: ids and extents checked, errors recorded, nothing trusted.

use abi_stable::std_types::{RSlice, RStr, RVec};
use graph::{DType, NodeId, Op, Ty};
use plugin_api::abi::{GraphBuilder, Loc, ParameterSpec, TensorInfo, kind, scalar};

use super::banks::Parameter;
use super::tracer::{Parameters, Scalar, State, Tracer};

/// An id that came over the ABI, checked: an unknown one is an error, not an index.
fn known(state: &mut State<'_>, id: u32) -> NodeId {
    let id = NodeId(id);
    if id == NodeId::POISON || id.index() < state.graph.nodes.len() {
        return id;
    }
    state.graph.fail(
        None,
        format!("got tensor {id}, which no call returned"),
        "pass on ids as the host gave them",
    )
}

fn extents(dims: &RSlice<'_, u64>) -> Vec<usize> {
    dims.iter().map(|dim| *dim as usize).collect()
}

/// A parameter has at most this many elements: a larger one is a mistake in the plugin.
const MAX_ELEMENTS: u128 = 1 << 40;

impl GraphBuilder for Tracer<'_> {
    fn emit(
        &self,
        opcode: u16,
        inputs: RSlice<'_, u32>,
        ints: RSlice<'_, i64>,
        floats: RSlice<'_, f64>,
        loc: Loc<'_>,
    ) -> u32 {
        self.with(Some(loc), |state| {
            let Some(op) = Op::from_code(opcode) else {
                let hint = "build the plugin against this host's plugin-api";
                return state.graph.fail(None, format!("op number {opcode} is not known to this host"), hint);
            };
            if matches!(op, Op::Input | Op::State | Op::Write | Op::Output) {
                let message = "cannot be emitted by a plugin";
                return state.graph.fail(Some(op), message, "use parameter, optimizer_state or write");
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
        self.state.borrow_mut().graph.push_scope(&name);
    }

    fn pop_scope(&self) {
        self.state.borrow_mut().graph.pop_scope();
    }

    fn parameter(&self, spec: ParameterSpec<'_>, loc: Loc<'_>) -> u32 {
        self.with(Some(loc), |state| {
            let scope = state.graph.current_scope();
            let path =
                if scope.is_empty() { spec.name.to_string() } else { format!("{scope}.{}", spec.name) };
            let dims = extents(&spec.dims);
            if dims.contains(&0) || dims.iter().map(|dim| *dim as u128).product::<u128>() > MAX_ELEMENTS {
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
                    Some((bank, offset)) => {
                        let whole = state.graph.state(&bank.state(), Ty::new(DType::F32, &[bank.elements]));
                        let range = [offset as i64, ty.elements() as i64];
                        let slice = state.graph.emit(Op::Slice, &[whole], &range, &[]);
                        let ints: Vec<i64> = ty.dims.iter().map(|dim| *dim as i64).collect();
                        state.graph.emit(Op::Reshape, &[slice], &ints, &[])
                    }
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
        self.with(Some(loc), |state| {
            let loss = known(state, loss);
            let wrt: Vec<NodeId> = wrt.iter().map(|id| known(state, *id)).collect();
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
        let refuse = |message: String| self.with(Some(loc), |state| state.graph.fail(None, message, ""));
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
        let dims = self.tensor_info(x).dims;
        let mixed =
            self.call(&chosen, |builder| chosen.component.outcome(object.trace(builder, x, positions)));
        let Some(mixed) = mixed else { return NodeId::POISON.0 };
        self.with(Some(loc), |state| {
            let mixed = known(state, mixed);
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
        self.with(Some(loc), |state| {
            let name = match code {
                scalar::LEARNING_RATE => "learning_rate".to_string(),
                scalar::BIAS_CORRECTION => format!("bias_correction({argument:?})"),
                scalar::STEP => "step".to_string(),
                _ => {
                    return state.graph.fail(
                        None,
                        format!("scalar number {code} is not known to this host"),
                        "",
                    );
                }
            };
            state.scalars.insert(name.clone(), Scalar { code, argument });
            state.graph.input(&name, Ty::scalar(DType::F32))
        })
    }

    fn optimizer_state(&self, name: RStr<'_>, dims: RSlice<'_, u64>, loc: Loc<'_>) -> u32 {
        self.with(Some(loc), |state| {
            if state.bank.is_empty() {
                return state.graph.fail(None, "asks for optimizer state outside an optimizer", "");
            }
            let name = format!("{}.{name}", state.bank);
            state.graph.state(&name, Ty::new(DType::F32, &extents(&dims)))
        })
    }

    fn write(&self, state_id: u32, value: u32, loc: Loc<'_>) {
        self.with(Some(loc), |state| {
            let (target, value) = (known(state, state_id), known(state, value));
            if target == NodeId::POISON || value == NodeId::POISON {
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
        self.with(Some(loc), |state| {
            let value = known(state, value);
            if value != NodeId::POISON {
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
        self.with(Some(loc), |state| state.graph.fail(None, message.as_str(), ""));
    }

    fn training(&self) -> bool {
        self.training
    }

    fn vocab(&self) -> u64 {
        self.context.vocab as u64
    }
}
