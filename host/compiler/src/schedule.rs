//! The order of launches: graph order, except that what frees memory goes first.
//!
//! Kahn's algorithm over clusters. Among ready clusters, one whose last reads free more bytes than it allocates wins
//! (the most freed first); otherwise the one whose first node comes first. Ties go to graph order, so a schedule is a
//! function of the graph.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use graph::{DType, Graph, NodeId};
use plan::DeviceCaps;

use crate::analysis::Analysis;
use crate::fuse::singletons;
use crate::module::cluster_of;
use crate::parts::Parts;
use crate::{Cluster, Module};

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let analysis = Analysis::new(&module.graph);
    if module.clusters.is_empty() {
        module.clusters = singletons(&module.graph, &analysis);
    }
    module.order = order(&module.graph, &analysis, &module.clusters)?;
    Ok(())
}

fn order(graph: &Graph, analysis: &Analysis, clusters: &[Cluster]) -> Result<Vec<usize>, String> {
    let cluster_of = cluster_of(clusters);
    let mut waits: Vec<usize> = Vec::with_capacity(clusters.len());
    let mut waiters: Vec<Vec<usize>> = vec![Vec::new(); clusters.len()];
    for (index, cluster) in clusters.iter().enumerate() {
        let before = cluster.nodes.iter().flat_map(|node| &analysis.waits[node.index()]);
        let before: BTreeSet<usize> =
            before.map(|node| cluster_of[node]).filter(|other| *other != index).collect();
        before.iter().for_each(|other| waiters[*other].push(index));
        waits.push(before.len());
    }
    let mut ready = Ready::new(graph, analysis, clusters);
    (0..clusters.len()).filter(|index| waits[*index] == 0).for_each(|index| ready.insert(index));
    let mut order = Vec::with_capacity(clusters.len());
    while let Some(index) = ready.take_best() {
        order.push(index);
        for waiter in &waiters[index] {
            waits[*waiter] -= 1;
            if waits[*waiter] == 0 {
                ready.insert(*waiter);
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

/// Clusters that may run next, in two queues. What one frees changes only when a neighbour runs that shares a buffer
/// with it, so it is kept and changed then, not summed again for each launch.
struct Ready<'a> {
    clusters: &'a [Cluster],
    buffers: BTreeMap<NodeId, Buffer>,
    touched: Vec<(BTreeSet<NodeId>, BTreeSet<NodeId>)>,
    /// Bytes that each cluster frees, less those that it allocates.
    gains: Vec<i64>,
    /// All, by first node.
    in_order: BTreeSet<(NodeId, usize)>,
    /// Those that free something, the most first.
    freeing: BTreeSet<(Reverse<i64>, NodeId, usize)>,
}

struct Buffer {
    bytes: i64,
    is_allocated: bool,
    /// How many of `readers` have not run.
    readers_left: usize,
    readers: Vec<usize>,
    writers: Vec<usize>,
}

impl<'a> Ready<'a> {
    fn new(graph: &Graph, analysis: &Analysis, clusters: &'a [Cluster]) -> Ready<'a> {
        let parts = Parts::new(graph, analysis);
        let touched: Vec<_> =
            clusters.iter().map(|cluster| parts.touched(graph, analysis, cluster)).collect();
        let mut buffers: BTreeMap<NodeId, Buffer> = BTreeMap::new();
        for (index, (reads, writes)) in touched.iter().enumerate() {
            for (owners, is_read) in [(reads, true), (writes, false)] {
                for owner in owners {
                    let buffer = buffers.entry(*owner).or_insert_with(|| Buffer {
                        bytes: (graph.ty(*owner).elements() * DType::BYTES) as i64,
                        is_allocated: false,
                        readers_left: 0,
                        readers: Vec::new(),
                        writers: Vec::new(),
                    });
                    buffer.readers_left += usize::from(is_read);
                    if is_read { buffer.readers.push(index) } else { buffer.writers.push(index) }
                }
            }
        }
        let mut gains = vec![0; clusters.len()];
        for buffer in buffers.values() {
            if let [only] = buffer.readers[..] {
                gains[only] += buffer.bytes;
            }
            buffer.writers.iter().for_each(|writer| gains[*writer] -= buffer.bytes);
        }
        let (in_order, freeing) = (BTreeSet::new(), BTreeSet::new());
        Ready { clusters, buffers, touched, gains, in_order, freeing }
    }

    fn insert(&mut self, index: usize) {
        let first = self.clusters[index].nodes[0];
        self.in_order.insert((first, index));
        if self.gains[index] > 0 {
            self.freeing.insert((Reverse(self.gains[index]), first, index));
        }
    }

    /// The one that frees most, or the first in graph order if none frees anything. It counts as run from now on.
    fn take_best(&mut self) -> Option<usize> {
        let best = self.freeing.first().map(|(_, first, index)| (*first, *index));
        let (first, index) = best.or_else(|| self.in_order.first().copied())?;
        self.in_order.remove(&(first, index));
        self.freeing.remove(&(Reverse(self.gains[index]), first, index));
        let mut changes: Vec<(usize, i64)> = Vec::new();
        let (reads, writes) = &self.touched[index];
        for owner in reads {
            let Some(buffer) = self.buffers.get_mut(owner) else { continue };
            buffer.readers_left -= 1;
            if buffer.readers_left == 1 {
                // Whoever has run already has a gain that nothing asks for any more.
                changes.extend(buffer.readers.iter().map(|reader| (*reader, buffer.bytes)));
            }
        }
        for owner in writes {
            let Some(buffer) = self.buffers.get_mut(owner) else { continue };
            if !std::mem::replace(&mut buffer.is_allocated, true) {
                changes.extend(buffer.writers.iter().map(|writer| (*writer, buffer.bytes)));
            }
        }
        changes.into_iter().for_each(|(index, bytes)| self.raise(index, bytes));
        Some(index)
    }

    fn raise(&mut self, index: usize, bytes: i64) {
        let first = self.clusters[index].nodes[0];
        self.freeing.remove(&(Reverse(self.gains[index]), first, index));
        self.gains[index] += bytes;
        if self.gains[index] > 0 && self.in_order.contains(&(first, index)) {
            self.freeing.insert((Reverse(self.gains[index]), first, index));
        }
    }
}
