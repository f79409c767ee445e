//! The context of a trace: scopes, parameters, components, and what the host computes for each step.

use std::panic::Location;

use abi_stable::std_types::{RSlice, RStr};
use serde_json::Value;

use crate::abi::{self, kind, scalar, BuilderRef, GraphBuilder, Loc, ParameterSpec, NONE, POISON};
use crate::{DType, Init, Op, Role, Tensor};

/// The host's builder as the façade sees it. One implementation speaks the ABI.
pub trait Builder {
    fn emit(&self, op: Op, inputs: &[u32], ints: &[i64], floats: &[f64], at: &Location<'_>) -> u32;
    /// None for a poisoned tensor.
    fn info(&self, id: u32) -> Option<(DType, Vec<usize>)>;
    fn push_scope(&self, name: &str);
    fn pop_scope(&self);
    fn parameter(&self, name: &str, dims: &[usize], role: Role, init: Init, at: &Location<'_>) -> u32;
    fn grad(&self, loss: u32, wrt: &[u32], at: &Location<'_>) -> Vec<u32>;
    fn component(&self, kind: u8, name: &str, options: &str, inputs: &[u32], at: &Location<'_>) -> u32;
    fn scalar(&self, code: u16, argument: f64, at: &Location<'_>) -> u32;
    fn optimizer_state(&self, name: &str, dims: &[usize], at: &Location<'_>) -> u32;
    fn write(&self, state: u32, value: u32, at: &Location<'_>);
    fn report(&self, name: &str, value: u32, at: &Location<'_>);
    fn fail(&self, message: &str, at: &Location<'_>);
    fn training(&self) -> bool;
    fn vocab(&self) -> usize;
    /// Opens a Scan or When; see [`abi::GraphBuilder::region_begin`].
    fn region_begin(&self, op: Op, inputs: &[u32], ints: &[i64], at: &Location<'_>) -> Vec<u32>;
    fn region_end(&self, results: &[u32], at: &Location<'_>) -> Vec<u32>;
    fn random(&self, dims: &[usize], at: &Location<'_>) -> u32;
    /// A builder without a sequence (one for a single layer, say) has no chunks, and memories that nobody reads.
    fn chunk(&self, _start: u64, at: &Location<'_>) {
        self.fail("this builder reads no sequence in chunks", at);
    }
    fn chunk_start(&self) -> u64 {
        0
    }
    fn fast_read(&self, _name: &str, _at: &Location<'_>) -> u32 {
        NONE
    }
    fn fast_write(&self, _name: &str, _value: u32, _at: &Location<'_>) {}
    /// Whether memories of this lifetime outlive the trace.
    fn fast_outlives(&self, _lifetime: u8) -> bool {
        false
    }
    fn fast_state(&self, _name: &str, _dims: &[usize], _lifetime: u8, _at: &Location<'_>) -> u32 {
        NONE
    }
    fn fast_keep(&self, _name: &str, _value: u32, _at: &Location<'_>) {}
    fn stream(&self, _at: &Location<'_>) -> u32 {
        NONE
    }
    fn context(&self, _at: &Location<'_>) -> u32 {
        NONE
    }
    fn capacity(&self) -> usize {
        0
    }
    fn correct(&self, _value: u32, _at: &Location<'_>) {}
}

/// How names of metrics end that tell the growth of a memory.
pub const GROWTH: &str = ".growth";

/// What a component traces with.
pub struct Cx<'c> {
    builder: &'c dyn Builder,
}

impl<'c> Cx<'c> {
    pub fn new(builder: &'c dyn Builder) -> Cx<'c> {
        Cx { builder }
    }

    pub(crate) fn builder(&self) -> &'c dyn Builder {
        self.builder
    }

    /// A tensor by its id.
    pub fn tensor(&'c self, id: u32) -> Tensor<'c> {
        Tensor::new(self, id)
    }

    /// Traces `body` in a scope, `layers.3` say. Parameters below get its path as a prefix.
    pub fn scope<R>(&self, name: &str, body: impl FnOnce() -> R) -> R {
        self.builder.push_scope(name);
        let result = body();
        self.builder.pop_scope();
        result
    }

    /// A trained tensor. Asking again for the same path gives the same tensor.
    #[track_caller]
    pub fn parameter(&'c self, name: &str, dims: &[usize], role: Role, init: Init) -> Tensor<'c> {
        self.tensor(self.builder.parameter(name, dims, role, init, Location::caller()))
    }

    /// Derivatives of a one-element `loss`, as nodes: they may be used, written to memories, differentiated again.
    #[track_caller]
    pub fn grad(&'c self, loss: Tensor<'c>, wrt: &[Tensor<'c>]) -> Vec<Tensor<'c>> {
        let ids: Vec<u32> = wrt.iter().map(|tensor| tensor.id()).collect();
        let cotangents = self.builder.grad(loss.id(), &ids, Location::caller());
        cotangents.into_iter().map(|id| self.tensor(id)).collect()
    }

    /// The attention backbone of the run, with the run's options. `positions[T]` asks it for rotary positions.
    #[track_caller]
    pub fn attention(&'c self, x_btd: Tensor<'c>, positions: Option<Tensor<'c>>) -> Tensor<'c> {
        self.attention_named("", &Value::Object(Default::default()), x_btd, positions)
    }

    /// A backbone by name, with options laid over the run's: for models that mix backbones.
    #[track_caller]
    pub fn attention_named(
        &'c self,
        name: &str,
        options: &Value,
        x_btd: Tensor<'c>,
        positions: Option<Tensor<'c>>,
    ) -> Tensor<'c> {
        let inputs = [x_btd.id(), positions.map_or(NONE, |positions| positions.id())];
        let at = Location::caller();
        self.tensor(self.builder.component(kind::ATTENTION, name, &options.to_string(), &inputs, at))
    }

    /// Learning rate of this step, f32[].
    #[track_caller]
    pub fn learning_rate(&'c self) -> Tensor<'c> {
        self.tensor(self.builder.scalar(scalar::LEARNING_RATE, 0.0, Location::caller()))
    }

    /// 1 - beta^step, f32[], computed in f64.
    #[track_caller]
    pub fn bias_correction(&'c self, beta: f64) -> Tensor<'c> {
        self.tensor(self.builder.scalar(scalar::BIAS_CORRECTION, beta, Location::caller()))
    }

    /// The optimizer's step, counted from 0, i32[]: a counter for [`Cx::when`]. In evaluation, the steps done so far.
    #[track_caller]
    pub fn step(&'c self) -> Tensor<'c> {
        self.tensor(self.builder.scalar(scalar::STEP_INDEX, 0.0, Location::caller()))
    }

    /// A State of the optimizer beside the bank being updated, zero before the first step.
    #[track_caller]
    pub fn optimizer_state(&'c self, name: &str, dims: &[usize]) -> Tensor<'c> {
        self.tensor(self.builder.optimizer_state(name, dims, Location::caller()))
    }

    /// Makes `value` the content of a State after the step.
    #[track_caller]
    pub fn write(&self, state: Tensor<'c>, value: Tensor<'c>) {
        self.builder.write(state.id(), value.id(), Location::caller());
    }

    /// Adds a one-element tensor to the metrics of each step.
    #[track_caller]
    pub fn report(&self, name: &str, value: Tensor<'c>) {
        self.builder.report(name, value.id(), Location::caller());
    }

    /// [`Cx::report`] of how far a memory has moved from its start, |W - W0| / |W0|, as `name.growth`. A run warns when
    /// it grows beyond what a memory that learns needs.
    #[track_caller]
    pub fn report_growth(&self, name: &str, ratio: Tensor<'c>) {
        self.report(&format!("{name}{GROWTH}"), ratio);
    }

    /// Stops the trace with an error of your own; returns a poisoned tensor to go on with.
    #[track_caller]
    pub fn fail(&'c self, message: &str) -> Tensor<'c> {
        self.builder.fail(message, Location::caller());
        self.tensor(POISON)
    }

    /// False in evaluation and generation.
    pub fn training(&self) -> bool {
        self.builder.training()
    }

    /// Vocabulary size V of the run's tokenizer.
    pub fn vocab(&self) -> usize {
        self.builder.vocab()
    }

    /// One value everywhere.
    #[track_caller]
    pub fn constant(&'c self, value: f64, dtype: DType, dims: &[usize]) -> Tensor<'c> {
        let ints: Vec<i64> =
            std::iter::once(dtype as i64).chain(dims.iter().map(|dim| *dim as i64)).collect();
        self.emit(Op::Const, &[], &ints, &[value])
    }

    /// 0, 1, ..., n - 1 as i32.
    #[track_caller]
    pub fn range(&'c self, n: usize) -> Tensor<'c> {
        self.emit(Op::Iota, &[], &[0, DType::I32 as i64, n as i64], &[])
    }

    /// Tensors one after another along an axis; other extents agree.
    #[track_caller]
    pub fn concat(&'c self, parts: &[Tensor<'c>], axis: usize) -> Tensor<'c> {
        self.emit(Op::Concat, parts, &[axis as i64], &[])
    }

    /// Any op of the table.
    #[track_caller]
    pub fn emit(&'c self, op: Op, inputs: &[Tensor<'c>], ints: &[i64], floats: &[f64]) -> Tensor<'c> {
        let ids: Vec<u32> = inputs.iter().map(|tensor| tensor.id()).collect();
        self.tensor(self.builder.emit(op, &ids, ints, floats, Location::caller()))
    }
}

fn loc<'a>(at: &'a Location<'_>) -> Loc<'a> {
    Loc { file: at.file().into(), line: at.line(), column: at.column() }
}

fn extents(dims: &[usize]) -> Vec<u64> {
    dims.iter().map(|dim| *dim as u64).collect()
}

impl Builder for BuilderRef<'_> {
    fn emit(&self, op: Op, inputs: &[u32], ints: &[i64], floats: &[f64], at: &Location<'_>) -> u32 {
        GraphBuilder::emit(self, op as u16, inputs.into(), ints.into(), floats.into(), loc(at))
    }

    fn info(&self, id: u32) -> Option<(DType, Vec<usize>)> {
        let info = GraphBuilder::tensor_info(self, id);
        let dims = info.dims.iter().map(|dim| *dim as usize).collect();
        DType::from_code(info.dtype.into()).map(|dtype| (dtype, dims))
    }

    fn push_scope(&self, name: &str) {
        GraphBuilder::push_scope(self, name.into());
    }

    fn pop_scope(&self) {
        GraphBuilder::pop_scope(self);
    }

    fn parameter(&self, name: &str, dims: &[usize], role: Role, init: Init, at: &Location<'_>) -> u32 {
        let dims = extents(dims);
        let (init, init_argument) = match init {
            Init::Normal(deviation) => (abi::init::NORMAL, deviation),
            Init::Uniform(bound) => (abi::init::UNIFORM, bound),
            Init::Constant(value) => (abi::init::CONSTANT, value),
        };
        let (name, dims, role) = (RStr::from(name), RSlice::from(&dims[..]), role as u8);
        GraphBuilder::parameter(self, ParameterSpec { name, dims, role, init, init_argument }, loc(at))
    }

    fn grad(&self, loss: u32, wrt: &[u32], at: &Location<'_>) -> Vec<u32> {
        GraphBuilder::grad(self, loss, wrt.into(), loc(at)).into()
    }

    fn component(&self, kind: u8, name: &str, options: &str, inputs: &[u32], at: &Location<'_>) -> u32 {
        GraphBuilder::component(self, kind, name.into(), options.into(), inputs.into(), loc(at))
    }

    fn scalar(&self, code: u16, argument: f64, at: &Location<'_>) -> u32 {
        GraphBuilder::scalar(self, code, argument, loc(at))
    }

    fn optimizer_state(&self, name: &str, dims: &[usize], at: &Location<'_>) -> u32 {
        GraphBuilder::optimizer_state(self, name.into(), extents(dims)[..].into(), loc(at))
    }

    fn write(&self, state: u32, value: u32, at: &Location<'_>) {
        GraphBuilder::write(self, state, value, loc(at));
    }

    fn report(&self, name: &str, value: u32, at: &Location<'_>) {
        GraphBuilder::report(self, name.into(), value, loc(at));
    }

    fn fail(&self, message: &str, at: &Location<'_>) {
        GraphBuilder::fail(self, message.into(), loc(at));
    }

    fn training(&self) -> bool {
        GraphBuilder::training(self)
    }

    fn vocab(&self) -> usize {
        GraphBuilder::vocab(self) as usize
    }
    fn region_begin(&self, op: Op, inputs: &[u32], ints: &[i64], at: &Location<'_>) -> Vec<u32> {
        GraphBuilder::region_begin(self, op as u16, inputs.into(), ints.into(), loc(at)).into()
    }

    fn region_end(&self, results: &[u32], at: &Location<'_>) -> Vec<u32> {
        GraphBuilder::region_end(self, results.into(), loc(at)).into()
    }

    fn random(&self, dims: &[usize], at: &Location<'_>) -> u32 {
        GraphBuilder::random(self, extents(dims)[..].into(), loc(at))
    }

    fn chunk(&self, start: u64, at: &Location<'_>) {
        GraphBuilder::chunk(self, start, loc(at));
    }

    fn chunk_start(&self) -> u64 {
        GraphBuilder::chunk_start(self)
    }

    fn fast_read(&self, name: &str, at: &Location<'_>) -> u32 {
        GraphBuilder::fast_read(self, name.into(), loc(at))
    }

    fn fast_write(&self, name: &str, value: u32, at: &Location<'_>) {
        GraphBuilder::fast_write(self, name.into(), value, loc(at));
    }

    fn fast_outlives(&self, lifetime: u8) -> bool {
        GraphBuilder::fast_outlives(self, lifetime)
    }

    fn fast_state(&self, name: &str, dims: &[usize], lifetime: u8, at: &Location<'_>) -> u32 {
        GraphBuilder::fast_state(self, name.into(), extents(dims)[..].into(), lifetime, loc(at))
    }

    fn fast_keep(&self, name: &str, value: u32, at: &Location<'_>) {
        GraphBuilder::fast_keep(self, name.into(), value, loc(at));
    }

    fn stream(&self, at: &Location<'_>) -> u32 {
        GraphBuilder::stream(self, loc(at))
    }

    fn context(&self, at: &Location<'_>) -> u32 {
        GraphBuilder::context(self, loc(at))
    }

    fn capacity(&self) -> usize {
        GraphBuilder::capacity(self) as usize
    }

    fn correct(&self, value: u32, at: &Location<'_>) {
        GraphBuilder::correct(self, value, loc(at));
    }
}
