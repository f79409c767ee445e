//! The graph in which some readers get a value computed again for them.

use std::collections::{BTreeMap, HashMap};

use graph::{Graph, NodeId, rewrite};

use crate::Cluster;
use crate::analysis::{Analysis, Kind};
use crate::module::{RECOMPUTED, cluster_of};

/// What is computed again, for whom, and under which clone number.
#[derive(Default)]
pub struct Again {
    /// The operations that give a value from others that are there, in graph order.
    pub slices: BTreeMap<NodeId, Vec<NodeId>>,
    /// Clone number by value and reading cluster.
    pub served: HashMap<(NodeId, usize), u32>,
}

impl Again {
    /// The graph with clones. Each stands right before the first who reads it.
    pub fn rewritten(&self, graph: &Graph, analysis: &Analysis, clusters: &[Cluster]) -> Graph {
        let cluster_of = cluster_of(clusters);
        let live = graph::live(graph);
        let mut new_ids: HashMap<NodeId, NodeId> = HashMap::new();
        let mut order = graph.ids().filter(|id| live[id.index()]);
        let mut result = rewrite(graph, |result, node, inputs| {
            let old = order.next().expect("rewrite visits live nodes in order");
            let mut inputs = inputs.to_vec();
            if let Some(own) = cluster_of.get(&old) {
                for (slot, input) in node.inputs.iter().enumerate() {
                    let (root, _) = analysis.through_views(graph, *input);
                    if cluster_of.get(&root) != Some(own)
                        && let Some(number) = self.served.get(&(root, *own))
                    {
                        let mut copies = Copies { again: self, graph, clone: *number, of: HashMap::new() };
                        inputs[slot] = copies.of(result, analysis, root, *input, &new_ids);
                    }
                }
            }
            let new = result.emit(node.op, &inputs, &node.ints, &node.floats);
            new_ids.insert(old, new);
            new
        });
        // Where only clones are read the first is dead; and what is emitted anew may fold.
        while graph::live(&result).contains(&false) {
            result =
                rewrite(&result, |graph, node, inputs| graph.emit(node.op, inputs, &node.ints, &node.floats));
        }
        result
    }
}

struct Copies<'a> {
    again: &'a Again,
    graph: &'a Graph,
    clone: u32,
    of: HashMap<NodeId, NodeId>,
}

impl Copies<'_> {
    /// What a reader sees of `value` through the views above it, computed again.
    fn of(
        &mut self,
        result: &mut Graph,
        analysis: &Analysis,
        value: NodeId,
        seen: NodeId,
        new_ids: &HashMap<NodeId, NodeId>,
    ) -> NodeId {
        for id in &self.again.slices[&value] {
            self.emit(result, *id, new_ids);
        }
        let mut views = Vec::new();
        let mut at = seen;
        while analysis.kind(at) == Kind::View {
            views.push(at);
            at = self.graph.node(at).inputs[0];
        }
        for id in views.into_iter().rev() {
            self.emit(result, id, new_ids);
        }
        self.of[&seen]
    }

    fn emit(&mut self, result: &mut Graph, id: NodeId, new_ids: &HashMap<NodeId, NodeId>) {
        let node = self.graph.node(id);
        let inputs: Vec<NodeId> = node
            .inputs
            .iter()
            .map(|input| self.of.get(input).copied().unwrap_or_else(|| new_ids[input]))
            .collect();
        let new = result.in_scope(self.graph.scope_path(id), |result| {
            result.in_clone(self.clone, |result| result.emit(node.op, &inputs, &node.ints, &node.floats))
        });
        self.of.insert(id, new);
    }
}

/// Clone numbers that no node has.
pub struct Numbers {
    next: u32,
}

impl Numbers {
    pub fn new(graph: &Graph) -> Numbers {
        let used = graph.ids().filter_map(|id| number(graph, id)).max();
        Numbers { next: used.map_or(RECOMPUTED, |used| used + 1) }
    }

    pub fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }
}

/// Which readers a recomputed node is for.
pub fn number(graph: &Graph, id: NodeId) -> Option<u32> {
    Some(graph.node(id).clone).filter(|clone| clone & RECOMPUTED != 0)
}
