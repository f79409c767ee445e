//! Values that a backward pass would read long after they were formed, computed again beside what reads their operands
//! there anyway.
//!
//! The gradient of a weight reads what the product in the forward pass read: gelu(x), a normalised row. A kernel of
//! the backward pass that comes before it has x and most of the terms, so that the value costs one more store there
//! and is not kept in between. Row values (means, deviations) are kept, and so is whatever no such kernel can give.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graph::{Class, Graph, NodeId, Op};

use super::again::{Again, Numbers, number};
use super::{element_loads, slice};
use crate::Cluster;
use crate::analysis::{Analysis, Kind};
use crate::fuse::is_stored;
use crate::module::cluster_of;

/// Elements of a value that is worth it: many small ones are delayed for nothing (memories that learn chunk by chunk).
const WORTH: usize = 1 << 16;

pub fn again(graph: &Graph, analysis: &Analysis, clusters: &[Cluster]) -> Again {
    let mut search = Search::new(graph, analysis, clusters);
    let mut numbers = Numbers::new(graph);
    // One number for all that is computed again in one cluster, so that terms are shared.
    let mut number_of: BTreeMap<usize, u32> = BTreeMap::new();
    let mut again = Again::default();
    for (index, cluster) in clusters.iter().enumerate() {
        for id in &cluster.nodes {
            let is_element = graph.class(*id) == Class::Elementwise && graph.dims(*id) == cluster.dims;
            let owns = analysis.source(*id).is_some_and(|source| source.owner == *id);
            let large = graph.ty(*id).elements() >= WORTH;
            if !(is_element && owns && large)
                || graph.node(*id).op == Op::Copy
                || !is_stored(analysis, *id, cluster)
            {
                continue;
            }
            let Some(slice) = slice(graph, analysis, *id, cluster) else { continue };
            let Some((readers, host)) = search.late(*id, index, &slice) else { continue };
            let clone = *number_of.entry(host).or_insert_with(|| {
                let own = clusters[host].nodes.iter().find_map(|node| number(graph, *node));
                own.unwrap_or_else(|| numbers.fresh())
            });
            again.served.extend(readers.into_iter().map(|reader| ((*id, reader), clone)));
            again.slices.insert(*id, slice);
        }
    }
    again
}

struct Search<'a> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    clusters: &'a [Cluster],
    cluster_of: HashMap<NodeId, usize>,
    /// Clusters that wait for each one.
    after: Vec<Vec<usize>>,
    /// Which search for a way saw each cluster last, and how many there were.
    seen: Vec<u32>,
    searches: u32,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph, analysis: &'a Analysis, clusters: &'a [Cluster]) -> Search<'a> {
        let cluster_of = cluster_of(clusters);
        let mut after = vec![Vec::new(); clusters.len()];
        for (index, cluster) in clusters.iter().enumerate() {
            let before = cluster.nodes.iter().flat_map(|node| &analysis.waits[node.index()]);
            let before: BTreeSet<usize> =
                before.map(|node| cluster_of[node]).filter(|other| *other != index).collect();
            before.into_iter().for_each(|other| after[other].push(index));
        }
        Search { graph, analysis, clusters, cluster_of, after, seen: vec![0; clusters.len()], searches: 0 }
    }

    /// Readers of a value that can wait for a cluster which has all that its slice reads, and that cluster; None if
    /// there is none, or if nobody reads the value before.
    fn late(&mut self, id: NodeId, own: usize, slice: &[NodeId]) -> Option<(Vec<usize>, usize)> {
        let (readers, true) = self.readers(id) else { return None };
        let guards = self.analysis.guards.of(id);
        let loads = element_loads(self.graph, self.analysis, slice, &self.clusters[own]);
        let last = readers
            .iter()
            .copied()
            .filter(|reader| *reader != own)
            .max_by_key(|reader| self.place(*reader))?;
        let hosts: BTreeSet<usize> = loads.iter().flat_map(|load| self.readers(*load).0).collect();
        let fits = |host: &usize| {
            let cluster = &self.clusters[*host];
            *host != own
                && !readers.contains(host)
                && cluster.dims == self.clusters[own].dims
                && !cluster.folds_columns()
                && self.analysis.kind(cluster.nodes[0]) == Kind::Tile
                && self.analysis.guards.of(cluster.nodes[0]) == guards
                && loads.is_subset(&element_loads(self.graph, self.analysis, &cluster.nodes, cluster))
        };
        let mut hosts: Vec<usize> = hosts.into_iter().filter(fits).collect();
        hosts.sort_by_key(|host| (self.place(*host).abs_diff(self.place(last)), *host));
        let in_time = |reader: &usize| self.analysis.guards.of(self.clusters[*reader].nodes[0]) == guards;
        if !readers.iter().all(in_time) {
            return None;
        }
        hosts.into_iter().find_map(|host| {
            if self.leads(last, host) || !self.leads(own, host) {
                return None;
            }
            let (early, late): (Vec<usize>, Vec<usize>) =
                readers.iter().copied().partition(|reader| self.leads(*reader, host));
            (!early.is_empty()).then_some((late, host))
        })
    }

    /// Clusters that read a node's value through views, and whether nothing else does.
    fn readers(&self, id: NodeId) -> (BTreeSet<usize>, bool) {
        let (mut found, mut all) = (BTreeSet::new(), true);
        let mut pending = self.analysis.users[id.index()].clone();
        while let Some(user) = pending.pop() {
            match self.analysis.kind(user) {
                Kind::View => pending.extend(&self.analysis.users[user.index()]),
                kind if kind.is_kernel() => _ = found.insert(self.cluster_of[&user]),
                _ => all = false,
            }
        }
        (found, all)
    }

    fn place(&self, cluster: usize) -> u32 {
        self.clusters[cluster].nodes[0].0
    }

    /// Whether `to` waits for `from`, directly or not.
    fn leads(&mut self, from: usize, to: usize) -> bool {
        let end = self.clusters[to].nodes.last().map_or(0, |node| node.0);
        self.searches += 1;
        let mut pending = vec![from];
        while let Some(cluster) = pending.pop() {
            if cluster == to {
                return true;
            }
            for next in &self.after[cluster] {
                // What stands behind the end in graph order leads nowhere before it.
                let new = self.clusters[*next].nodes[0].0 <= end && self.seen[*next] != self.searches;
                if new {
                    self.seen[*next] = self.searches;
                    pending.push(*next);
                }
            }
        }
        false
    }
}
