//! Recomputing instead of keeping: cheap element values are formed again where a later cluster needs them.
//!
//! Fusion stores whatever leaves a cluster. Where a stored value follows from memory that is there anyway by a few
//! scalar operations (gelu's inner terms from the pre-activation, a normalised row from the row and its statistics),
//! each later cluster gets a clone of those operations. Dots, reductions and gathers are always kept. A clone number,
//! the cluster it serves, is part of a node's identity, so that sharing does not undo the pass; afterwards clusters
//! are formed again.

pub mod again;
mod late;
mod words;

use std::collections::BTreeSet;

use graph::{Class, Graph, NodeId, Op};
use plan::DeviceCaps;

use crate::analysis::{Analysis, Kind};
use crate::fuse::{self, is_stored};
use crate::module::{RECOMPUTED, cluster_of};
use crate::{Cluster, Module};
use again::Again;

/// Most operations of one clone. gelu's derivative needs 6.
const MAX_OPS: usize = 8;

pub fn run(module: &mut Module, caps: &DeviceCaps) -> Result<(), String> {
    if module.clusters.is_empty() {
        return Ok(());
    }
    for search in [beside_readers, words::again, late::again] {
        let analysis = Analysis::new(&module.graph);
        let again = search(&module.graph, &analysis, &module.clusters);
        if !again.slices.is_empty() {
            module.graph = again.rewritten(&module.graph, &analysis, &module.clusters);
            fuse::run(module, caps)?;
        }
    }
    Ok(())
}

/// Element values that all later clusters form for themselves.
fn beside_readers(graph: &Graph, analysis: &Analysis, clusters: &[Cluster]) -> Again {
    let cluster_of = cluster_of(clusters);
    let mut again = Again::default();
    for (index, cluster) in clusters.iter().enumerate() {
        for id in &cluster.nodes {
            let is_element = graph.class(*id) == Class::Elementwise && graph.dims(*id) == cluster.dims;
            if !is_element || graph.node(*id).op == Op::Copy || !is_stored(analysis, *id, cluster) {
                continue;
            }
            // Every reader must be able to do without the stored value, or keeping it costs nothing extra.
            let users = &analysis.users[id.index()];
            let in_tiles = users
                .iter()
                .all(|user| analysis.kind(*user) == Kind::Tile && graph.node(*user).op != Op::Gather);
            let Some(slice) = in_tiles.then(|| slice(graph, analysis, *id, cluster)).flatten() else {
                continue;
            };
            let readers: BTreeSet<usize> =
                users.iter().map(|user| cluster_of[user]).filter(|other| *other != index).collect();
            let loads = element_loads(graph, analysis, &slice, cluster);
            let pays = readers.iter().all(|reader| {
                let has = element_loads(graph, analysis, &clusters[*reader].nodes, &clusters[*reader]);
                // A clone runs with its reader, so that must run when the value is there.
                let together = analysis.guards.of(clusters[*reader].nodes[0]) == analysis.guards.of(*id);
                together && loads.difference(&has).count() <= 1
            });
            if pays {
                let served = readers.into_iter().map(|reader| ((*id, reader), RECOMPUTED | reader as u32));
                again.served.extend(served);
                again.slices.insert(*id, slice);
            }
        }
    }
    again
}

/// The element operations of the cluster that lead to `id`; None if there are too many. Row values are kept, not
/// recomputed.
fn slice(graph: &Graph, analysis: &Analysis, id: NodeId, cluster: &Cluster) -> Option<Vec<NodeId>> {
    let mut found = BTreeSet::from([id]);
    let mut pending = vec![id];
    while let Some(node) = pending.pop() {
        for input in &graph.node(node).inputs {
            let inside = cluster.nodes.binary_search(input).is_ok() && graph.dims(*input) == cluster.dims;
            if !inside {
                continue;
            }
            let again = analysis.kind(*input) == Kind::Tile && graph.class(*input) == Class::Elementwise;
            if !again || graph.node(*input).op == Op::Copy {
                return None;
            }
            if found.insert(*input) {
                pending.push(*input);
            }
        }
        if found.len() > MAX_OPS {
            return None;
        }
    }
    Some(found.into_iter().collect())
}

/// Full-size buffers that `nodes` read from outside the cluster.
fn element_loads(
    graph: &Graph,
    analysis: &Analysis,
    nodes: &[NodeId],
    cluster: &Cluster,
) -> BTreeSet<NodeId> {
    let inputs = nodes.iter().flat_map(|node| &graph.node(*node).inputs);
    let outside = inputs.filter(|input| {
        let (root, _) = analysis.through_views(graph, **input);
        cluster.nodes.binary_search(&root).is_err()
            && graph.ty(root).elements() >= graph.ty(nodes[0]).elements()
    });
    outside.filter_map(|input| analysis.source(*input).map(|source| source.owner)).collect()
}
