//! Clusters: which kernel nodes become one launch.
//!
//! Every tile node starts alone; then, producer by producer, neighbouring clusters merge wherever that is legal. No
//! node is ever computed twice here, so merging only removes launches and traffic. Legal means:
//! - index spaces agree: equal extents and reduced axes, or one side has a number for each row of the other;
//! - each value passed inside is read at the element where it is computed (directly, or repeated along the row);
//! - no path leads out of the merged cluster and back in, counting readers of a State before its writer;
//! - a State written inside is read inside only at the written element;
//! - both run under the same conditions (`guard`);
//! - memory operands stay within the device's limit;
//! - column sums and rows beyond the device's limit keep no element values: nothing outside needs them.

mod apart;
mod order;

use std::collections::BTreeSet;

use graph::{Graph, NodeId, Op};
use plan::DeviceCaps;

use crate::analysis::{Analysis, Kind};
use crate::module::RECOMPUTED;
use crate::view::View;
use crate::{Cluster, Module};
pub use apart::{Apart, apart};
use order::Order;

pub fn run(module: &mut Module, caps: &DeviceCaps) -> Result<(), String> {
    let analysis = Analysis::new(&module.graph);
    module.clusters = clusters(&module.graph, &analysis, caps);
    Ok(())
}

/// One cluster for each kernel node, and one for all that a hand kernel's launch computes: what an unfused plan runs.
pub fn singletons(graph: &Graph, analysis: &Analysis) -> Vec<Cluster> {
    let alone = |id: &NodeId| {
        let id = *id;
        let node = graph.node(id);
        let (dims, reduced) = match node.op {
            Op::Sum | Op::ReduceMax => {
                (graph.dims(node.inputs[0]).to_vec(), node.ints.iter().map(|axis| *axis as usize).collect())
            }
            _ => (node.ty.dims.clone(), Vec::new()),
        };
        Cluster { nodes: vec![id], dims, reduced }
    };
    let is_first = |id: &NodeId| analysis.joined.get(id).is_none_or(|first| first == id);
    let kernels: Vec<NodeId> = analysis.kernels(graph).collect();
    let mut clusters: Vec<Cluster> = kernels.iter().filter(|id| is_first(id)).map(alone).collect();
    for id in kernels.iter().filter(|id| !is_first(id)) {
        let first = analysis.joined[id];
        // Clusters stand in the order of their first nodes, which that of a launch precedes.
        let at = clusters.partition_point(|cluster| cluster.nodes[0] < first);
        clusters[at].nodes.push(*id);
    }
    clusters
}

fn clusters(graph: &Graph, analysis: &Analysis, caps: &DeviceCaps) -> Vec<Cluster> {
    let mut fuser = Fuser::new(graph, analysis, caps, singletons(graph, analysis));
    fuser.merge_producers();
    while fuser.merge_refused() {}
    fuser.clusters.into_iter().flatten().collect()
}

/// Which cluster a recomputed node serves (see `remat`).
fn clone_number(graph: &Graph, id: NodeId) -> Option<u32> {
    Some(graph.node(id).clone).filter(|clone| clone & RECOMPUTED != 0)
}

struct Fuser<'a> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    caps: &'a DeviceCaps,
    clusters: Vec<Option<Cluster>>,
    /// By node; only kernel nodes have one.
    cluster_of: Vec<usize>,
    order: Order,
    /// Producers and consumers that only their operands or a path through a third cluster kept apart.
    refused: Vec<(NodeId, NodeId)>,
}

impl<'a> Fuser<'a> {
    fn new(
        graph: &'a Graph,
        analysis: &'a Analysis,
        caps: &'a DeviceCaps,
        clusters: Vec<Cluster>,
    ) -> Fuser<'a> {
        let clusters: Vec<Option<Cluster>> = clusters.into_iter().map(Some).collect();
        let mut cluster_of = vec![usize::MAX; graph.nodes.len()];
        for (index, cluster) in clusters.iter().flatten().enumerate() {
            cluster.nodes.iter().for_each(|id| cluster_of[id.index()] = index);
        }
        let waits = |(index, cluster): (usize, &Cluster)| {
            let nodes = cluster.nodes.iter().flat_map(|id| &analysis.waits[id.index()]);
            nodes.map(|node| cluster_of[node.index()]).filter(|other| *other != index).collect()
        };
        let order = Order::new(clusters.iter().flatten().enumerate().map(waits).collect());
        Fuser { graph, analysis, caps, clusters, cluster_of, order, refused: Vec::new() }
    }

    /// The cluster that two would be, if neither its operands nor a path through a third forbid it.
    fn merged(&self, first: usize, second: usize) -> Option<Cluster> {
        let (Some(a), Some(b)) = (&self.clusters[first], &self.clusters[second]) else { return None };
        if first == second || self.analysis.guards.of(a.nodes[0]) != self.analysis.guards.of(b.nodes[0]) {
            return None;
        }
        let merged = combine(a, b)?;
        let legal = self.reads_are_aligned(&merged)
            && self.keeps_no_forbidden_values(&merged)
            && self.states_are_updated_in_place(&merged);
        legal.then_some(merged)
    }

    fn fits(&self, cluster: &Cluster) -> bool {
        self.operands(cluster) <= self.caps.max_bindings
    }

    /// Merges consumers with their producers, in graph order.
    fn merge_producers(&mut self) {
        for id in self.analysis.kernels(self.graph).filter(|id| self.analysis.kind(*id) == Kind::Tile) {
            let mut producers: Vec<NodeId> = self.analysis.waits[id.index()]
                .iter()
                .copied()
                .filter(|node| self.analysis.kind(*node) == Kind::Tile)
                .collect();
            producers.reverse();
            // A clone exists to be computed with its reader: it waits for that, and joins only clones of its kind.
            let clone = clone_number(self.graph, id);
            producers.retain(|producer| clone.is_none() || clone_number(self.graph, *producer) == clone);
            for producer in producers {
                self.try_merge(producer, id);
            }
        }
    }

    /// Tries again what had too many operands or a detour: a later merge may have taken that in. Whether anything merged.
    fn merge_refused(&mut self) -> bool {
        let refused = std::mem::take(&mut self.refused);
        refused.into_iter().fold(false, |merged, (producer, id)| self.try_merge(producer, id) || merged)
    }

    fn try_merge(&mut self, producer: NodeId, id: NodeId) -> bool {
        let (first, second) = (self.cluster_of[producer.index()], self.cluster_of[id.index()]);
        let Some(merged) = self.merged(first, second) else { return false };
        let is_legal = self.fits(&merged) && self.order.join(first, second);
        if is_legal {
            for node in &merged.nodes {
                self.cluster_of[node.index()] = first;
            }
            self.clusters[first] = Some(merged);
            self.clusters[second] = None;
        } else {
            self.refused.push((producer, id));
        }
        is_legal
    }

    /// Every operand computed inside is read where it is computed: without a view, or repeated along the row.
    fn reads_are_aligned(&self, cluster: &Cluster) -> bool {
        let row_dims = cluster.row_dims();
        cluster.nodes.iter().all(|id| {
            let node = self.graph.node(*id);
            node.inputs.iter().all(|input| {
                let (root, repeated_only) = self.analysis.through_views(self.graph, *input);
                if !self.reaches_into(root, cluster) {
                    return true;
                }
                let direct = root == *input || (repeated_only && self.graph.dims(root) == row_dims);
                // A gather reads rows of memory, never a value at its own element.
                cluster.nodes.binary_search(&root).is_ok() && direct && node.op != Op::Gather
            })
        })
    }

    /// Whether `root`'s buffer is filled by the cluster: by itself or as part of a concatenation.
    fn reaches_into(&self, root: NodeId, cluster: &Cluster) -> bool {
        match self.analysis.kind(root) {
            Kind::Concat => self.graph.node(root).inputs.iter().any(|part| {
                let (root, _) = self.analysis.through_views(self.graph, *part);
                self.reaches_into(root, cluster)
            }),
            _ => cluster.nodes.binary_search(&root).is_ok(),
        }
    }

    /// Column sums and long rows hold no row of elements: element values stay inside, folded ones are not repeated.
    fn keeps_no_forbidden_values(&self, cluster: &Cluster) -> bool {
        let columns = cluster.folds_columns();
        if !columns && (cluster.reduced.is_empty() || cluster.reduced_len() <= self.caps.max_row) {
            return true;
        }
        let inside = |id: &NodeId| cluster.nodes.binary_search(id).is_ok();
        let row_dims = cluster.row_dims();
        cluster.nodes.iter().all(|id| {
            let node = self.graph.node(*id);
            let users = &self.analysis.users[id.index()];
            if node.ty.dims != row_dims {
                return users.iter().all(inside);
            }
            let folds = matches!(node.op, Op::Sum | Op::ReduceMax);
            (folds || !columns)
                && users
                    .iter()
                    .all(|user| if inside(user) { !columns } else { !self.is_read_inside(*user, cluster) })
        })
    }

    /// Whether a user, seen through views, is in the cluster.
    fn is_read_inside(&self, user: NodeId, cluster: &Cluster) -> bool {
        match self.analysis.kind(user) {
            Kind::View => {
                self.analysis.users[user.index()].iter().any(|next| self.is_read_inside(*next, cluster))
            }
            _ => cluster.nodes.binary_search(&user).is_ok(),
        }
    }

    fn states_are_updated_in_place(&self, cluster: &Cluster) -> bool {
        let written: BTreeSet<NodeId> =
            cluster.nodes.iter().filter_map(|id| self.analysis.written.get(id).copied()).collect();
        if written.is_empty() {
            return true;
        }
        let nodes = cluster.nodes.iter().map(|id| self.graph.node(*id));
        nodes.flat_map(|node| node.inputs.iter().map(move |input| (node.op, input))).all(|(op, input)| {
            let Some(source) = self.analysis.source(*input) else { return true };
            let dims = self.graph.dims(*input);
            // A gather reads any row, those already written among them.
            !written.contains(&source.owner)
                || (op != Op::Gather
                    && source.view.offset == 0
                    && source.view.is_contiguous(dims)
                    && dims == self.graph.dims(source.owner)
                    && source.view == View::contiguous(dims))
        })
    }

    /// Memory operands of the cluster's kernel: distinct reads plus stores.
    fn operands(&self, cluster: &Cluster) -> usize {
        let mut reads: BTreeSet<(NodeId, usize, Vec<usize>)> = BTreeSet::new();
        let mut stores = 0;
        for id in &cluster.nodes {
            for input in self.leaves(*id) {
                let (root, _) = self.analysis.through_views(self.graph, input);
                if cluster.nodes.binary_search(&root).is_err()
                    && let Some(source) = self.analysis.source(input)
                {
                    reads.insert((source.owner, source.view.offset, source.view.strides.clone()));
                }
            }
            stores += usize::from(is_stored(self.analysis, *id, cluster));
        }
        reads.len() + stores
    }

    /// Operands, looking through free nodes.
    fn leaves(&self, id: NodeId) -> Vec<NodeId> {
        self.graph
            .node(id)
            .inputs
            .iter()
            .copied()
            .filter(|input| self.analysis.kind(*input) != Kind::Free)
            .collect()
    }
}

/// Whether a node's value must go to memory: something other than the cluster's own element-aligned reads needs it.
pub fn is_stored(analysis: &Analysis, id: NodeId, cluster: &Cluster) -> bool {
    let mut pending = analysis.users[id.index()].clone();
    while let Some(user) = pending.pop() {
        match analysis.kind(user) {
            Kind::View => pending.extend(&analysis.users[user.index()]),
            Kind::Tile if cluster.nodes.binary_search(&user).is_ok() => {}
            _ => return true,
        }
    }
    false
}

/// The index space of both, if one can hold them.
fn combine(a: &Cluster, b: &Cluster) -> Option<Cluster> {
    let (dims, reduced) = if a.dims == b.dims {
        match (a.reduced.is_empty(), b.reduced.is_empty()) {
            (_, true) => (a.dims.clone(), a.reduced.clone()),
            (true, _) => (b.dims.clone(), b.reduced.clone()),
            _ if a.reduced == b.reduced => (a.dims.clone(), a.reduced.clone()),
            _ => return None,
        }
    } else if b.reduced.is_empty() && !a.reduced.is_empty() && b.dims == a.row_dims() {
        (a.dims.clone(), a.reduced.clone())
    } else if a.reduced.is_empty() && !b.reduced.is_empty() && a.dims == b.row_dims() {
        (b.dims.clone(), b.reduced.clone())
    } else {
        return None;
    };
    let mut nodes = [&a.nodes[..], &b.nodes].concat();
    nodes.sort_unstable();
    Some(Cluster { nodes, dims, reduced })
}
