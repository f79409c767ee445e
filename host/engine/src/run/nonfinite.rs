//! Naming the first bad tensor of a step that is not finite.

use graph::interp::{self, Tensor};
use graph::{Graph, Op};

use crate::Error;
use crate::machine::{Feed, Machine};

/// Replays a step in the interpreter and returns the first value that f32 cannot hold, with its layer. A value that
/// only f32 loses (f64 has more range in between) is found by its size.
pub fn first_bad<'f>(
    graph: &Graph,
    machine: &Machine,
    feed: impl Fn(&str) -> Option<Feed<'f>>,
) -> Result<String, Error> {
    let graph = graph::meaning(graph);
    let missing = |name: &str| Error::said(format!("input {name} is missing"));
    let inputs: Vec<Tensor> = graph
        .inputs
        .iter()
        .map(|decl| feed(&decl.name).map(|feed| feed.tensor(&decl.ty)).ok_or_else(|| missing(&decl.name)))
        .collect::<Result<_, _>>()?;
    let mut states = Vec::with_capacity(graph.states.len());
    for decl in &graph.states {
        let data = machine.read_state(&decl.name)?.into_iter().map(f64::from).collect();
        states.push(Tensor { ty: decl.ty.clone(), data });
    }
    let mut found = None;
    interp::watch(&graph, &inputs, &mut states, |id, value| {
        let bad = |number: &f64| !number.is_finite() || number.abs() > f64::from(f32::MAX);
        // A mask holds -1e30 and the like on purpose; only what left the range of f32 counts.
        if found.is_none()
            && value.ty.dtype.is_float()
            && graph.node(id).op != Op::Const
            && let Some(index) = value.data.iter().position(bad)
        {
            let scope = graph.scope_path(id);
            let scope = if scope.is_empty() { "top level" } else { scope };
            found =
                Some(format!("{} in {scope}, element {index} = {:e}", graph.describe(id), value.data[index]));
        }
    });
    Ok(found.unwrap_or_else(|| "none in double precision: rounding or the device made it".into()))
}
