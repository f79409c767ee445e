//! A sequence read in chunks, and what a chunk leaves for the next: caches of keys and values, memories that learn.
//!
//! Within a trace these are plain values, so gradients pass from chunk to chunk. What outlives the trace is `carry`'s.

use std::collections::{BTreeMap, BTreeSet};

use graph::{Graph, NodeId};

/// The sequences of one trace.
#[derive(Default)]
pub struct Sequence {
    /// The chunk being traced.
    chunk: Option<Chunk>,
    /// Memories by scope path and name, as the sequence read last has left them.
    pub memories: BTreeMap<String, NodeId>,
    /// Tokens of a chunk, where the sequence had more than one.
    pub chunk_tokens: Option<u64>,
}

#[derive(Default)]
struct Chunk {
    /// Position of its first token.
    start: u64,
    /// Value of each memory, by scope path and name.
    values: BTreeMap<String, NodeId>,
    /// Memories written since the chunk began.
    written: BTreeSet<String>,
}

impl Sequence {
    /// Begins the next chunk, or with `u64::MAX` ends the sequence.
    pub fn begin(&mut self, graph: &mut Graph, start: u64) -> NodeId {
        if start == u64::MAX {
            match self.chunk.take() {
                Some(chunk) => self.memories = chunk.values,
                None => return graph.fail(None, "ends chunks that were not begun", "use cx.chunks"),
            }
            return NodeId::POISON;
        }
        match &mut self.chunk {
            Some(chunk) if start > chunk.start => {
                self.chunk_tokens.get_or_insert(start);
                chunk.start = start;
                chunk.written.clear();
            }
            Some(_) => {
                let hint = "chunks follow one another, and a model reads one sequence in chunks at a time";
                return graph.fail(None, format!("begins a chunk at token {start} inside another"), hint);
            }
            none => *none = Some(Chunk { start, ..Chunk::default() }),
        }
        NodeId::POISON
    }

    /// Position of the first token of the chunk; 0 outside chunks.
    pub fn start(&self) -> u64 {
        self.chunk.as_ref().map_or(0, |chunk| chunk.start)
    }

    /// What an earlier chunk has left at a path, if one has.
    pub fn read(&self, path: &str) -> Option<NodeId> {
        self.chunk.as_ref()?.values.get(path).copied()
    }

    /// Leaves a value for later reads at a path. Outside chunks there is no later.
    pub fn write(&mut self, graph: &mut Graph, path: String, value: NodeId) -> NodeId {
        let Some(chunk) = &mut self.chunk else { return NodeId::POISON };
        if !chunk.written.insert(path.clone()) {
            let hint = "give each layer a scope of its own";
            return graph.fail(None, format!("writes the memory {path} twice in one chunk"), hint);
        }
        chunk.values.insert(path, value);
        NodeId::POISON
    }
}

/// Path of a memory of the current scope.
pub fn path(graph: &Graph, name: &str) -> String {
    match graph.current_scope() {
        "" => name.to_string(),
        scope => format!("{scope}.{name}"),
    }
}
