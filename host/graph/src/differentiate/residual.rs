//! Which values of a region's body its derivative reads, and how the region comes to hand them out.

use std::collections::HashSet;

use ops::{MAX_RANK, Op};

use crate::extract::{Boundary, extract};
use crate::{Graph, NodeId};

/// A body with its derivative behind it.
pub struct Part<'g> {
    pub graph: &'g Graph,
    /// Nodes below this number are the body's own.
    pub old: u32,
    /// Values that the derivative has as operands of its own anyway.
    pub held: &'g [NodeId],
}

impl Part<'_> {
    /// The body's own values, results of its regions among them.
    fn is_old(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        id.0 < self.old || (node.op == Op::Result && node.inputs[0].0 < self.old)
    }

    /// Nodes behind `results` up to what is held or handed out; the latter are the residuals, in graph order.
    fn walk(&self, results: &[NodeId]) -> (HashSet<NodeId>, Vec<NodeId>) {
        let mut seen: HashSet<NodeId> = HashSet::new();
        let mut residuals = Vec::new();
        let mut pending = results.to_vec();
        while let Some(id) = pending.pop() {
            if !seen.insert(id) || self.held.contains(&id) {
                continue;
            }
            let node = self.graph.node(id);
            // What cannot be stacked is computed again from what can.
            let copied = matches!(node.op, Op::Const | Op::Iota) || node.ty.rank() == MAX_RANK;
            if self.is_old(id) && !copied {
                residuals.push(id);
            } else {
                pending.extend(&node.inputs);
            }
        }
        residuals.sort_unstable();
        (seen, residuals)
    }

    pub fn residuals(&self, results: &[NodeId]) -> Vec<NodeId> {
        self.walk(results).1
    }

    /// Whether the derivative reads a value.
    pub fn reads(&self, results: &[NodeId]) -> impl Fn(NodeId) -> bool + use<> {
        let seen = self.walk(results).0;
        move |id| seen.contains(&id)
    }
}

/// Makes the region at `id` hand out `residuals`, nodes of `wider`, which holds its body. Returns the Results. One that
/// is a result already, from `reused` on, is not handed out twice.
pub fn widen(
    graph: &mut Graph,
    id: NodeId,
    wider: &Graph,
    residuals: &[NodeId],
    reused: usize,
) -> Vec<NodeId> {
    let node = graph.node(id).clone();
    let body = graph.bodies[node.ints[0] as usize].clone();
    let mut outputs = body.output_nodes();
    let mut places = Vec::with_capacity(residuals.len());
    for residual in residuals {
        let known = outputs.iter().skip(reused).position(|output| output == residual);
        places.push(known.map_or(outputs.len(), |at| at + reused));
        if known.is_none() {
            outputs.push(*residual);
        }
    }
    let added = outputs.len() - body.outputs.len();
    if added > 0 {
        let inputs = body.input_nodes();
        let boundary: Vec<Boundary> = body
            .inputs
            .iter()
            .zip(inputs)
            .map(|(decl, node)| match node {
                Some(node) => Boundary::of(&body, node, "input"),
                None => Boundary { node: None, ty: decl.ty.clone(), name: "unread".into() },
            })
            .collect();
        let body = extract(wider, &boundary, &outputs);
        graph.widen(id, body, |ints| {
            // The count of residuals is the last attribute of both regions.
            if let Some(count) = ints.last_mut() {
                *count += added as i64;
            }
        });
    }
    places.into_iter().map(|place| graph.emit(Op::Result, &[id], &[place as i64], &[])).collect()
}
