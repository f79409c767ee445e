//! Cutting a part out of a graph as a graph of its own: how bodies of regions are made.

use std::collections::{HashMap, HashSet};

use ops::Op;

use crate::{Graph, NodeId, Ty};

/// An input of the part: the node whose place it takes (None where the part does not read it), its type and name.
pub(crate) struct Boundary {
    pub node: Option<NodeId>,
    pub ty: Ty,
    pub name: String,
}

impl Boundary {
    pub(crate) fn of(graph: &Graph, node: NodeId, default: &str) -> Boundary {
        let name = graph.names.get(&node).cloned().unwrap_or_else(|| default.to_string());
        Boundary { node: Some(node), ty: graph.ty(node).clone(), name }
    }
}

/// The graph that computes `outputs` from the boundary. Everything between is copied with its scope, name, clone number
/// and body; leaves other than the boundary must be constants.
pub(crate) fn extract(source: &Graph, boundary: &[Boundary], outputs: &[NodeId]) -> Graph {
    let mut part = Graph::default();
    let mut new_ids: HashMap<NodeId, NodeId> = HashMap::new();
    for (index, Boundary { node, ty, name }) in boundary.iter().enumerate() {
        let new = part.input(&format!("{index}.{}", name.replace(' ', "_")), ty.clone());
        part.names.insert(new, name.clone());
        if let Some(node) = node {
            new_ids.insert(*node, new);
        }
    }
    for id in between(source, &new_ids, outputs) {
        let inputs: Vec<NodeId> = source.node(id).inputs.iter().map(|input| new_ids[input]).collect();
        let new = part.adopt(source, id, &inputs);
        if let Some(name) = source.names.get(&id).filter(|_| new != NodeId::POISON) {
            part.names.insert(new, name.clone());
        }
        new_ids.insert(id, new);
    }
    outputs.iter().for_each(|id| part.add_output(new_ids[id]));
    part
}

/// What `outputs` depend on, up to the boundary, in graph order.
fn between(source: &Graph, boundary: &HashMap<NodeId, NodeId>, outputs: &[NodeId]) -> Vec<NodeId> {
    let mut needed: HashSet<NodeId> = HashSet::new();
    let mut pending = outputs.to_vec();
    while let Some(id) = pending.pop() {
        if !boundary.contains_key(&id) && needed.insert(id) {
            pending.extend(&source.node(id).inputs);
        }
    }
    let mut order: Vec<NodeId> = needed.into_iter().collect();
    order.sort_unstable();
    order
}

impl Graph {
    /// Emits a node of another graph over new operands, with its scope, clone number and body.
    pub(crate) fn adopt(&mut self, from: &Graph, id: NodeId, inputs: &[NodeId]) -> NodeId {
        let node = from.node(id);
        let mut ints = node.ints.clone();
        if matches!(node.op, Op::Scan | Op::When) {
            ints[0] = self.bodies.len() as i64;
            self.bodies.push(from.bodies[node.ints[0] as usize].clone());
        }
        self.in_scope(from.scope_path(id), |graph| {
            graph.in_clone(node.clone, |graph| graph.emit(node.op, inputs, &ints, &node.floats))
        })
    }

    /// Appends an output to a body.
    pub(crate) fn add_output(&mut self, value: NodeId) {
        if value == NodeId::POISON {
            return;
        }
        let index = self.outputs.len();
        self.outputs.push(crate::Decl { name: index.to_string(), ty: self.ty(value).clone() });
        self.emit(Op::Output, &[value], &[index as i64], &[]);
    }

    /// Appends an input to a body.
    pub(crate) fn add_input(&mut self, ty: &Ty) -> NodeId {
        let index = self.inputs.len();
        self.inputs.push(crate::Decl { name: index.to_string(), ty: ty.clone() });
        self.push(Op::Input, &[], &[index as i64], &[], ty.clone())
    }

    /// Input nodes of a body by index; None for one that it does not read.
    pub(crate) fn input_nodes(&self) -> Vec<Option<NodeId>> {
        let mut nodes = vec![None; self.inputs.len()];
        for id in self.ids().filter(|id| self.node(*id).op == Op::Input) {
            nodes[self.node(id).ints[0] as usize] = Some(id);
        }
        nodes
    }

    /// What each output of a body reads.
    pub(crate) fn output_nodes(&self) -> Vec<NodeId> {
        let mut nodes = vec![NodeId::POISON; self.outputs.len()];
        for id in self.ids().filter(|id| self.node(*id).op == Op::Output) {
            nodes[self.node(id).ints[0] as usize] = self.node(id).inputs[0];
        }
        nodes
    }
}
