//! The frozen boundary between host and plugin. Version 1.1.
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
pub const API_VERSION: (u32, u32, u32) = (1, 1, 0);

/// [`API_VERSION`] as the metadata of a plugin says it.
pub const API_VERSION_TEXT: &str = "1.1.0";

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
    /// Since 1.1.
    pub const EVAL: u8 = 3;
    pub const NAMES: [&str; 4] = ["model", "attention", "optimizer", "eval"];
}

/// Levels of the log; each includes those before it. Since 1.1.
pub mod level {
    pub const OFF: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const WARN: u8 = 2;
    pub const INFO: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const TRACE: u8 = 5;
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

/// How an optimizer wants the parameters of a role. Since 1.1.
pub mod layout {
    /// All parameters of the role in one bank `[n]`: for rules that are the same for every element.
    pub const FLAT: u8 = 0;
    /// A bank `[k, m, n]` for each shape of matrix. Parameters of more than two axes are `[first, rest]`; those of
    /// fewer are not taken.
    pub const STACKED: u8 = 1;
    /// Left to the optimizer that the option `fallback` names, whose rate is `fallback_lr` times the schedule's.
    pub const NOT_TAKEN: u8 = 2;
}

/// How long a memory lasts in training. Since 1.1.
pub mod lifetime {
    /// To the end of the window.
    pub const SEQUENCE: u8 = 0;
    /// Through all windows of a text, where a run streams its texts.
    pub const STREAM: u8 = 1;
}

/// Initial values: normal(0, argument^2), uniform(-argument, argument), constant argument.
pub mod init {
    pub const NORMAL: u8 = 0;
    pub const UNIFORM: u8 = 1;
    pub const CONSTANT: u8 = 2;
}

/// Per-step scalars, computed by the host in f64: f32[] tensors unless it says otherwise.
pub mod scalar {
    /// Learning rate of the schedule at this step.
    pub const LEARNING_RATE: u16 = 0;
    /// 1 - argument^step, step counted from 1.
    pub const BIAS_CORRECTION: u16 = 1;
    /// Step, counted from 1.
    pub const STEP: u16 = 2;
    /// Step, counted from 0, as i32[]: a counter for `When`. In evaluation, the steps done so far. Since 1.1.
    pub const STEP_INDEX: u16 = 3;
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

/// One bank of parameters of one role: `parameter` and `gradient` are `[n]`, or `[k, m, n]` where it is stacked.
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

    /// Opens the body of a Scan or When, by its number in the op table; what is emitted up to [`Self::region_end`]
    /// belongs to it. Returns the tensors that the body starts from. Since 1.1.
    ///
    /// Scan: `inputs` are the carries, then the tensors read in slices of their first axis; `ints` are steps, number of
    /// carries, reverse (0), recompute (0). Returns the index of the step (i32[]), the carries, the slices.
    /// When: `inputs` are the counter (i32[]), then the old values; `ints` are period and offset (0). Returns the old
    /// values.
    fn region_begin(
        &self,
        op: u16,
        inputs: RSlice<'_, u32>,
        ints: RSlice<'_, i64>,
        loc: Loc<'_>,
    ) -> RVec<u32> {
        let _ = (op, inputs, ints);
        self.fail(RStr::from_str("this host is older than ABI 1.1 and has no Scan or When"), loc);
        RVec::new()
    }

    /// Ends the region opened last. Scan: `results` are the next carries, then what is stacked; returns the last
    /// carries, then the stacks. When: the new values; returns what is valid afterwards. Since 1.1.
    fn region_end(&self, results: RSlice<'_, u32>, loc: Loc<'_>) -> RVec<u32> {
        let _ = (results, loc);
        RVec::new()
    }

    /// Random u32 words: others in each draw, each micro-batch and each iteration of the Scans around it, and the same
    /// for equal seeds. In training only. Since 1.1.
    fn random(&self, dims: RSlice<'_, u64>, loc: Loc<'_>) -> u32 {
        let _ = dims;
        self.fail(RStr::from_str("this host is older than ABI 1.1 and has no random numbers"), loc);
        POISON
    }

    /// Begins a chunk of the sequence whose first token has position `start`; with `u64::MAX` ends the sequence.
    /// Since 1.1.
    fn chunk(&self, start: u64, loc: Loc<'_>) {
        let _ = start;
        self.fail(RStr::from_str("this host is older than ABI 1.1 and reads no sequence in chunks"), loc);
    }

    /// Position of the first token of the chunk; 0 outside chunks. Since 1.1.
    fn chunk_start(&self) -> u64 {
        0
    }

    /// What [`GraphBuilder::fast_write`] left under this name in the current scope, in this sequence; else [`NONE`].
    /// Since 1.1.
    fn fast_read(&self, name: RStr<'_>, loc: Loc<'_>) -> u32 {
        let _ = (name, loc);
        NONE
    }

    /// Leaves a value for later chunks of the sequence. Outside chunks it has no effect. Since 1.1.
    fn fast_write(&self, name: RStr<'_>, value: u32, loc: Loc<'_>) {
        let _ = (name, value, loc);
    }

    /// Whether memories of this [`lifetime`] outlive the trace: then [`GraphBuilder::fast_state`] has what they became.
    /// Since 1.1.
    fn fast_outlives(&self, lifetime: u8) -> bool {
        let _ = lifetime;
        false
    }

    /// What an earlier trace kept under this name in the current scope, `[B, dims...]`; zeros where a row starts afresh.
    /// Since 1.1.
    fn fast_state(&self, name: RStr<'_>, dims: RSlice<'_, u64>, lifetime: u8, loc: Loc<'_>) -> u32 {
        let _ = (name, dims, lifetime, loc);
        NONE
    }

    /// What later traces find under this name; the last call counts. Since 1.1.
    fn fast_keep(&self, name: RStr<'_>, value: u32, loc: Loc<'_>) {
        let _ = (name, value, loc);
    }

    /// Tokens that each row's memories have learned from before this trace, i32`[B]`; [`NONE`] where every trace starts
    /// afresh. Since 1.1.
    fn stream(&self, loc: Loc<'_>) -> u32 {
        let _ = loc;
        NONE
    }

    /// Position of the first token read now in each row's context, i32`[B]`; [`NONE`] outside sessions. Since 1.1.
    fn context(&self, loc: Loc<'_>) -> u32 {
        let _ = loc;
        NONE
    }

    /// Tokens that a context of the session can hold. Since 1.1.
    fn capacity(&self) -> u64 {
        0
    }

    /// Where the target had the largest logit in the pass that gave the token losses: f32`[B, T]`, 1 or 0. Since 1.1.
    fn correct(&self, value: u32, loc: Loc<'_>) {
        let _ = (value, loc);
    }
}

/// A borrowed builder, as handed to components.
pub type BuilderRef<'a> = GraphBuilder_TO<'a, abi_stable::RRef<'a, ()>>;

#[sabi_trait]
pub trait ModelObject {
    fn forward(&self, builder: BuilderRef<'_>, tokens: u32) -> RResult<ForwardIds, PluginError>;

    #[sabi(last_prefix_field)]
    fn train(&self, builder: BuilderRef<'_>, tokens: u32, targets: u32) -> RResult<LossIds, PluginError>;

    /// Writes what memories have pending, in a session. Since 1.1.
    fn flush(&self, builder: BuilderRef<'_>) -> RResult<(), PluginError> {
        let _ = builder;
        RResult::ROk(())
    }
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

    /// One of [`layout`] for a role. Since 1.1.
    fn layout(&self, role: u8) -> RResult<u8, PluginError> {
        let _ = role;
        RResult::ROk(layout::FLAT)
    }
}

/// What an eval asks of a trained model. Since 1.1.
pub mod request {
    /// The price of each token of `text` after `context`.
    pub const SCORE: u16 = 0;
    /// At most `number` tokens after `context`; `options`: `{"temperature": 0, "stop": [ids], "seed": 0}`.
    pub const GENERATE: u16 = 1;
    /// Reads `text`.
    pub const READ: u16 = 2;
    /// Keeps the state of the session's text; the response's `number` names it.
    pub const SNAPSHOT: u16 = 3;
    /// Goes back to the state that `number` names.
    pub const RESTORE: u16 = 4;

    /// From nothing.
    pub const RESET: u8 = 0;
    /// From the session's text, which goes on with what is read.
    pub const CARRY: u8 = 1;
    /// From the session's text, which stays as it is.
    pub const FORK: u8 = 2;
}

/// One of [`request`], with the state it starts from; with `learn` 1 memories learn from what is read. Since 1.1.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Request {
    pub code: u16,
    pub state: u8,
    pub learn: u8,
    pub context: RVec<i32>,
    pub text: RVec<i32>,
    pub number: u64,
    /// JSON, or empty.
    pub options: RString,
}

/// What a [`Request`] came to. Since 1.1.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Response {
    /// Why there is no result; empty where there is one.
    pub error: RString,
    /// Nats of each token of the text.
    pub losses: RVec<f64>,
    /// 1 where no other token was more probable.
    pub best: RVec<u8>,
    /// What was generated.
    pub text: RVec<i32>,
    pub number: u64,
}

/// A trained model, for an eval. Since 1.1.
#[sabi_trait]
pub trait ModelSession {
    /// One response for each request, in their order. The host reads requests that reset side by side.
    #[sabi(last_prefix_field)]
    fn submit(&self, requests: RVec<Request>) -> RResult<RVec<Response>, PluginError>;
}

/// Operations of [`HostServices::call`]. Since 1.1.
pub mod service {
    /// `{}` to `{"vocab", "window", "seed", "limit"}`: limit is how many items the user wants at most, 0 for all.
    pub const FACTS: u16 = 0;
    /// `{"text"}` to `{"tokens"}`.
    pub const TOKENIZE: u16 = 1;
    /// `{"tokens"}` to `{"text"}`.
    pub const DETOKENIZE: u16 = 2;
    /// `{"limit"}` to `{"texts": [{"tokens", "bytes", "answers": [{"start", "end", "chance", "kind"}]}]}`: validation texts
    /// of the run's data; `bytes` are those of all tokens but the first, answers those of the stories' questions.
    pub const TEXTS: u16 = 3;
    /// `{"done", "total"}`: shown to the user; the answer `{"stop": true}` asks to end early.
    pub const PROGRESS: u16 = 4;
}

/// What the host does for an eval beside the model. Since 1.1.
#[sabi_trait]
pub trait HostServices {
    /// One of [`service`]: JSON to JSON.
    #[sabi(last_prefix_field)]
    fn call(&self, op: u16, json: RStr<'_>) -> RResult<RString, PluginError>;
}

/// A borrowed session, as handed to evals.
pub type SessionRef<'a> = ModelSession_TO<'a, abi_stable::RRef<'a, ()>>;

/// Borrowed services, as handed to evals.
pub type ServicesRef<'a> = HostServices_TO<'a, abi_stable::RRef<'a, ()>>;

#[sabi_trait]
pub trait EvalObject {
    /// `[{"name", "value", "n", "low", "high", "unit"}]`. Since 1.1.
    #[sabi(last_prefix_field)]
    fn run(&self, session: SessionRef<'_>, host: ServicesRef<'_>) -> RResult<RString, PluginError>;
}

/// Where the log of a plugin goes. Since 1.1.
#[sabi_trait]
pub trait LogSink: Send + Sync {
    /// Whether the host wants events of this `level` (see [`level`]) and target. Since 1.1.
    fn enabled(&self, level: u8, target: RStr<'_>) -> bool;

    /// `message` with its fields, and the spans it happened in, outermost first. Since 1.1.
    #[sabi(last_prefix_field)]
    fn event(&self, level: u8, target: RStr<'_>, message: RStr<'_>, spans: RStr<'_>, loc: Loc<'_>);
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
    /// Since 1.1.
    pub make_eval: extern "C" fn(RStr<'_>) -> RResult<EvalObject_TO<'static, RBox<()>>, PluginError>,
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
    /// Sends the library's log to the sink from now on: events of at most `level`. Since 1.1.
    pub log: extern "C" fn(sink: LogSink_TO<'static, RBox<()>>, level: u8),
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
