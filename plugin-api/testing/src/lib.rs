//! Traces a component in a plugin's own tests and evaluates what it traced in double precision, without a host.
//!
//! A component is an options struct with a trait, so a test calls it directly. What surrounds it in a run is missing:
//! parameters are inputs with small fixed values, the backbone that a model asks for passes its tokens on, scalars of
//! a step (the learning rate) are inputs that the test gives by name. Loops (`cx.scan`, `cx.when`), chunks and random
//! numbers belong to a run and are refused here. An eval asks a [`Scripted`] model instead.
//!
//! ```
//! use plugin_api::prelude::*;
//! use plugin_testing::{F32, trace};
//!
//! let traced = trace(&[("x", F32, &[2])], |_, x| vec![x[0] * x[0] + 1.0]).unwrap();
//! assert_eq!(traced.run(&[("x", &[2.0, 3.0])]).unwrap().outputs[0], [5.0, 10.0]);
//! ```

#![forbid(unsafe_code)]

mod builder;
mod scripted;
mod traced;

use graph::{Graph, NodeId, Ty};
use plugin_api::{Cx, DType, Tensor};

use crate::builder::Trace;

pub use scripted::Scripted;
pub use traced::{Traced, Values};

/// Dtype of everything that is computed with.
pub const F32: DType = DType::F32;
/// Dtype of token ids, targets and positions.
pub const I32: DType = DType::I32;

/// V, as a component asks for it.
pub const VOCAB: usize = 32;

/// Traces `body` over inputs (name, dtype, extents). An error reads as the host would print it, with scope, operands
/// and source line.
pub fn trace(
    inputs: &[(&str, DType, &[usize])],
    body: impl for<'c> FnOnce(&'c Cx<'c>, &[Tensor<'c>]) -> Vec<Tensor<'c>>,
) -> Result<Traced, String> {
    let trace = Trace::default();
    let names = inputs.iter();
    let ids: Vec<NodeId> = names
        .map(|(name, dtype, dims)| trace.graph.borrow_mut().input(name, Ty::new(*dtype, dims)))
        .collect();
    {
        let cx = Cx::new(&trace);
        let inputs: Vec<Tensor<'_>> = ids.iter().map(|id| cx.tensor(id.0)).collect();
        let outputs = body(&cx, &inputs);
        for (index, output) in outputs.iter().enumerate() {
            trace.graph.borrow_mut().output(&index.to_string(), NodeId(output.id()));
        }
    }
    let (graph, parameters): (Graph, _) = (trace.graph.into_inner(), trace.parameters.into_inner());
    match graph.errors.first() {
        Some(error) => Err(error.to_string()),
        None => Ok(Traced { graph: graph::compact(&graph), parameters }),
    }
}
