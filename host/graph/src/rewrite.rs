//! Rebuilding a graph: how passes change it without ever mutating a node.

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

/// Re-emits every live node in order through `build`, which gets the new graph, the old node and its new inputs, and
/// returns the new node. Emitting folds and shares as it does in a trace. Scopes and declarations are kept.
pub fn rewrite(graph: &Graph, mut build: impl FnMut(&mut Graph, &Node, &[NodeId]) -> NodeId) -> Graph {
    let mut result = Graph::default();
    result.joins_movements = true;
    result.inputs.clone_from(&graph.inputs);
    result.states.clone_from(&graph.states);
    result.outputs.clone_from(&graph.outputs);
    let live = live(graph);
    let mut new_ids = vec![NodeId::POISON; graph.nodes.len()];
    for id in graph.ids().filter(|id| live[id.index()]) {
        let node = graph.node(id);
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| new_ids[input.index()]).collect();
        let new = result.in_scope(graph.scope_path(id), |result| build(result, node, &inputs));
        if let Some(name) = graph.names.get(&id) {
            result.names.insert(new, name.clone());
        }
        new_ids[id.index()] = new;
    }
    result
}
