//! The IR's grammar as checks. Runs after the trace and, in debug builds, between passes.

use std::collections::HashSet;

use crate::{Graph, GraphError, Op, infer};

/// Checks the invariants of [`Graph`]; the first one broken is the error.
pub fn verify(graph: &Graph) -> Result<(), GraphError> {
    for body in &graph.bodies {
        verify(body)?;
        let effect = body.ids().find(|id| matches!(body.node(*id).op, Op::State | Op::Write));
        if let Some(id) = effect {
            let (scope, op) = (body.scope_path(id).to_string(), Some(body.node(id).op));
            let (message, hint) = ("stands in the body of a region".to_string(), String::new());
            return Err(GraphError { scope, op, message, hint, location: String::new() });
        }
    }
    let mut written = HashSet::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let broken = |message: String| GraphError {
            scope: graph.scope_path(id).to_string(),
            op: Some(node.op),
            message,
            hint: "this is a bug of the host, not of the plugin".into(),
            location: String::new(),
        };
        if let Some(later) = node.inputs.iter().find(|input| **input >= id) {
            return Err(broken(format!("{id} reads {later}, which does not precede it")));
        }
        match infer::infer(graph, node.op, &node.inputs, &node.ints, &node.floats) {
            Ok(ty) if ty == node.ty => {}
            Ok(ty) => return Err(broken(format!("{id} is stored as {} but infers as {ty}", node.ty))),
            Err((message, _)) => return Err(broken(message)),
        }
        if node.op == Op::Write && !written.insert(node.ints[0]) {
            let name = &graph.states[node.ints[0] as usize].name;
            return Err(broken(format!("writes state {name} a second time")));
        }
    }
    Ok(())
}
