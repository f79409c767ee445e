//! Nodes that one launch computes together although each is an op of its own.
//!
//! An Attention and the AttentionLse of the same operands are one launch, and so are all results of one node. A
//! LinearCrossEntropy and a derivative of it are one launch too, which forms the logits once for both, where the cotangent
//! of the losses is known before the losses are: that of a mean, with or without weights, is.

use std::collections::{HashMap, HashSet};

use graph::{Graph, NodeId, Op};

use crate::guard::Guards;

/// For each node whose op has a hand kernel, and each of its Results: the first node, in graph order, of its launch.
pub fn joined(graph: &Graph, guards: &Guards) -> HashMap<NodeId, NodeId> {
    let (mut joined, mut first) = (HashMap::new(), HashMap::new());
    let mut pairs = Pairs::default();
    for id in graph.ids() {
        let node = graph.node(id);
        let leader = match node.op {
            Op::Attention | Op::AttentionLse => {
                let key = (&node.inputs[..], &node.ints[..], node.floats[0].to_bits(), node.clone);
                *first.entry(key).or_insert(id)
            }
            Op::AttentionGrad | Op::GatedDeltaRule | Op::GatedDeltaRuleGrad => id,
            Op::LinearCrossEntropy => {
                pairs.alone.entry(&node.inputs).or_insert(id);
                id
            }
            Op::LinearCrossEntropyGrad => pairs.take(graph, guards, id).unwrap_or(id),
            // Scan and When are unrolled and other composites decomposed: only those have several results.
            Op::Result => joined[&node.inputs[0]],
            _ => continue,
        };
        joined.insert(id, leader);
    }
    joined
}

/// Losses and the derivatives that joined them.
#[derive(Default)]
struct Pairs<'g> {
    /// The first LinearCrossEntropy of its operands that no derivative has joined.
    alone: HashMap<&'g [NodeId], NodeId>,
    losses: HashMap<NodeId, NodeId>,
    derivatives: HashMap<NodeId, NodeId>,
}

impl Pairs<'_> {
    /// The losses that the derivative `grad` joins.
    fn take(&mut self, graph: &Graph, guards: &Guards, grad: NodeId) -> Option<NodeId> {
        let operands = &graph.node(grad).inputs[..3];
        let loss = *self.alone.get(operands)?;
        // Else one would be computed where only the other is needed.
        if guards.of(loss) != guards.of(grad) || self.waits_for(graph, grad, loss) {
            return None;
        }
        self.alone.remove(operands);
        self.losses.insert(grad, loss);
        self.derivatives.insert(loss, grad);
        Some(loss)
    }

    /// Whether an operand of `grad` needs what the launch of `loss` computes: directly, or by way of pairs that are joined
    /// already, each of which needs what either half does.
    fn waits_for(&self, graph: &Graph, grad: NodeId, loss: NodeId) -> bool {
        // Nodes come after their operands, so nothing before the first loss of a pair leads to one.
        let lowest = self.losses.values().copied().fold(loss, NodeId::min);
        let mut seen = HashSet::new();
        let mut pending = graph.node(grad).inputs.clone();
        while let Some(id) = pending.pop() {
            if id < lowest || !seen.insert(id) {
                continue;
            }
            if id == loss {
                return true;
            }
            pending.extend(&graph.node(id).inputs);
            let other = self.losses.get(&id).or_else(|| self.derivatives.get(&id));
            pending.extend(other);
        }
        false
    }
}
