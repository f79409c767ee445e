//! How much is alive at each launch, and what it is where that is most.

use graph::{Graph, NodeId};
use plan::Held;

use super::lives::Buffer;

/// Bytes alive at each of the launches, and after the last.
pub fn live(buffers: &[Buffer], launches: usize) -> Vec<usize> {
    // How much more is alive at each launch than at the one before.
    let mut changes = vec![0; launches + 2];
    for piece in buffers.iter().flat_map(|buffer| &buffer.pieces) {
        changes[piece.first] += piece.bytes as i64;
        changes[piece.last + 1] -= piece.bytes as i64;
    }
    let mut alive = 0;
    let totals = changes[..=launches].iter().map(|change| {
        alive += change;
        alive as usize
    });
    totals.collect()
}

/// The first launch with most bytes alive.
pub fn highest(live: &[usize]) -> usize {
    (0..live.len()).max_by_key(|at| (live[*at], std::cmp::Reverse(*at))).unwrap_or(0)
}

/// What is alive at a launch, the largest first.
pub fn held(graph: &Graph, buffers: &[Buffer], at: usize) -> Vec<Held> {
    let pieces = buffers.iter().flat_map(|buffer| &buffer.pieces);
    let mut held: Vec<(Held, NodeId)> = pieces
        .filter(|piece| piece.first <= at && at <= piece.last)
        .map(|piece| (Held { name: name(graph, piece.node), bytes: piece.bytes }, piece.node))
        .collect();
    held.sort_by_key(|(held, node)| (std::cmp::Reverse(held.bytes), *node));
    held.into_iter().map(|(held, _)| held).collect()
}

/// `layers.3.mlp: Erf [64,256,512]`, or the name of an input.
fn name(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    let scope = graph.scope_path(id);
    let dims = node.ty.dims.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let what = graph.names.get(&id).cloned().unwrap_or_else(|| node.op.to_string());
    format!("{}: {what} [{dims}]", if scope.is_empty() { "top level" } else { scope })
}
