//! How long each buffer is needed, and which kernels compute onto an operand that nobody else needs any more.
//!
//! A buffer lives from the launch that first writes it to the last that reads it; inputs and outputs live through the
//! whole replay, so that the host may fill and read them outside it.

use std::collections::{BTreeMap, BTreeSet};

use graph::{DType, Graph, NodeId, Op};

use crate::analysis::{Analysis, Kind};
use crate::fuse::is_stored;
use crate::parts::Parts;
use crate::{Cluster, Module};

/// Largest input of the block at the start of the arena.
const SMALL_INPUT: usize = 4096;

/// Part of a buffer, from the launch that first needs it to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// Bytes from the start of the buffer.
    pub start: usize,
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
    /// The node whose value lies there; of several in turn the first.
    pub node: NodeId,
}

/// What gets one address.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Owner nodes: an operand, then what is computed onto it.
    pub owners: Vec<NodeId>,
    pub bytes: usize,
    /// One, or one for each range that lives on its own.
    pub pieces: Vec<Piece>,
    /// Lies in the block of small inputs.
    pub in_block: bool,
}

/// From the launch that first needs a value to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub first: usize,
    pub last: usize,
}

/// By the node that owns a buffer or computes a part of one: from when to when it is needed.
pub type Spans = BTreeMap<NodeId, Span>;

/// What each launch reads and what it writes.
type Touched = Vec<(BTreeSet<NodeId>, BTreeSet<NodeId>)>;

/// All buffers of the arena, by first owner. Only where `shared` does a result lie on an operand.
pub fn buffers(module: &Module, analysis: &Analysis, shared: bool) -> Vec<Buffer> {
    let parts = Parts::new(&module.graph, analysis);
    let (spans, touched) = spans(module, analysis, &parts);
    let onto = if shared { in_place(module, analysis, &spans, &touched) } else { BTreeMap::new() };
    assemble(&module.graph, analysis, &parts, &spans, &onto)
}

/// How long everything is needed under the schedule.
pub fn spans(module: &Module, analysis: &Analysis, parts: &Parts) -> (Spans, Touched) {
    let graph = &module.graph;
    let end = module.order.len();
    let mut spans = Spans::new();
    let mut touch = |node: NodeId, at: usize| {
        let span = spans.entry(node).or_insert(Span { first: at, last: at });
        (span.first, span.last) = (span.first.min(at), span.last.max(at));
    };
    let mut touched = Vec::with_capacity(end);
    for (at, index) in module.order.iter().enumerate() {
        let (reads, writes) = parts.touched(graph, analysis, &module.clusters[*index]);
        reads.iter().chain(&writes).for_each(|node| touch(*node, at));
        touched.push((reads, writes));
    }
    for id in graph.ids() {
        let node = graph.node(id);
        let mut held = BTreeSet::new();
        if node.op == Op::Input {
            held.insert(id);
        }
        if node.op == Op::Output
            && let Some(source) = analysis.source(node.inputs[0])
            && analysis.kind(source.owner) != Kind::Memory
        {
            parts.read(graph.dims(node.inputs[0]), source, &mut held);
        }
        for node in held {
            [0, end].into_iter().for_each(|at| touch(node, at));
        }
    }
    (spans, touched)
}

/// For each node that is computed onto an operand: that operand's owner.
fn in_place(
    module: &Module,
    analysis: &Analysis,
    spans: &Spans,
    touched: &Touched,
) -> BTreeMap<NodeId, NodeId> {
    let graph = &module.graph;
    let mut onto = BTreeMap::new();
    for (at, index) in module.order.iter().enumerate() {
        let cluster = &module.clusters[*index];
        if analysis.kind(cluster.nodes[0]) != Kind::Tile || cluster.folds_columns() {
            continue;
        }
        let (reads, writes) = &touched[at];
        let mut dying: BTreeSet<NodeId> =
            reads.iter().copied().filter(|node| spans[node].last == at && owns(analysis, *node)).collect();
        let fresh = |node: &NodeId| spans[node].first == at && owns(analysis, *node);
        for node in writes.iter().filter(|node| fresh(node) && is_stored(analysis, **node, cluster)) {
            let fits = |operand: &NodeId| is_read_at_its_element(graph, analysis, cluster, *operand, *node);
            if let Some(operand) = dying.iter().copied().find(fits) {
                dying.remove(&operand);
                onto.insert(*node, operand);
            }
        }
    }
    onto
}

/// Whether a node has a buffer of its own.
fn owns(analysis: &Analysis, node: NodeId) -> bool {
    analysis.kind(node) != Kind::Concat && analysis.source(node).is_some_and(|source| source.owner == node)
}

/// Whether the kernel looks at each element of the operand only at the point where it stores that of the result.
fn is_read_at_its_element(
    graph: &Graph,
    analysis: &Analysis,
    cluster: &Cluster,
    operand: NodeId,
    result: NodeId,
) -> bool {
    let (of, to) = (graph.ty(operand), graph.ty(result));
    if of.elements() != to.elements() {
        return false;
    }
    let nodes = cluster.nodes.iter().map(|id| graph.node(*id));
    nodes.flat_map(|node| node.inputs.iter().map(move |input| (node.op, *input))).all(|(op, input)| {
        let Some(source) = analysis.source(input).filter(|source| source.owner == operand) else {
            return true;
        };
        let dims = graph.dims(input);
        let same = source.view.offset == 0 && source.view.is_contiguous(dims) && *dims == to.dims[..];
        same && op != Op::Gather && graph.ty(input).dtype == to.dtype
    })
}

fn assemble(
    graph: &Graph,
    analysis: &Analysis,
    parts: &Parts,
    spans: &Spans,
    onto: &BTreeMap<NodeId, NodeId>,
) -> Vec<Buffer> {
    let bytes = |node: NodeId| graph.ty(node).elements() * DType::BYTES;
    let mut buffers: BTreeMap<NodeId, Buffer> = BTreeMap::new();
    // Where what lies on top of an operand lies at last. Operands come first: in graph order they need not, where a
    // kernel computes something else besides that does not hang on them.
    let mut bottoms: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    let mut in_turn: Vec<(&NodeId, &Span)> = spans.iter().collect();
    in_turn.sort_by_key(|(node, span)| (span.first, **node));
    for (node, span) in in_turn {
        let Span { first, last } = *span;
        let source = analysis.source(*node);
        let (owner, start) = source.map_or((*node, 0), |source| match parts.of(source.owner) {
            Some(_) => (source.owner, source.view.offset * DType::BYTES),
            None => (source.owner, 0),
        });
        let bottom = onto.get(node).map_or(owner, |operand| *bottoms.get(operand).unwrap_or(operand));
        bottoms.insert(*node, bottom);
        let in_block = graph.node(*node).op == Op::Input && bytes(*node) <= SMALL_INPUT;
        let piece = Piece { start, bytes: bytes(*node), first, last, node: *node };
        match buffers.get_mut(&bottom) {
            None => {
                let (owners, bytes) = (vec![owner], bytes(owner));
                buffers.insert(bottom, Buffer { owners, bytes, pieces: vec![piece], in_block });
            }
            Some(buffer) if bottom == owner => buffer.pieces.push(piece),
            Some(buffer) => {
                buffer.owners.push(*node);
                let whole = &mut buffer.pieces[0];
                (whole.first, whole.last) = (whole.first.min(first), whole.last.max(last));
            }
        }
    }
    buffers.into_values().collect()
}
