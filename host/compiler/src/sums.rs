//! A sum of products is one product over all their terms.
//!
//! A weight that is read chunk by chunk gets a part of its gradient from each chunk: `sum_c a_c' b_c`, products of few
//! terms, whose results have a whole matrix's size and are then added. Over operands that lie one after another it is
//! one long product, `[a_1; a_2; ...]' [b_1; b_2; ...]`, and the layout pass lets the operands be computed there.
//! Sums are rounded in another order than before, so the pass is no option: a graph has one meaning to the last bit.

use std::collections::{HashMap, HashSet};

use graph::attributes::DotAxes;
use graph::{DType, Graph, Node, NodeId, Op, live, rewrite};
use plan::DeviceCaps;

use crate::Module;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let sums = sums(&module.graph);
    if sums.is_empty() {
        return Ok(());
    }
    let graph = &module.graph;
    let live = live(graph);
    let mut order = graph.ids().filter(|id| live[id.index()]);
    let mut new_ids: HashMap<NodeId, NodeId> = HashMap::new();
    let joined = rewrite(graph, |result, node, inputs| {
        let old = order.next().expect("rewrite visits live nodes in order");
        let new = match sums.get(&old) {
            Some(sum) => sum.emit(result, graph, &new_ids),
            None => result.emit(node.op, inputs, &node.ints, &node.floats),
        };
        new_ids.insert(old, new);
        new
    });
    module.graph = joined;
    Ok(())
}

/// Terms of a tree of Adds.
struct Sum {
    /// Products that become one, in order; at least two in each.
    groups: Vec<Vec<NodeId>>,
    rest: Vec<NodeId>,
}

/// The trees of Adds in which products can be joined, by their last Add. Only what nothing else looks at is taken apart.
fn sums(graph: &Graph) -> HashMap<NodeId, Sum> {
    let live = live(graph);
    let mut uses = vec![0; graph.nodes.len()];
    for id in graph.ids().filter(|id| live[id.index()]) {
        graph.node(id).inputs.iter().for_each(|input| uses[input.index()] += 1);
    }
    let is_add = |id: NodeId| graph.node(id).op == Op::Add && graph.node(id).ty.dtype == DType::F32;
    let mut inner = HashSet::new();
    let mut sums = HashMap::new();
    // The last Add of a tree comes after the others.
    for root in graph.ids().rev().filter(|id| live[id.index()] && is_add(*id)) {
        if inner.contains(&root) {
            continue;
        }
        let (mut leaves, mut pending) = (Vec::new(), vec![root]);
        while let Some(id) = pending.pop() {
            if id == root || (is_add(id) && uses[id.index()] == 1) {
                inner.insert(id);
                pending.extend(graph.node(id).inputs.iter().rev());
            } else {
                leaves.push(id);
            }
        }
        let sum = Sum::of(graph, &leaves, |id| uses[id.index()] == 1);
        if !sum.groups.is_empty() {
            sums.insert(root, sum);
        }
    }
    sums
}

impl Sum {
    fn of(graph: &Graph, leaves: &[NodeId], is_private: impl Fn(NodeId) -> bool) -> Sum {
        let mut sum = Sum { groups: Vec::new(), rest: Vec::new() };
        for leaf in leaves {
            let group = (is_private(*leaf) && pays(graph, *leaf)).then(|| {
                let known = sum.groups.iter().position(|group| is_alike(graph, group[0], *leaf));
                known.unwrap_or_else(|| {
                    sum.groups.push(Vec::new());
                    sum.groups.len() - 1
                })
            });
            match group {
                Some(group) => sum.groups[group].push(*leaf),
                None => sum.rest.push(*leaf),
            }
        }
        let (groups, alone) = sum.groups.into_iter().partition(|group| group.len() > 1);
        sum.groups = groups;
        sum.rest.extend(alone.into_iter().flatten());
        sum
    }

    fn emit(&self, result: &mut Graph, graph: &Graph, new_ids: &HashMap<NodeId, NodeId>) -> NodeId {
        let products: Vec<NodeId> =
            self.groups.iter().map(|group| product(result, graph, group, new_ids)).collect();
        let terms = products.into_iter().chain(self.rest.iter().map(|id| new_ids[id]));
        terms.reduce(|a, b| result.emit(Op::Add, &[a, b], &[], &[])).expect("a sum has terms")
    }
}

/// Whether a product is of few terms: its operands are smaller than its result. One with batch axes stays, since its
/// operands would not lie one after another.
fn pays(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    if node.op != Op::Dot || node.inputs.len() > 2 {
        return false;
    }
    let elements = |id: NodeId| graph.ty(id).elements();
    axes(graph, node).batch.0.is_empty()
        && elements(node.inputs[0]) + elements(node.inputs[1]) < node.ty.elements()
}

fn is_alike(graph: &Graph, a: NodeId, b: NodeId) -> bool {
    let (a, b) = (graph.node(a), graph.node(b));
    let dims = |node: &Node| [0, 1].map(|slot: usize| graph.dims(node.inputs[slot]).to_vec());
    a.ints == b.ints && a.floats == b.floats && dims(a) == dims(b)
}

fn axes(graph: &Graph, dot: &Node) -> DotAxes {
    dot.dot_axes(graph.ty(dot.inputs[0]).rank(), graph.ty(dot.inputs[1]).rank())
}

/// One product over the operands of all, stacked along a new axis, which is contracted too.
fn product(result: &mut Graph, graph: &Graph, group: &[NodeId], new_ids: &HashMap<NodeId, NodeId>) -> NodeId {
    let first = graph.node(group[0]);
    let stacked = [0, 1].map(|slot: usize| {
        let parts = group.iter().map(|id| {
            let operand = graph.node(*id).inputs[slot];
            let dims: Vec<i64> =
                [1].into_iter().chain(graph.dims(operand).iter().map(|dim| *dim as i64)).collect();
            result.emit(Op::Reshape, &[new_ids[&operand]], &dims, &[])
        });
        let parts: Vec<NodeId> = parts.collect();
        result.emit(Op::Concat, &parts, &[0], &[])
    });
    let axes = axes(graph, first);
    let also_new =
        |axes: &[usize]| [0].into_iter().chain(axes.iter().map(|axis| axis + 1)).collect::<Vec<_>>();
    let (x, y) = (also_new(&axes.contract.0), also_new(&axes.contract.1));
    result.emit(Op::Dot, &stacked, &DotAxes::encode((&[], &[]), (&x, &y)), &first.floats)
}
