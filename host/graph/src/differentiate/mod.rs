//! Reverse mode from graph to graph: `grad` appends the cotangents of `wrt` to the same graph.
//!
//! The walk goes from the loss to lower node numbers, so every user of a node is done before the node. A region is
//! reached through its Results: their cotangents are gathered until the walk comes to the region itself.

mod residual;
mod scan;
mod when;

use std::collections::{HashMap, HashSet};

use ops::{Class, Op};

use crate::expand::expand_node;
use crate::infer::region::result_types;
use crate::vjp::{Rule, delta, vjp};
use crate::{Builder, Graph, GraphError, Node, NodeId};

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
    backward(graph, &[(loss, seed)], wrt, false)
}

/// Pulls cotangents `(node, cotangent)` back to each of `wrt`. Cotangents of one node are added in order: those given
/// here, then those of its users, last user first. With `independent`, each of `wrt` is held as a variable of its own,
/// as the operands of one op are; else what reaches one of them goes on to those it depends on.
fn backward(graph: &mut Graph, seeds: &[(NodeId, NodeId)], wrt: &[NodeId], independent: bool) -> Cotangents {
    if seeds.iter().any(|(node, ct)| [*node, *ct].contains(&NodeId::POISON)) {
        return vec![Some(NodeId::POISON); wrt.len()];
    }
    let between = between(graph, seeds, wrt, independent);
    let reaches = reachable(graph, between.iter().copied(), wrt);
    let mut found = Found::default();
    seeds.iter().for_each(|(node, ct)| found.add(graph, *node, *ct));
    for id in between.into_iter().rev() {
        if !reaches.contains(&id) || (independent && wrt.contains(&id)) {
            continue;
        }
        let node = graph.node(id).clone();
        let scope = graph.scope_path(id).to_string();
        graph.in_scope(&scope, |graph| {
            let changes = match node.op {
                Op::Result => {
                    if let Some(ct) = found.of_node(id) {
                        found.of_result.insert((node.inputs[0], node.ints[0] as usize), ct);
                    }
                    return;
                }
                op if has_several(op) => {
                    let cts = found.results(graph, id);
                    if cts.iter().all(Option::is_none) {
                        return;
                    }
                    let wanted: Vec<bool> = node.inputs.iter().map(|input| reaches.contains(input)).collect();
                    of_several(graph, id, &cts, &wanted, &found)
                }
                _ => {
                    let Some(ct) = found.of_node(id) else { return };
                    let cts = of_node(graph, &node, id, ct, &reaches);
                    let pairs = node.inputs.iter().zip(cts);
                    pairs.filter_map(|(input, ct)| Some(Change::Add(*input, ct?))).collect()
                }
            };
            for change in changes.into_iter().filter(|change| reaches.contains(&change.operand())) {
                if change.is_poisoned() && graph.errors.is_empty() {
                    let path = path_to(graph, id, wrt, &reaches);
                    let hint = "use stop_grad where no gradient is meant to pass";
                    graph.fail(Some(node.op), format!("has no derivative rule; the path is {path}"), hint);
                }
                match change {
                    Change::Add(operand, ct) => found.add(graph, operand, ct),
                    Change::Replace(operand, total) => _ = found.of_node.insert(operand, total),
                }
            }
        });
    }
    wrt.iter().map(|id| found.of_node(*id)).collect()
}

/// Whether an op's results are read through Result.
fn has_several(op: Op) -> bool {
    let recurs = matches!(op, Op::GatedDeltaRule | Op::LinearAttention | Op::GatedDeltaRuleGrad);
    recurs || matches!(op, Op::Scan | Op::When | Op::AttentionGrad | Op::LinearCrossEntropyGrad)
}

/// [`backward`] to the operands of one op, each held as a variable of its own.
pub fn pull_back(graph: &mut Graph, seeds: &[(NodeId, NodeId)], operands: &[NodeId]) -> Cotangents {
    once(operands, backward(graph, seeds, operands, true))
}

/// Cotangents of an op's operands from that of its only result.
fn of_node(graph: &mut Graph, node: &Node, id: NodeId, ct: NodeId, reaches: &HashSet<NodeId>) -> Cotangents {
    // Rules look at the cotangent's extents, which poison has not.
    if ct == NodeId::POISON {
        return vec![Some(NodeId::POISON); node.inputs.len()];
    }
    let rule = Builder::with(graph, |b| match vjp(b, node, id, b.var(ct)) {
        Rule::Cotangents(cts) => Some(cts.into_iter().map(|ct| ct.map(|ct| ct.id)).collect()),
        Rule::Constant => Some(vec![None; node.inputs.len()]),
        Rule::Decompose => None,
        Rule::Missing => {
            let poisoned = |input: &NodeId| reaches.contains(input).then_some(NodeId::POISON);
            Some(node.inputs.iter().map(poisoned).collect())
        }
    });
    rule.unwrap_or_else(|| {
        let expanded = expand_node(graph, node);
        let seeds: Vec<(NodeId, NodeId)> = expanded.into_iter().map(|result| (result, ct)).collect();
        pull_back(graph, &seeds, &node.inputs)
    })
}

/// What an op with several results adds to the cotangents of its operands.
fn of_several(
    graph: &mut Graph,
    id: NodeId,
    cts: &[Option<NodeId>],
    wanted: &[bool],
    found: &Found,
) -> Vec<Change> {
    let node = graph.node(id);
    let (op, operands) = (node.op, node.inputs.clone());
    let poisoned = operands.into_iter().map(|input| Change::Add(input, NodeId::POISON)).collect();
    if cts.contains(&Some(NodeId::POISON)) {
        return poisoned;
    }
    if op == Op::GatedDeltaRule {
        let node = node.clone();
        let pulled = Builder::with(graph, |b| delta::cotangents(b, &node, cts));
        return node.inputs.iter().zip(pulled).map(|(input, ct)| Change::Add(*input, ct)).collect();
    }
    if op.row().class == Class::Composite {
        let node = node.clone();
        let expanded = expand_node(graph, &node);
        let seeds: Vec<(NodeId, NodeId)> =
            expanded.into_iter().zip(cts).filter_map(|(result, ct)| Some((result, (*ct)?))).collect();
        let pulled = pull_back(graph, &seeds, &node.inputs);
        let pairs = node.inputs.iter().zip(pulled);
        return pairs.filter_map(|(input, ct)| Some(Change::Add(*input, ct?))).collect();
    }
    let changes = match op {
        Op::Scan => scan::changes(graph, id, cts, wanted, found),
        _ => when::changes(graph, id, cts, wanted, found),
    };
    changes.unwrap_or_else(|errors| {
        graph.errors.extend(errors);
        poisoned
    })
}

/// How a cotangent so far changes.
enum Change {
    /// (operand, what is added)
    Add(NodeId, NodeId),
    /// (operand, the new total)
    Replace(NodeId, NodeId),
}

impl Change {
    fn operand(&self) -> NodeId {
        let (Change::Add(operand, _) | Change::Replace(operand, _)) = self;
        *operand
    }

    fn is_poisoned(&self) -> bool {
        let (Change::Add(_, ct) | Change::Replace(_, ct)) = self;
        *ct == NodeId::POISON
    }
}

/// An operand given twice gets its whole cotangent at its first place.
fn once(operands: &[NodeId], cts: Cotangents) -> Cotangents {
    let repeats = |index: usize| operands[..index].contains(&operands[index]);
    cts.into_iter().enumerate().map(|(index, ct)| ct.filter(|_| !repeats(index))).collect()
}

/// Cotangents so far.
#[derive(Default)]
struct Found {
    of_node: HashMap<NodeId, NodeId>,
    /// By region and index of the result.
    of_result: HashMap<(NodeId, usize), NodeId>,
}

impl Found {
    fn of_node(&self, node: NodeId) -> Option<NodeId> {
        self.of_node.get(&node).copied()
    }

    fn add(&mut self, graph: &mut Graph, node: NodeId, ct: NodeId) {
        let sum = match self.of_node.get(&node) {
            Some(sum) => graph.emit(Op::Add, &[*sum, ct], &[], &[]),
            None => ct,
        };
        self.of_node.insert(node, sum);
    }

    fn results(&self, graph: &Graph, region: NodeId) -> Cotangents {
        (0..result_types(graph, region).len())
            .map(|index| self.of_result.get(&(region, index)).copied())
            .collect()
    }
}

/// What the seeds depend on, in order, without what cannot depend on any of `wrt`. A model takes thousands of gradients
/// in one graph, most of them of a few nodes, so none may look at all of it.
fn between(graph: &Graph, seeds: &[(NodeId, NodeId)], wrt: &[NodeId], independent: bool) -> Vec<NodeId> {
    let Some(first) = wrt.iter().min() else { return Vec::new() };
    let mut seen: HashSet<NodeId> = HashSet::new();
    let mut pending: Vec<NodeId> = seeds.iter().map(|(node, _)| *node).collect();
    while let Some(id) = pending.pop() {
        if id < *first || !seen.insert(id) {
            continue;
        }
        let node = graph.node(id);
        if node.op != Op::StopGrad && !(independent && wrt.contains(&id)) {
            pending.extend(&node.inputs);
        }
    }
    let mut found: Vec<NodeId> = seen.into_iter().collect();
    found.sort_unstable();
    found
}

/// Those of `nodes`, which are in order, that depend on some of `wrt`, and `wrt` themselves.
fn reachable(graph: &Graph, nodes: impl IntoIterator<Item = NodeId>, wrt: &[NodeId]) -> HashSet<NodeId> {
    let mut reaches: HashSet<NodeId> = wrt.iter().copied().collect();
    for id in nodes {
        let node = graph.node(id);
        if node.op != Op::StopGrad && node.inputs.iter().any(|input| reaches.contains(input)) {
            reaches.insert(id);
        }
    }
    reaches
}

/// `Dot%9 in layers.0 <- wq f32[8, 8]`, for the message.
fn path_to(graph: &Graph, from: NodeId, wrt: &[NodeId], reaches: &HashSet<NodeId>) -> String {
    let mut path = vec![from];
    while let Some(last) = path.last().copied().filter(|last| !wrt.contains(last)) {
        let Some(next) = graph.node(last).inputs.iter().find(|input| reaches.contains(input)) else { break };
        path.push(*next);
    }
    let steps = path.iter().map(|id| format!("{} in {}", graph.describe(*id), graph.scope_path(*id)));
    steps.collect::<Vec<_>>().join(" <- ")
}

/// Which inputs of a body get a cotangent when the outputs in `seeded` have one; the body's own errors on the way.
fn inputs_reached(body: &Graph, seeded: &[bool], active: &[bool]) -> Result<Vec<bool>, Vec<GraphError>> {
    let mut scratch = body.clone();
    let inputs = body.input_nodes();
    let seeds: Vec<(NodeId, NodeId)> = body
        .output_nodes()
        .into_iter()
        .zip(seeded)
        .filter(|(_, seeded)| **seeded)
        .map(|(node, _)| {
            let ty = body.ty(node);
            (node, scratch.constant(1.0, ty.dtype, &ty.dims))
        })
        .collect();
    let wrt: Vec<NodeId> =
        inputs.iter().zip(active).filter_map(|(id, active)| id.filter(|_| *active)).collect();
    let cts = backward(&mut scratch, &seeds, &wrt, true);
    if !scratch.errors.is_empty() {
        return Err(scratch.errors);
    }
    let reached = |id: &Option<NodeId>| {
        let at = id.and_then(|id| wrt.iter().position(|other| *other == id));
        at.is_some_and(|at| cts[at].is_some())
    };
    Ok(inputs.iter().map(reached).collect())
}
