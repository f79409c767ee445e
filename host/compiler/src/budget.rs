//! Less memory for more work: as long as the arena is above a budget, what spans the peak is computed again after it.
//!
//! What frees most bytes for the least work comes first: clusters of element-wise work and reductions, and only where
//! they do not suffice attentions and products, each from what is alive behind the peak anyway (a layer inside its
//! backward pass from the layer's input: checkpoints without a mark in the model). Clones are the operations
//! themselves on the same values, so that no bit of a result depends on the budget. They stand right before their first
//! reader; one that reads a State waits for nothing and the Write waits for it, so it sees the old value, and one
//! that only a guarded reader needs is guarded as that is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graph::{Graph, NodeId, Op};
use plan::DeviceCaps;

use crate::analysis::{Analysis, Kind};
use crate::memory::{self, Parts, Spans};
use crate::module::cluster_of;
use crate::remat::again::{Again, Numbers};
use crate::{Module, fuse, schedule};

/// Most times that a plan is made anew in one attempt.
const ROUNDS: usize = 24;
/// Rounds in a row that need not win anything: a peak may have neighbours of its height.
const PATIENCE: usize = 3;
/// Most operations that give one value.
const MAX_OPS: usize = 256;
/// Elements of a value that is worth it, and in a small plan its share of the arena's bytes, one in so many.
const WORTH: usize = 1 << 10;
const SHARE: usize = 1 << 10;
/// What an element-wise operation on one element weighs, in operations of a product: it waits for memory.
const ELEMENT: f64 = 32.0;

/// What may be computed again.
#[derive(Clone, Copy, PartialEq)]
enum Kinds {
    Tiles,
    All,
}

/// What is tried in turn: which kinds, and how much is freed in one round, per cent of the arena. A peak that sinks leaves
/// others, and a value that is freed early is missing where a later round could start from. None of it depends on the
/// budget, so that the least that a refusal names can be had.
const ATTEMPTS: [(Kinds, usize); 4] =
    [(Kinds::Tiles, 5), (Kinds::All, 5), (Kinds::All, 20), (Kinds::All, 100)];

pub fn run(module: &mut Module, caps: &DeviceCaps) -> Result<(), String> {
    let Some(budget) = module.budget else { return Ok(()) };
    let given = module.clone();
    let mut best = module.clone();
    for (kinds, share) in ATTEMPTS {
        // What tiles gave stays; those who free more start afresh.
        if share > 5 {
            *module = given.clone();
        }
        let mut idle = 0;
        for _ in 0..ROUNDS {
            let arena = module.plan.arena_bytes;
            if arena <= budget {
                return Ok(());
            }
            let again = chosen(module, kinds, arena / 100 * share);
            if again.slices.is_empty() || idle == PATIENCE {
                break;
            }
            let analysis = Analysis::new(&module.graph);
            module.graph = again.rewritten(&module.graph, &analysis, &module.clusters);
            fuse::run(module, caps)?;
            schedule::run(module, caps)?;
            memory::run(module, caps)?;
            idle = if module.plan.arena_bytes < best.plan.arena_bytes { 0 } else { idle + 1 };
            if idle == 0 {
                best = module.clone();
            }
        }
        if module.plan.arena_bytes > best.plan.arena_bytes {
            *module = best.clone();
        }
    }
    *module = best;
    Ok(())
}

/// A value that spans the peak, and what it takes to compute it again.
struct Candidate {
    node: NodeId,
    readers: Vec<usize>,
    slice: Vec<NodeId>,
    /// Values that the slice reads and that are alive anyway.
    relies: BTreeSet<NodeId>,
    bytes: usize,
    work: f64,
}

/// Values whose clones free `excess` bytes at the peak, or as many as there are.
fn chosen(module: &Module, kinds: Kinds, excess: usize) -> Again {
    let graph = &module.graph;
    let analysis = Analysis::new(graph);
    let parts = Parts::new(graph, &analysis);
    let spans = memory::spans(module, &analysis, &parts);
    let search = Search::new(module, &analysis, &spans, kinds);
    let mut found: Vec<Candidate> = spans.keys().filter_map(|node| search.candidate(*node)).collect();
    let price = |candidate: &Candidate| candidate.work / candidate.bytes as f64;
    found.sort_by(|a, b| price(a).total_cmp(&price(b)).then(a.node.cmp(&b.node)));
    let mut numbers = Numbers::new(graph);
    let mut of_scope: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut relied, mut dropped) = (BTreeSet::new(), BTreeSet::new());
    let mut freed = 0;
    let mut again = Again::default();
    for candidate in found {
        let Candidate { node, readers, slice, relies, bytes, .. } = candidate;
        if freed >= excess {
            break;
        }
        if relied.contains(&node) || relies.iter().any(|other| dropped.contains(other)) {
            continue;
        }
        freed += bytes;
        dropped.insert(node);
        relied.extend(relies);
        // What values of one layer have in common is computed once for all of them.
        let number = *of_scope.entry(graph.scope_path(node)).or_insert_with(|| numbers.fresh());
        again.served.extend(readers.into_iter().map(|reader| ((node, reader), number)));
        again.slices.insert(node, slice);
    }
    again
}

struct Search<'a> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    spans: &'a Spans,
    kinds: Kinds,
    cluster_of: HashMap<NodeId, usize>,
    /// Launch of each cluster.
    places: Vec<usize>,
    peak: usize,
    arena_bytes: usize,
    /// Where each State is written.
    writes: HashMap<NodeId, usize>,
}

impl<'a> Search<'a> {
    fn new(module: &'a Module, analysis: &'a Analysis, spans: &'a Spans, kinds: Kinds) -> Search<'a> {
        let cluster_of = cluster_of(&module.clusters);
        let mut places = vec![0; module.clusters.len()];
        module.order.iter().enumerate().for_each(|(at, cluster)| places[*cluster] = at);
        let writes = analysis
            .written
            .iter()
            .filter_map(|(writer, state)| cluster_of.get(writer).map(|cluster| (*state, places[*cluster])));
        let writes = writes.collect();
        let peak = memory::peak(module, analysis);
        let arena_bytes = module.plan.arena_bytes;
        Search { graph: &module.graph, analysis, spans, kinds, cluster_of, places, peak, arena_bytes, writes }
    }

    fn candidate(&self, node: NodeId) -> Option<Candidate> {
        let span = self.spans[&node];
        let spans_peak = span.first < self.peak && self.peak < span.last;
        let elements = self.graph.ty(node).elements();
        if !spans_peak || elements < WORTH.min(self.arena_bytes / SHARE) || !self.is_computable(node) {
            return None;
        }
        if self.analysis.source(node).is_none_or(|source| source.owner != node) {
            return None;
        }
        let readers = self.readers(node)?;
        let late: Vec<usize> =
            readers.into_iter().filter(|reader| self.places[*reader] > self.peak).collect();
        let until = late.iter().map(|reader| self.places[*reader]).min()?;
        let mut slice = Slice { nodes: BTreeSet::new(), relies: BTreeSet::new(), until };
        self.add(node, &mut slice)?;
        let work = slice.nodes.iter().map(|id| self.work(*id)).sum();
        let bytes = elements * graph::DType::BYTES;
        let (relies, slice) = (slice.relies, slice.nodes.into_iter().collect());
        Some(Candidate { node, readers: late, slice, relies, bytes, work })
    }

    /// Clusters that read a value through views; None if something else does.
    fn readers(&self, id: NodeId) -> Option<BTreeSet<usize>> {
        let mut found = BTreeSet::new();
        let mut pending = self.analysis.users[id.index()].clone();
        while let Some(user) = pending.pop() {
            match self.analysis.kind(user) {
                Kind::View => pending.extend(&self.analysis.users[user.index()]),
                kind if kind.is_kernel() => _ = found.insert(self.cluster_of[&user]),
                _ => return None,
            }
        }
        Some(found)
    }

    fn is_computable(&self, id: NodeId) -> bool {
        match self.analysis.kind(id) {
            Kind::Tile => true,
            Kind::Gemm | Kind::Scatter => self.kinds == Kinds::All,
            Kind::Attention => {
                self.kinds == Kinds::All && matches!(self.graph.node(id).op, Op::Attention | Op::AttentionLse)
            }
            _ => false,
        }
    }

    /// Adds a node and what it takes from others that are gone by then. None if that cannot be done.
    fn add(&self, id: NodeId, slice: &mut Slice) -> Option<()> {
        if !slice.nodes.insert(id) {
            return Some(());
        }
        if slice.nodes.len() > MAX_OPS {
            return None;
        }
        self.graph.node(id).inputs.iter().try_for_each(|input| self.operand(*input, slice))
    }

    fn operand(&self, id: NodeId, slice: &mut Slice) -> Option<()> {
        let (root, _) = self.analysis.through_views(self.graph, id);
        if self.is_there(root, slice) {
            return Some(());
        }
        match self.analysis.kind(id) {
            Kind::View => {
                slice.nodes.insert(id);
                self.operand(self.graph.node(id).inputs[0], slice)
            }
            _ if self.is_computable(id) => self.add(id, slice),
            _ => None,
        }
    }

    /// Whether a value can be read behind the peak without being kept for it.
    fn is_there(&self, root: NodeId, slice: &mut Slice) -> bool {
        if slice.nodes.contains(&root) {
            return false;
        }
        match self.analysis.kind(root) {
            Kind::Free => true,
            // A clone that reads a State runs before the State is written.
            Kind::Memory => self.writes.get(&root).is_none_or(|at| *at >= slice.until),
            Kind::Concat => self.graph.node(root).inputs.iter().all(|part| {
                let mut part = *part;
                while self.graph.node(part).op == Op::Reshape {
                    part = self.graph.node(part).inputs[0];
                }
                self.is_there(part, slice)
            }),
            Kind::Effect | Kind::View => false,
            _ => {
                let Some(source) = self.analysis.source(root) else { return false };
                let owner = if self.spans.contains_key(&root) { root } else { source.owner };
                let is_alive = |span: &memory::Span| span.first <= self.peak && span.last >= slice.until;
                let is_stored = source.owner == root || self.spans.contains_key(&root);
                let alive = is_stored && self.spans.get(&owner).is_some_and(is_alive);
                if alive {
                    slice.relies.insert(root);
                }
                alive
            }
        }
    }

    fn work(&self, id: NodeId) -> f64 {
        let node = self.graph.node(id);
        let elements = node.ty.elements() as f64;
        let of = |input: usize| self.graph.ty(node.inputs[input]).elements() as f64;
        match self.analysis.kind(id) {
            Kind::View => 0.0,
            Kind::Gemm => {
                let axes =
                    node.dot_axes(self.graph.ty(node.inputs[0]).rank(), self.graph.ty(node.inputs[1]).rank());
                let dims = self.graph.dims(node.inputs[0]);
                2.0 * elements * axes.contract.0.iter().map(|axis| dims[*axis] as f64).product::<f64>()
            }
            // Scores and weighted values: keys times width for each query.
            Kind::Attention => 4.0 * of(0) * self.graph.dims(node.inputs[1])[2] as f64,
            _ if node.inputs.is_empty() => ELEMENT * elements,
            _ => ELEMENT * elements.max(of(0)),
        }
    }
}

/// What gives a value again.
struct Slice {
    nodes: BTreeSet<NodeId>,
    relies: BTreeSet<NodeId>,
    /// The launch of the first who reads the clone.
    until: usize,
}
