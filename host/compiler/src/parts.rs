//! What is alive apart: a buffer as a whole, or each operand of a Concat that fills a range of its own.
//!
//! The gradients of a bank are one buffer, but the first of them is formed long before the last: until a part is
//! written its range is free for others, and it is free again once all that looks at the part has run.

use std::collections::{BTreeSet, HashMap};

use graph::{Graph, NodeId, Op};

use crate::Cluster;
use crate::analysis::{Analysis, Kind, Source};
use crate::fuse::is_stored;

/// Concats all of whose operands are ranges: for each, its operands' first elements and the nodes that compute them.
pub struct Parts {
    of: HashMap<NodeId, Vec<(usize, NodeId)>>,
}

impl Parts {
    pub fn new(graph: &Graph, analysis: &Analysis) -> Parts {
        let concats = graph.ids().filter(|id| graph.node(*id).op == Op::Concat);
        let owns = |id: &NodeId| analysis.source(*id).is_some_and(|source| source.owner == *id);
        let of = concats.filter(owns).filter_map(|id| Some((id, ranges(graph, analysis, id)?))).collect();
        Parts { of }
    }

    /// The ranges of a buffer: first element and node of each, in order. None where it is alive as a whole.
    pub fn of(&self, owner: NodeId) -> Option<&[(usize, NodeId)]> {
        self.of.get(&owner).map(Vec::as_slice)
    }

    /// What a cluster reads and what it writes, each named by the node that owns the buffer or computes the part.
    /// States and inputs are not among them: they are never freed.
    pub fn touched(
        &self,
        graph: &Graph,
        analysis: &Analysis,
        cluster: &Cluster,
    ) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let (mut reads, mut writes) = (BTreeSet::new(), BTreeSet::new());
        let is_scratch = |owner: NodeId| !matches!(analysis.kind(owner), Kind::Memory | Kind::Effect);
        for id in &cluster.nodes {
            for input in &graph.node(*id).inputs {
                if let Some(source) = analysis.source(*input)
                    && is_scratch(source.owner)
                    && cluster.nodes.binary_search(&analysis.through_views(graph, *input).0).is_err()
                {
                    self.read(graph.dims(*input), source, &mut reads);
                }
            }
            if is_stored(analysis, *id, cluster)
                && let Some(source) = analysis.source(*id)
                && is_scratch(source.owner)
            {
                writes.insert(if self.of.contains_key(&source.owner) { *id } else { source.owner });
            }
        }
        (reads, writes)
    }

    /// What of a buffer a view of these extents looks at.
    pub fn read(&self, dims: &[usize], source: &Source, found: &mut BTreeSet<NodeId>) {
        let Some(parts) = self.of(source.owner) else {
            found.insert(source.owner);
            return;
        };
        let first = source.view.offset;
        let reach: usize =
            dims.iter().zip(&source.view.strides).map(|(dim, stride)| (dim - 1) * stride).sum();
        let begin = parts.partition_point(|(start, _)| *start <= first) - 1;
        let end = parts.partition_point(|(start, _)| *start <= first + reach);
        found.extend(parts[begin..end].iter().map(|(_, node)| *node));
    }
}

/// None where an operand is spread over the buffer. A Concat within this one has operands of its own.
fn ranges(graph: &Graph, analysis: &Analysis, concat: NodeId) -> Option<Vec<(usize, NodeId)>> {
    let owner = analysis.source(concat)?.owner;
    let mut found = Vec::new();
    for part in &graph.node(concat).inputs {
        let mut root = *part;
        while graph.node(root).op == Op::Reshape {
            root = graph.node(root).inputs[0];
        }
        let source = analysis.source(root)?;
        if source.owner != owner || !source.view.is_contiguous(graph.dims(root)) {
            return None;
        }
        match graph.node(root).op {
            Op::Concat => found.extend(ranges(graph, analysis, root)?),
            _ => found.push((source.view.offset, root)),
        }
    }
    Some(found)
}
