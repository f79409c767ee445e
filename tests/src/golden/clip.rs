//! Clipping by the global norm, as the engine does it in a step: all inputs of the case are gradients.

use engine::trace;
use graph::{DType, NodeId};

use super::file::Role;
use super::trace::{Given, Outputs};

pub fn global_norm<'c>(given: &Given<'c>) -> Outputs<'c> {
    given.fixed("eps", 1e-6);
    let limit = given.number("max_norm");
    let inputs = given.case.tensors.iter().filter(|(_, golden)| golden.role == Role::Input);
    let names: Vec<&String> = inputs.map(|(name, _)| name).collect();
    let tensors: Vec<_> = names.iter().map(|name| given.x(name)).collect();
    // The engine clips gradients of whole banks, which are flat.
    let flat: Vec<NodeId> =
        tensors.iter().map(|x| NodeId(x.reshape(&[x.dims().iter().product()]).id())).collect();
    let tensor = |id: NodeId| given.cx.tensor(id.0);
    let global = given.graph(|graph| {
        let loss = graph.constant(0.0, DType::F32, &[]);
        trace::global_norm(graph, &flat, loss, limit)
    });
    let mut outputs: Outputs<'c> =
        vec![("total_norm".into(), tensor(global.norm)), ("coefficient".into(), tensor(global.factor))];
    for ((name, x), gradient) in names.into_iter().zip(&tensors).zip(flat) {
        let clipped = given.graph(|graph| trace::clipped(graph, gradient, &global));
        outputs.push((format!("{name}_clipped"), tensor(clipped).reshape(&x.dims())));
    }
    outputs
}
