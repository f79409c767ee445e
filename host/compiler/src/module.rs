//! What the passes hand on: the graph, then clusters, an order, addresses, and at last the plan.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

use graph::{Graph, NodeId};
use plan::{Plan, Slot, StateLayout};

/// Clone numbers with this bit belong to copies that `layout` placed; with [`RECOMPUTED`], to what `remat` computes
/// again for the cluster in the lower bits. Those without belong to isolated regions.
pub const COPY: u32 = 1 << 30;
pub const RECOMPUTED: u32 = 1 << 31;

/// State of a compilation. A field is filled by the pass that its doc names and read by later ones.
#[derive(Clone, Debug)]
pub struct Module {
    pub graph: Graph,
    pub states: StateLayout,
    /// Most bytes of the arena; None without a limit.
    pub budget: Option<usize>,
    /// `fuse` (one node each before): what becomes one launch.
    pub clusters: Vec<Cluster>,
    /// `schedule`: indices of `clusters` in launch order.
    pub order: Vec<usize>,
    /// `memory`: where the buffer of each owner node lies.
    pub slots: HashMap<NodeId, Slot>,
    /// `memory` fills the sizes, `lower` the rest.
    pub plan: Plan,
}

/// Kernel nodes that become one launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// In graph order.
    pub nodes: Vec<NodeId>,
    /// Index space of a tile cluster: that of its element nodes, before reduction.
    pub dims: Vec<usize>,
    /// Axes that its reductions fold; empty for a Map.
    pub reduced: Vec<usize>,
}

impl Module {
    pub fn new(name: &str, graph: Graph, states: StateLayout) -> Module {
        let plan = Plan {
            name: name.to_string(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            guards: Vec::new(),
            kernels: Vec::new(),
            launches: Vec::new(),
            arena_bytes: 0,
            block_bytes: 0,
            live_bytes: 0,
            peak: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
        };
        let (clusters, order) = (Vec::new(), Vec::new());
        Module { graph, states, budget: None, clusters, order, slots: HashMap::new(), plan }
    }
}

/// Index of the cluster that each kernel node belongs to.
pub fn cluster_of(clusters: &[Cluster]) -> HashMap<NodeId, usize> {
    let members = clusters.iter().enumerate();
    members.flat_map(|(index, cluster)| cluster.nodes.iter().map(move |node| (*node, index))).collect()
}

impl Cluster {
    /// Extents of a value that has one number per row.
    pub fn row_dims(&self) -> Vec<usize> {
        let extent = |(axis, dim): (usize, &usize)| if self.reduced.contains(&axis) { 1 } else { *dim };
        self.dims.iter().enumerate().map(extent).collect()
    }

    pub fn reduced_len(&self) -> usize {
        self.reduced.iter().map(|axis| self.dims[*axis]).product()
    }

    /// Whether the innermost real axis is kept while others are folded: columns are summed, not rows.
    pub fn folds_columns(&self) -> bool {
        let innermost = (0..self.dims.len()).rev().find(|axis| self.dims[*axis] > 1);
        !self.reduced.is_empty() && innermost.is_some_and(|axis| !self.reduced.contains(&axis))
    }
}

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.graph)?;
        for (index, cluster) in self.clusters.iter().enumerate() {
            let nodes: Vec<String> = cluster.nodes.iter().map(NodeId::to_string).collect();
            let (dims, reduced) = (&cluster.dims, &cluster.reduced);
            writeln!(f, "cluster {index} over {dims:?} folding {reduced:?}: {}", nodes.join(" "))?;
        }
        if !self.order.is_empty() {
            writeln!(f, "order {:?}", self.order)?;
        }
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_by_key(|(id, _)| **id);
        slots.iter().try_for_each(|(id, slot)| writeln!(f, "buffer {id} {slot}"))?;
        let plan = &self.plan;
        if !plan.peak.is_empty() {
            writeln!(f, "arena {} bytes, at the peak {} bytes alive:", plan.arena_bytes, plan.live_bytes)?;
            plan.peak.iter().try_for_each(|held| writeln!(f, "{:>12} {}", held.bytes, held.name))?;
        }
        if self.plan.launches.is_empty() { Ok(()) } else { write!(f, "{}", self.plan) }
    }
}
