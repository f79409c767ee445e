//! Random words, drawn again for each who reads them: they are a function of their place, so a mask that the backward
//! pass needs is no reason to keep anything.

use std::collections::BTreeSet;

use graph::{Graph, NodeId, Op};

use super::again::{Again, Numbers};
use crate::Cluster;
use crate::analysis::{Analysis, Kind};
use crate::module::cluster_of;

/// Words that are worth it.
const WORTH: usize = 1 << 16;

pub fn again(graph: &Graph, analysis: &Analysis, clusters: &[Cluster]) -> Again {
    let cluster_of = cluster_of(clusters);
    let mut numbers = Numbers::new(graph);
    let mut again = Again::default();
    let is_drawn = |id: &NodeId| {
        let node = graph.node(*id);
        let owns = analysis.source(*id).is_some_and(|source| source.owner == *id);
        node.op == Op::Rand && node.ty.elements() >= WORTH && owns && analysis.kind(*id) == Kind::Tile
    };
    for id in graph.ids().filter(is_drawn) {
        let mut readers = BTreeSet::new();
        let mut pending = analysis.users[id.index()].clone();
        while let Some(user) = pending.pop() {
            match analysis.kind(user) {
                Kind::View => pending.extend(&analysis.users[user.index()]),
                kind if kind.is_kernel() => {
                    _ = readers.insert((clusters[cluster_of[&user]].nodes[0], cluster_of[&user]))
                }
                _ => {}
            }
        }
        // The first reads what there is.
        let later = readers.into_iter().filter(|(_, reader)| *reader != cluster_of[&id]).skip(1);
        let served: Vec<_> = later.map(|(_, reader)| ((id, reader), numbers.fresh())).collect();
        if !served.is_empty() {
            again.served.extend(served);
            again.slices.insert(id, vec![id]);
        }
    }
    again
}
