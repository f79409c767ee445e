//! Rebuilding a graph: how passes change it without ever mutating a node.

use std::collections::HashMap;

use ops::Op;

use crate::{Graph, Node, NodeId};

/// Which nodes some root depends on.
pub fn live(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.nodes.len()];
    for root in graph.roots() {
        live[root.index()] = true;
    }
    for id in graph.ids().rev() {
        if live[id.index()] {
            graph.node(id).inputs.iter().for_each(|input| live[input.index()] = true);
        }
    }
    live
}

/// What a node becomes: a node, or one for each of its results.
pub enum Rewritten {
    One(NodeId),
    Many(Vec<NodeId>),
}

/// Re-emits every live node in order through `build`, which gets the new graph, the old node and its new inputs, and
/// returns the new node. Emitting folds and shares as it does in a trace. Scopes, clone numbers, bodies and
/// declarations are kept.
pub fn rewrite(graph: &Graph, mut build: impl FnMut(&mut Graph, &Node, &[NodeId]) -> NodeId) -> Graph {
    rewrite_regions(graph, |result, node, inputs| Rewritten::One(build(result, node, inputs)))
}

/// [`rewrite`] where an op with several results may become that many nodes: its Results are then those.
pub fn rewrite_regions(
    graph: &Graph,
    mut build: impl FnMut(&mut Graph, &Node, &[NodeId]) -> Rewritten,
) -> Graph {
    let mut result = Graph::default();
    result.joins_movements = true;
    result.inputs.clone_from(&graph.inputs);
    result.states.clone_from(&graph.states);
    result.outputs.clone_from(&graph.outputs);
    result.bodies.clone_from(&graph.bodies);
    let live = live(graph);
    let mut new_ids = vec![NodeId::POISON; graph.nodes.len()];
    let mut results: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    for id in graph.ids().filter(|id| live[id.index()]) {
        let node = graph.node(id);
        if node.op == Op::Result
            && let Some(several) = results.get(&node.inputs[0])
        {
            new_ids[id.index()] = several[node.ints[0] as usize];
            continue;
        }
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| new_ids[input.index()]).collect();
        let new = result.in_scope(graph.scope_path(id), |result| {
            result.in_clone(node.clone, |result| build(result, node, &inputs))
        });
        match new {
            Rewritten::One(new) => {
                if let Some(name) = graph.names.get(&id).filter(|_| new != NodeId::POISON) {
                    result.names.insert(new, name.clone());
                }
                new_ids[id.index()] = new;
            }
            Rewritten::Many(several) => _ = results.insert(id, several),
        }
    }
    result
}

/// The graph without dead nodes: what a trace leaves when its regions are closed. A graph in which none was opened
/// stays as it is.
pub fn compact(graph: &Graph) -> Graph {
    if !graph.had_regions() {
        return graph.clone();
    }
    rewrite(graph, |graph, node, inputs| graph.emit(node.op, inputs, &node.ints, &node.floats))
}

/// Emits what the outputs of `source` depend on into `graph`, with `arguments` in place of its inputs, and returns
/// the outputs. `build` emits each other node. `source` has no State.
pub fn inline(
    graph: &mut Graph,
    source: &Graph,
    arguments: &[NodeId],
    mut build: impl FnMut(&mut Graph, &Graph, NodeId, &[NodeId]) -> Rewritten,
) -> Vec<NodeId> {
    let live = live(source);
    let mut new_ids = vec![NodeId::POISON; source.nodes.len()];
    let mut results: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    let mut outputs = vec![NodeId::POISON; source.outputs.len()];
    for id in source.ids().filter(|id| live[id.index()]) {
        let node = source.node(id);
        match node.op {
            Op::Input => new_ids[id.index()] = arguments[node.ints[0] as usize],
            Op::Output => outputs[node.ints[0] as usize] = new_ids[node.inputs[0].index()],
            Op::Result if results.contains_key(&node.inputs[0]) => {
                new_ids[id.index()] = results[&node.inputs[0]][node.ints[0] as usize];
            }
            _ => {
                let inputs: Vec<NodeId> = node.inputs.iter().map(|input| new_ids[input.index()]).collect();
                let new = graph.in_scope(source.scope_path(id), |graph| build(graph, source, id, &inputs));
                match new {
                    Rewritten::One(new) => new_ids[id.index()] = new,
                    Rewritten::Many(several) => _ = results.insert(id, several),
                }
            }
        }
    }
    outputs
}
