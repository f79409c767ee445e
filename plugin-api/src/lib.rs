//! What a plugin author depends on: a typed façade for tracing layers, and the stable ABI beneath it.
//!
//! A plugin never computes. The host calls it once with a graph builder; it emits operations and gets tensor ids
//! back. An attention backbone, whole:
//!
//! ```
//! use plugin_api::prelude::*;
//!
//! options! {
//!     /// Softmax attention over all earlier positions.
//!     pub struct Full {
//!         /// Attention heads; divides the model width.
//!         pub heads: usize = 4,
//!     }
//! }
//!
//! impl Attention for Full {
//!     fn trace<'c>(&self, cx: &'c Cx<'c>, x_btd: Tensor<'c>, _positions: Option<Tensor<'c>>) -> Tensor<'c> {
//!         let d = x_btd.dim(-1);
//!         let [q, k, v] = ["wq", "wk", "wv"].map(|name| cx.linear(name, x_btd, d).split_heads(self.heads));
//!         cx.linear("wo", attention(q, k, v).merge_heads(), d)
//!     }
//! }
//!
//! component! { attention "full" => Full, "Softmax attention over all earlier positions." }
//! export_plugin!();
//! # fn main() {}
//! ```
//!
//! [`abi`] is the frozen part; everything else is compiled into the plugin.

#[cfg(panic = "abort")]
compile_error!("plugins need `panic = \"unwind\"`: a panic must become an error that names the plugin");

pub mod abi;
mod attention;
mod component;
mod cx;
pub mod eval;
mod export;
mod guard;
mod indexing;
mod kinds;
mod layers;
mod log;
mod matrices;
mod memory;
mod metadata;
mod operators;
mod options;
mod random;
mod recurrence;
mod regions;
mod rows;
mod sequence;
mod tensor;

pub use attention::{attention, attention_with, Attend, Mask};
pub use component::{
    plugin_root, root_layout, AttentionAdapter, EvalAdapter, ModelAdapter, OptimizerAdapter,
};
pub use cx::{Builder, Cx, GROWTH};
pub use eval::{Eval, Metric, Trained};
pub use guard::guard;
pub use kinds::{Attention, Fault, Group, Init, Layout, Loss, Model, Optimizer, Output, Role};
pub use layers::causal_conv;
pub use memory::{Fast, Lifetime, Past};
pub use metadata::{join, total, Registration, METADATA_SECTION, RUSTC, TARGET};
pub use ops::{DType, Op, OP_SET_VERSION};
pub use options::{parse, schema, Dims};
pub use recurrence::{gated_delta_rule, linear_attention};
pub use regions::Scan;
pub use tensor::Tensor;

#[doc(hidden)]
pub use {abi_stable, inventory, schemars, serde, serde_json, tracing};

/// All that a component's file needs.
pub mod prelude {
    pub use crate::{attention, attention_with, causal_conv, component, export_plugin, options};
    pub use crate::{gated_delta_rule, linear_attention, tracing};
    pub use crate::{
        Attend, Attention, Cx, DType, Dims, Eval, Fast, Fault, Group, Init, Layout, Lifetime, Loss, Mask,
        Metric, Model, Optimizer, Output, Past, Role, Scan, Tensor, Trained,
    };
}
