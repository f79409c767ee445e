//! The frozen boundary between host and plugin. Version 1.0.
//!
//! Rules: nothing here is changed or removed within a major version; trait methods and prefix fields are appended
//! only, each with a default body that returns a named error or a documented default; kinds, roles and codes are
//! numbers, not enums. `GraphBuilder` points towards the plugin, the component traits towards the host. A tensor is
//! a `u32`; [`POISON`] is the result of a failed emit, [`NONE`] an absent optional operand.

#![allow(non_camel_case_types, non_local_definitions)]
#![allow(missing_docs, clippy::too_many_arguments)]

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, RResult, RSlice, RStr, RString, RVec};
use abi_stable::type_layout::TypeLayout;
use abi_stable::StableAbi;

/// Major, minor, patch of the ABI.
pub const API_VERSION: (u32, u32, u32) = (1, 0, 0);

/// First bytes of [`LibHeader`]; read before anything else.
pub const MAGIC: [u8; 16] = *b"host plugin abi\n";

/// Name of the exported [`LibHeader`].
pub const HEADER_SYMBOL: &str = "HOST_PLUGIN_HEADER";

/// Result of a failed emit. The host has recorded why.
pub const POISON: u32 = u32::MAX;

/// An operand that is not there.
pub const NONE: u32 = u32::MAX - 1;

/// Component kinds.
pub mod kind {
    pub const MODEL: u8 = 0;
    pub const ATTENTION: u8 = 1;
    pub const OPTIMIZER: u8 = 2;
    pub const NAMES: [&str; 3] = ["model", "attention", "optimizer"];
}

/// Parameter roles.
pub mod role {
    pub const MATRIX: u8 = 0;
    pub const EMBEDDING: u8 = 1;
    pub const GAIN: u8 = 2;
    pub const BIAS: u8 = 3;
    pub const SCALAR: u8 = 4;
    pub const MEMORY: u8 = 5;
    pub const NAMES: [&str; 6] = ["matrix", "embedding", "gain", "bias", "scalar", "memory"];
}

/// Initial values: normal(0, argument^2), uniform(-argument, argument), constant argument.
pub mod init {
    pub const NORMAL: u8 = 0;
    pub const UNIFORM: u8 = 1;
    pub const CONSTANT: u8 = 2;
}

/// Per-step scalars, computed by the host in f64: f32[] tensors.
pub mod scalar {
    /// Learning rate of the schedule at this step.
    pub const LEARNING_RATE: u16 = 0;
    /// 1 - argument^step, step counted from 1.
    pub const BIAS_CORRECTION: u16 = 1;
    /// Step, counted from 1.
    pub const STEP: u16 = 2;
}

/// Where in the plugin's source a call was made.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Loc<'a> {
    pub file: RStr<'a>,
    pub line: u32,
    pub column: u32,
}

#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct TensorInfo {
    /// Number of an `ops::DType`; 255 for a poisoned tensor.
    pub dtype: u8,
    pub dims: RVec<u64>,
}

#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct ParameterSpec<'a> {
    /// Relative to the current scope.
    pub name: RStr<'a>,
    pub dims: RSlice<'a, u64>,
    pub role: u8,
    pub init: u8,
    pub init_argument: f64,
}

/// A panic or a refusal, in words.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct PluginError {
    pub message: RString,
    /// `src/lib.rs:31`, or empty.
    pub location: RString,
}

/// One complaint of a component about its options.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct OptionFault {
    /// Key path within the component's options.
    pub key: RString,
    pub message: RString,
}

/// What a model's forward pass yields: logits are `hidden[B, T, D] head[V, D]'`.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct ForwardIds {
    pub hidden: u32,
    pub head: u32,
}

/// `token_losses[B, T]` in nats, and a scalar added to their mean (or [`NONE`]).
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct LossIds {
    pub token_losses: u32,
    pub auxiliary: u32,
}

/// One bank of parameters of one role: `parameter[n]` and `gradient[n]`, flat.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct GroupIds {
    pub role: u8,
    pub parameter: u32,
    pub gradient: u32,
}

/// The host's side of a trace.
#[sabi_trait]
pub trait GraphBuilder {
    /// Appends an op of the table; returns its tensor or [`POISON`].
    fn emit(
        &self,
        opcode: u16,
        inputs: RSlice<'_, u32>,
        ints: RSlice<'_, i64>,
        floats: RSlice<'_, f64>,
        loc: Loc<'_>,
    ) -> u32;

    fn tensor_info(&self, id: u32) -> TensorInfo;

    fn push_scope(&self, name: RStr<'_>);

    fn pop_scope(&self);

    /// A trained tensor. The same path gives the same tensor.
    fn parameter(&self, spec: ParameterSpec<'_>, loc: Loc<'_>) -> u32;

    /// Cotangents of `loss` for each of `wrt`; zeros where no path leads.
    fn grad(&self, loss: u32, wrt: RSlice<'_, u32>, loc: Loc<'_>) -> RVec<u32>;

    /// Traces a component of `kind` here. An empty name means the one the run chose; `options` is a JSON object laid
    /// over the run's options for it.
    fn component(
        &self,
        kind: u8,
        name: RStr<'_>,
        options: RStr<'_>,
        inputs: RSlice<'_, u32>,
        loc: Loc<'_>,
    ) -> u32;

    /// One of [`scalar`].
    fn scalar(&self, code: u16, argument: f64, loc: Loc<'_>) -> u32;

    /// f32 State of the optimizer, zero before the first step, beside the parameter bank being updated.
    fn optimizer_state(&self, name: RStr<'_>, dims: RSlice<'_, u64>, loc: Loc<'_>) -> u32;

    /// The value of an optimizer State after the step.
    fn write(&self, state: u32, value: u32, loc: Loc<'_>);

    /// Adds a one-element tensor to each step's metrics.
    fn report(&self, name: RStr<'_>, value: u32, loc: Loc<'_>);

    /// Records an error of the plugin's own at the current scope.
    fn fail(&self, message: RStr<'_>, loc: Loc<'_>);

    /// Whether the trace is for training; in evaluation dropout and the like are off.
    fn training(&self) -> bool;

    /// Vocabulary size V of the run's tokenizer.
    #[sabi(last_prefix_field)]
    fn vocab(&self) -> u64;
}

/// A borrowed builder, as handed to components.
pub type BuilderRef<'a> = GraphBuilder_TO<'a, abi_stable::RRef<'a, ()>>;

#[sabi_trait]
pub trait ModelObject {
    fn forward(&self, builder: BuilderRef<'_>, tokens: u32) -> RResult<ForwardIds, PluginError>;

    #[sabi(last_prefix_field)]
    fn train(&self, builder: BuilderRef<'_>, tokens: u32, targets: u32) -> RResult<LossIds, PluginError>;
}

#[sabi_trait]
pub trait AttentionObject {
    /// `positions[T]` or [`NONE`].
    #[sabi(last_prefix_field)]
    fn trace(&self, builder: BuilderRef<'_>, x: u32, positions: u32) -> RResult<u32, PluginError>;
}

#[sabi_trait]
pub trait OptimizerObject {
    /// The bank after the step.
    #[sabi(last_prefix_field)]
    fn update(&self, builder: BuilderRef<'_>, group: GroupIds) -> RResult<u32, PluginError>;
}

/// A component of a library. Exactly the constructor of its kind is usable; the others return an error.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ComponentEntry_Ref)))]
pub struct ComponentEntry {
    pub kind: u8,
    pub name: RStr<'static>,
    pub summary: RStr<'static>,
    /// JSON schema of the options.
    pub schema: extern "C" fn() -> RResult<RString, PluginError>,
    /// All options with their defaults filled in, as JSON, or what does not fit.
    pub resolve: extern "C" fn(RStr<'_>) -> RResult<RString, PluginError>,
    /// What the schema cannot say. Arguments: options, then the run's dimensions, both JSON.
    pub validate: extern "C" fn(RStr<'_>, RStr<'_>) -> RResult<RVec<OptionFault>, PluginError>,
    pub make_model: extern "C" fn(RStr<'_>) -> RResult<ModelObject_TO<'static, RBox<()>>, PluginError>,
    pub make_attention:
        extern "C" fn(RStr<'_>) -> RResult<AttentionObject_TO<'static, RBox<()>>, PluginError>,
    #[sabi(last_prefix_field)]
    pub make_optimizer:
        extern "C" fn(RStr<'_>) -> RResult<OptimizerObject_TO<'static, RBox<()>>, PluginError>,
}

/// What a library exports, once its header is accepted.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRoot_Ref)))]
pub struct PluginRoot {
    pub plugin: RStr<'static>,
    pub version: RStr<'static>,
    #[sabi(last_prefix_field)]
    pub components: extern "C" fn() -> RVec<ComponentEntry_Ref>,
}

/// Plain data under [`HEADER_SYMBOL`]: read field by field before any typed call. Its layout never changes.
#[repr(C)]
pub struct LibHeader {
    pub magic: [u8; 16],
    pub api_version: [u32; 3],
    pub op_set_version: u32,
    /// Bytes of the metadata section, so that the linker keeps it.
    pub metadata: &'static [u8],
    /// Layout of `PluginRoot_Ref` as the plugin was compiled.
    pub layout: extern "C" fn() -> &'static TypeLayout,
    pub root: extern "C" fn() -> PluginRoot_Ref,
}
