//! What need not run: nodes that only a choice not taken would read.
//!
//! A When becomes `Select(due, new, old)` where `due` is a function of a counter that the host uploads, so the host
//! knows the choice before a replay. For each such condition, a node is guarded if nothing needs it while the condition
//! does not hold. A State that would be written with what it already holds is not written, so a memory that is not
//! due costs nothing at all.
//!
//! Guards are found on the graph of straight code, whatever wrote it: regions, their derivatives, or a Select.

use std::collections::HashMap;

use graph::{Graph, NodeId, Op};

/// Holds where `input + shift` is `offset` modulo `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// An Input node, i32[].
    pub input: NodeId,
    pub shift: i64,
    pub period: i64,
    pub offset: i64,
}

/// Most conditions of a graph that are told apart; what hangs on others always runs.
const MAX_CONDITIONS: usize = 64;

/// Conditions of a graph, and for each node the set of those without which it need not run, as bits.
#[derive(Default)]
pub struct Guards {
    pub conditions: Vec<Condition>,
    sets: Vec<u64>,
}

impl Guards {
    pub fn new(graph: &Graph) -> Guards {
        let mut conditions: Vec<Condition> = Vec::new();
        let mut chosen_by: HashMap<NodeId, usize> = HashMap::new();
        for id in graph.ids().filter(|id| graph.node(*id).op == Op::Select) {
            let Some(condition) = condition(graph, graph.node(id).inputs[0]) else { continue };
            let known = conditions.iter().position(|other| *other == condition);
            let index = known.unwrap_or(conditions.len());
            if index < MAX_CONDITIONS {
                if known.is_none() {
                    conditions.push(condition);
                }
                chosen_by.insert(id, index);
            }
        }
        let mut sets = vec![0; if conditions.is_empty() { 0 } else { graph.nodes.len() }];
        for index in 0..conditions.len() {
            let is_not_taken = |select: NodeId| chosen_by.get(&select) == Some(&index);
            let needed = needed_without(graph, is_not_taken);
            sets.iter_mut().zip(needed).filter(|(_, needed)| !needed).for_each(|(set, _)| *set |= 1 << index);
        }
        Guards { conditions, sets }
    }

    /// Which conditions a node needs, as bits.
    pub fn of(&self, id: NodeId) -> u64 {
        self.sets.get(id.index()).copied().unwrap_or(0)
    }
}

/// Nodes that are needed although the selects named pass on their third operand.
fn needed_without(graph: &Graph, is_not_taken: impl Fn(NodeId) -> bool) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes.len()];
    for id in graph.ids().rev() {
        let node = graph.node(id);
        match node.op {
            Op::Output => needed[id.index()] = true,
            Op::Write => {
                needed[id.index()] = !holds_state(graph, node.inputs[0], node.ints[0], &is_not_taken)
            }
            _ => {}
        }
        if !needed[id.index()] {
            continue;
        }
        for (slot, input) in node.inputs.iter().enumerate() {
            needed[input.index()] |= slot != 1 || !is_not_taken(id);
        }
    }
    needed
}

/// Whether a value is what the State holds already.
fn holds_state(graph: &Graph, id: NodeId, state: i64, is_not_taken: &impl Fn(NodeId) -> bool) -> bool {
    let node = graph.node(id);
    let holds = |slot: usize| holds_state(graph, node.inputs[slot], state, is_not_taken);
    match node.op {
        Op::State => node.ints[0] == state,
        Op::Copy => holds(0),
        Op::Select if is_not_taken(id) => holds(2),
        Op::Select => holds(1) && holds(2),
        _ => false,
    }
}

/// Reads the condition that `unroll` writes for a When: Rem(Rem(counter, period) + period, period) = offset.
fn condition(graph: &Graph, mut id: NodeId) -> Option<Condition> {
    while matches!(graph.node(id).op, Op::Reshape | Op::Broadcast) {
        id = graph.node(id).inputs[0];
    }
    let operands = |id: NodeId, op: Op| {
        let node = graph.node(id);
        (node.op == op).then(|| (node.inputs[0], node.inputs[1]))
    };
    let constant = |id: NodeId| {
        let node = graph.node(id);
        (node.op == Op::Const).then(|| node.floats[0] as i64)
    };
    let (rest, offset) = operands(id, Op::Eq)?;
    let (positive, period) = operands(rest, Op::Rem)?;
    let (rest, added) = operands(positive, Op::Add)?;
    let (counter, inner_period) = operands(rest, Op::Rem)?;
    let (offset, period) = (constant(offset)?, constant(period)?);
    if constant(added)? != period || constant(inner_period)? != period {
        return None;
    }
    let (input, shift) = match operands(counter, Op::Add) {
        Some((x, y)) if constant(y).is_some() => (x, constant(y)?),
        Some((x, y)) => (y, constant(x)?),
        None => (counter, 0),
    };
    let is_input = graph.node(input).op == Op::Input && graph.dims(input).is_empty();
    is_input.then_some(Condition { input, shift, period, offset })
}
