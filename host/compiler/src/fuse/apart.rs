//! What fusion left apart: pairs of tile kernels that its rules would let be one. A check of the pass from outside, which
//! looks at every pair of neighbours instead of following the order in which the pass merges.

use std::collections::{BTreeMap, BTreeSet};

use graph::NodeId;
use plan::DeviceCaps;

use super::{Fuser, clone_number};
use crate::Module;
use crate::analysis::{Analysis, Kind};

/// Two kernels of which one could absorb the other, each told by its first node.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    pub kernels: [String; 2],
    /// Whether one waits for the other; else they read the same tensor.
    pub is_producer: bool,
}

/// Pairs of a compiled module's tile kernels.
pub fn apart(module: &Module, caps: &DeviceCaps) -> Vec<Apart> {
    let (graph, analysis) = (&module.graph, Analysis::new(&module.graph));
    let mut fuser = Fuser::new(graph, &analysis, caps, module.clusters.clone());
    let tiles = |fuser: &Fuser<'_>, index: usize| {
        fuser.clusters[index].as_ref().is_some_and(|cluster| analysis.kind(cluster.nodes[0]) == Kind::Tile)
    };
    let mut pairs: BTreeMap<(usize, usize), bool> = BTreeMap::new();
    let mut readers: BTreeMap<NodeId, BTreeSet<usize>> = BTreeMap::new();
    for id in analysis.kernels(graph).filter(|id| analysis.kind(*id) == Kind::Tile) {
        let own = fuser.cluster_of[id.index()];
        let clone = clone_number(graph, id);
        for producer in &analysis.waits[id.index()] {
            let other = fuser.cluster_of[producer.index()];
            let is_meant = clone.is_none() || clone_number(graph, *producer) == clone;
            if is_meant && other != own && tiles(&fuser, other) {
                pairs.insert((own.min(other), own.max(other)), true);
            }
        }
        for input in fuser.leaves(id) {
            let (root, _) = analysis.through_views(graph, input);
            // What is smaller costs nothing to read twice.
            let is_whole = graph.ty(root).elements() >= graph.ty(id).elements();
            if is_whole
                && fuser.cluster_of.get(root.index()) != Some(&own)
                && let Some(source) = analysis.source(input)
            {
                readers.entry(source.owner).or_default().insert(own);
            }
        }
    }
    for of_one in readers.values() {
        for first in of_one {
            for second in of_one.range(first + 1..) {
                pairs.entry((*first, *second)).or_insert(false);
            }
        }
    }
    let told = |fuser: &Fuser<'_>, index: usize| {
        let first = fuser.clusters[index].as_ref().map(|cluster| cluster.nodes[0]);
        first.map_or(String::new(), |id| format!("{} in {}", graph.describe(id), graph.scope_path(id)))
    };
    // A clone is there because its value would lie in memory too long: it joins whoever reads it, and clones of its kind.
    let clones = |fuser: &Fuser<'_>, index: usize| -> BTreeSet<u32> {
        let nodes = fuser.clusters[index].iter().flat_map(|cluster| &cluster.nodes);
        nodes.filter_map(|id| clone_number(graph, *id)).collect()
    };
    let mut found = Vec::new();
    for ((first, second), is_producer) in pairs {
        let is_meant = is_producer || clones(&fuser, first) == clones(&fuser, second);
        if is_meant
            && fuser.merged(first, second).is_some_and(|merged| fuser.fits(&merged))
            && fuser.order.could_join(first, second)
        {
            found.push(Apart { kernels: [told(&fuser, first), told(&fuser, second)], is_producer });
        }
    }
    found
}
