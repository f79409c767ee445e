//! The order of launches: graph order, except that what frees memory goes first.
//!
//! Kahn's algorithm over clusters. Among ready clusters, one whose last reads free more bytes than it allocates wins
//! (the most freed first); otherwise the one whose first node comes first. Ties go to graph order, so a schedule is a
//! function of the graph.

use std::collections::{BTreeSet, HashMap};

use graph::{DType, Graph, NodeId};
use plan::DeviceCaps;

use crate::analysis::{Analysis, Kind};
use crate::fuse::{is_stored, singletons};
use crate::module::cluster_of;
use crate::{Cluster, Module};

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let analysis = Analysis::new(&module.graph);
    if module.clusters.is_empty() {
        module.clusters = singletons(&module.graph, &analysis);
    }
    module.order = order(&module.graph, &analysis, &module.clusters)?;
    Ok(())
}

/// Buffers a cluster reads and writes, by owner. States and inputs are not counted: they are never freed.
pub fn buffers(
    graph: &Graph,
    analysis: &Analysis,
    cluster: &Cluster,
) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let (mut reads, mut writes) = (BTreeSet::new(), BTreeSet::new());
    for id in &cluster.nodes {
        for input in &graph.node(*id).inputs {
            if let Some(source) = analysis.source(*input)
                && cluster.nodes.binary_search(&analysis.through_views(graph, *input).0).is_err()
            {
                reads.insert(source.owner);
            }
        }
        if is_stored(analysis, *id, cluster)
            && let Some(source) = analysis.source(*id)
        {
            writes.insert(source.owner);
        }
    }
    let scratch = |owner: &NodeId| !matches!(analysis.kind(*owner), Kind::Memory | Kind::Effect);
    (reads.into_iter().filter(scratch).collect(), writes.into_iter().filter(scratch).collect())
}

fn order(graph: &Graph, analysis: &Analysis, clusters: &[Cluster]) -> Result<Vec<usize>, String> {
    let cluster_of = cluster_of(clusters);
    let mut waits: Vec<BTreeSet<usize>> = Vec::with_capacity(clusters.len());
    let mut waiters: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); clusters.len()];
    let touched: Vec<_> = clusters.iter().map(|cluster| buffers(graph, analysis, cluster)).collect();
    let mut readers_left: HashMap<NodeId, usize> = HashMap::new();
    for (index, cluster) in clusters.iter().enumerate() {
        let before = cluster.nodes.iter().flat_map(|node| &analysis.waits[node.index()]);
        let before: BTreeSet<usize> =
            before.map(|node| cluster_of[node]).filter(|other| *other != index).collect();
        before.iter().for_each(|other| _ = waiters[*other].insert(index));
        waits.push(before);
        touched[index].0.iter().for_each(|owner| *readers_left.entry(*owner).or_default() += 1);
    }
    let bytes = |owner: &NodeId| (graph.ty(*owner).elements() * DType::BYTES) as i64;
    let mut ready: BTreeSet<(NodeId, usize)> = (0..clusters.len())
        .filter(|index| waits[*index].is_empty())
        .map(|index| (clusters[index].nodes[0], index))
        .collect();
    let mut allocated: BTreeSet<NodeId> = BTreeSet::new();
    let mut order = Vec::with_capacity(clusters.len());
    while !ready.is_empty() {
        let gain = |index: usize| {
            let (reads, writes) = &touched[index];
            let freed: i64 = reads.iter().filter(|owner| readers_left[owner] == 1).map(bytes).sum();
            freed - writes.iter().filter(|owner| !allocated.contains(owner)).map(bytes).sum::<i64>()
        };
        let best = ready.iter().map(|entry| (gain(entry.1), *entry)).filter(|(gain, _)| *gain > 0);
        let best = best.max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, entry)| entry);
        let Some(entry) = best.or_else(|| ready.first().copied()) else { break };
        ready.remove(&entry);
        let index = entry.1;
        order.push(index);
        for owner in &touched[index].0 {
            *readers_left.get_mut(owner).expect("counted above") -= 1;
        }
        allocated.extend(&touched[index].1);
        for waiter in &waiters[index] {
            waits[*waiter].remove(&index);
            if waits[*waiter].is_empty() {
                ready.insert((clusters[*waiter].nodes[0], *waiter));
            }
        }
    }
    if order.len() < clusters.len() {
        return Err(format!(
            "{} of {} clusters wait for each other",
            clusters.len() - order.len(),
            clusters.len()
        ));
    }
    Ok(order)
}
