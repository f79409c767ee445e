//! The IR: one flat graph of typed operations with static shapes.
//!
//! A graph is built by [`Graph::emit`], which checks operands, infers the result type, folds the obvious and shares
//! equal nodes. A wrong emit records a [`GraphError`] and yields [`NodeId::POISON`], which later emits pass on, so
//! that a trace runs to its end and the first error is the one shown. [`grad`] appends derivatives to the same graph;
//! [`interp`] gives every node its meaning in double precision. Nothing here knows a device, a file or a plugin.

#![forbid(unsafe_code)]

pub mod attributes;
mod differentiate;
mod error;
mod expand;
mod extract;
mod fold;
mod infer;
pub mod interp;
#[path = "graph.rs"]
mod ir;
mod legalize;
mod regions;
mod rewrite;
mod text;
mod ty;
mod var;
mod verify;
mod vjp;

pub use differentiate::{Cotangents, grad};
pub use error::GraphError;
pub use expand::{Keeps, expand, expand_except, expand_node, gated_delta_rule, linear_attention, meaning};
pub use infer::region::MAX_STEPS;
pub use ir::{Decl, Graph, Node, NodeId, ScopeId};
pub use legalize::legalize;
pub use ops::{Class, DType, Op};
pub use regions::ScanOptions;
pub use rewrite::{Rewritten, compact, inline, live, rewrite, rewrite_regions};
pub use text::parse;
pub use ty::Ty;
pub use var::{Builder, Var};
pub use verify::verify;
