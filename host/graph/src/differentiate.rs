//! Reverse mode from graph to graph: `grad` appends the cotangents of `wrt` to the same graph.

use std::collections::HashMap;

use ops::Op;

use crate::vjp::{Rule, vjp};
use crate::{Builder, Graph, NodeId, expand_node};

/// One entry per `wrt`: its cotangent, or None where no path leads to it.
pub type Cotangents = Vec<Option<NodeId>>;

/// Derivative of the one-element `loss` with respect to each of `wrt`.
///
/// A missing rule on the way is recorded as an error that prints the path from the loss to the parameter.
pub fn grad(graph: &mut Graph, loss: NodeId, wrt: &[NodeId]) -> Cotangents {
    if loss == NodeId::POISON || wrt.contains(&NodeId::POISON) {
        return wrt.iter().map(|_| Some(NodeId::POISON)).collect();
    }
    let ty = graph.ty(loss).clone();
    if ty.elements() != 1 || !ty.dtype.is_float() {
        let what = format!("takes the gradient of one f32 number, got {}", graph.describe(loss));
        graph.fail(None, what, "sum or average the loss first");
        return wrt.iter().map(|_| Some(NodeId::POISON)).collect();
    }
    let seed = graph.constant(1.0, ty.dtype, &ty.dims);
    backward(graph, loss, seed, wrt, false)
}

/// Pulls the cotangent `seed` of `from` back to each of `wrt`. Cotangents of one node are added in the order in which
/// its users are visited, last user first. With `independent`, each of `wrt` is held as a variable of its own, as the
/// operands of one op are; else what reaches one of them goes on to those it depends on.
fn backward(graph: &mut Graph, from: NodeId, seed: NodeId, wrt: &[NodeId], independent: bool) -> Cotangents {
    let reaches = reachable(graph, from, wrt);
    let mut cotangents: HashMap<NodeId, NodeId> = HashMap::from([(from, seed)]);
    for index in (0..=from.0).rev() {
        let id = NodeId(index);
        if !reaches[id.index()] || (independent && wrt.contains(&id)) {
            continue;
        }
        let Some(ct) = cotangents.get(&id).copied() else { continue };
        let node = graph.node(id).clone();
        let scope = graph.scope_path(id).to_string();
        let results = graph.in_scope(&scope, |graph| {
            // Rules look at the cotangent's extents, which poison has not.
            if ct == NodeId::POISON {
                return vec![Some(NodeId::POISON); node.inputs.len()];
            }
            let rule = Builder::with(graph, |b| match vjp(b, &node, id, b.var(ct)) {
                Rule::Cotangents(cts) => Some(cts.into_iter().map(|ct| ct.map(|ct| ct.id)).collect()),
                Rule::Constant => Some(vec![None; node.inputs.len()]),
                Rule::Decompose => None,
                Rule::Missing => {
                    let poisoned = |input: &NodeId| reaches[input.index()].then_some(NodeId::POISON);
                    Some(node.inputs.iter().map(poisoned).collect())
                }
            });
            rule.unwrap_or_else(|| {
                let expanded = expand_node(graph, &node);
                backward(graph, expanded, ct, &node.inputs, true)
            })
        });
        for (input, ct) in node.inputs.iter().zip(results) {
            let Some(ct) = ct.filter(|_| reaches[input.index()]) else { continue };
            if ct == NodeId::POISON && graph.errors.is_empty() {
                let path = path_to(graph, id, wrt, &reaches);
                graph.fail(Some(node.op), format!("has no derivative rule; the path is {path}"), "");
            }
            let sum = match cotangents.get(input) {
                Some(&sum) => graph.in_scope(&scope, |graph| graph.emit(Op::Add, &[sum, ct], &[], &[])),
                None => ct,
            };
            cotangents.insert(*input, sum);
        }
    }
    wrt.iter().map(|id| cotangents.get(id).copied()).collect()
}

/// Nodes up to `from` that depend on some of `wrt`.
fn reachable(graph: &Graph, from: NodeId, wrt: &[NodeId]) -> Vec<bool> {
    let mut reaches = vec![false; graph.nodes.len()];
    for id in wrt {
        reaches[id.index()] = true;
    }
    for index in 0..=from.0 {
        let id = NodeId(index);
        let node = graph.node(id);
        if node.op != Op::StopGrad && node.inputs.iter().any(|input| reaches[input.index()]) {
            reaches[id.index()] = true;
        }
    }
    reaches
}

/// `Dot%9 in layers.0 <- wq f32[8, 8]`, for the message.
fn path_to(graph: &Graph, from: NodeId, wrt: &[NodeId], reaches: &[bool]) -> String {
    let mut path = vec![from];
    while let Some(last) = path.last().copied().filter(|last| !wrt.contains(last)) {
        let Some(next) = graph.node(last).inputs.iter().find(|input| reaches[input.index()]) else { break };
        path.push(*next);
    }
    let steps = path.iter().map(|id| format!("{} in {}", graph.describe(*id), graph.scope_path(*id)));
    steps.collect::<Vec<_>>().join(" <- ")
}
