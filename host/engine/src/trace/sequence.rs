//! A sequence read in chunks, and what a chunk leaves for the next: caches of keys and values, memories that learn.
//!
//! Within a trace these are plain values, so gradients pass from chunk to chunk.

use std::collections::{BTreeMap, BTreeSet};

use graph::NodeId;

use super::tracer::State;

/// The chunk being traced.
#[derive(Default)]
pub(super) struct Chunk {
    /// Position of its first token.
    pub(super) start: u64,
    /// Value of each memory, by scope path and name.
    values: BTreeMap<String, NodeId>,
    /// Memories written since the chunk began.
    written: BTreeSet<String>,
}

/// Begins the next chunk, or with `u64::MAX` ends the sequence.
pub(super) fn begin(state: &mut State<'_>, start: u64) -> NodeId {
    if start == u64::MAX {
        match state.chunk.take() {
            Some(chunk) => state.memories = chunk.values,
            None => return state.graph.fail(None, "ends chunks that were not begun", "use cx.chunks"),
        }
        return NodeId::POISON;
    }
    match &mut state.chunk {
        Some(chunk) if start > chunk.start => {
            chunk.start = start;
            chunk.written.clear();
        }
        Some(_) => {
            let hint = "chunks follow one another, and a model reads one sequence in chunks at a time";
            return state.graph.fail(None, format!("begins a chunk at token {start} inside another"), hint);
        }
        none => *none = Some(Chunk { start, ..Chunk::default() }),
    }
    NodeId::POISON
}

fn path(state: &State<'_>, name: &str) -> String {
    format!("{}.{name}", state.graph.current_scope())
}

/// What an earlier chunk has left here, if one has.
pub(super) fn read(state: &State<'_>, name: &str) -> Option<NodeId> {
    state.chunk.as_ref()?.values.get(&path(state, name)).copied()
}

/// Leaves a value for later reads under this name in this scope. Outside chunks there is no later.
pub(super) fn write(state: &mut State<'_>, name: &str, value: NodeId) -> NodeId {
    let path = path(state, name);
    let Some(chunk) = &mut state.chunk else { return NodeId::POISON };
    if !chunk.written.insert(path.clone()) {
        let hint = "give each layer a scope of its own";
        return state.graph.fail(None, format!("writes the memory {path} twice in one chunk"), hint);
    }
    chunk.values.insert(path, value);
    NodeId::POISON
}
