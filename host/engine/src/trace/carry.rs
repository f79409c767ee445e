//! Memories that outlive a trace: States that hold, for each row of the batch, what a memory has become beyond its start.
//!
//! In a streaming run rows read text after text, window by window: the inputs `stream.read` and `stream.fresh`, i32`[B]`,
//! say how many tokens of its text a row has read before, and whether it starts a new one. In a session everything
//! lasts, and `context.start` is how many tokens a row's context holds already.

use std::collections::BTreeMap;

use graph::{Builder, DType, Graph, NodeId, Op, Ty};
use plugin_api::abi::lifetime;

use super::update::is_finite;

/// Tokens that each row's memories have learned from before.
pub const STREAM_READ: &str = "stream.read";
/// 1 where a row starts a new text, else 0.
pub const STREAM_FRESH: &str = "stream.fresh";
/// Position of the first token read now in each row's context.
pub const CONTEXT_START: &str = "context.start";
/// 1 for the rows that a call of a session is for, else 0.
pub const ROWS: &str = "rows";

/// How long memories of a trace last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// To its end.
    Trace,
    /// Those of lifetime Stream through a row's text. States are named after what reads: training, evaluation.
    Stream { rows: usize, of: &'static str },
    /// All of them, until the session resets a row. A context holds `capacity` tokens.
    Session { rows: usize, capacity: usize },
}

/// The States of one trace.
pub(super) struct Carry {
    lasting: Lasting,
    /// By path: the State, as declared, and the value to keep.
    kept: BTreeMap<String, (NodeId, Option<NodeId>)>,
}

impl Carry {
    pub(super) fn new(lasting: Lasting) -> Carry {
        Carry { lasting, kept: BTreeMap::new() }
    }

    pub(super) fn outlives(&self, of: u8) -> bool {
        match self.lasting {
            Lasting::Trace => false,
            Lasting::Stream { .. } => of == lifetime::STREAM,
            Lasting::Session { .. } => true,
        }
    }

    fn rows(&self) -> Option<usize> {
        match self.lasting {
            Lasting::Trace => None,
            Lasting::Stream { rows, .. } | Lasting::Session { rows, .. } => Some(rows),
        }
    }

    /// What was kept at a path, `[B, dims...]`; zeros where a row starts a new text.
    pub(super) fn state(&mut self, graph: &mut Graph, path: &str, dims: &[usize]) -> NodeId {
        let Some(rows) = self.rows() else { return NodeId::POISON };
        let ty = Ty::new(DType::F32, &[&[rows], dims].concat());
        let name = match self.lasting {
            Lasting::Stream { of, .. } => format!("memory.{of}.{path}"),
            _ => format!("memory.{path}"),
        };
        let state = match self.kept.get(path) {
            Some((state, _)) => *state,
            None => graph.outside_regions(|graph| graph.state(&name, ty.clone())),
        };
        if graph.ty(state) != &ty {
            let message = format!("memory {path} is {} and asked for again as {ty}", graph.ty(state));
            return graph.fail(None, message, "use another name or scope");
        }
        self.kept.entry(path.to_string()).or_insert((state, None));
        graph.outside_regions(|graph| self.begun(graph, state))
    }

    /// A State as the trace finds it: zeros where a row starts a new text.
    fn begun(&self, graph: &mut Graph, state: NodeId) -> NodeId {
        let Lasting::Stream { rows, .. } = self.lasting else { return state };
        let fresh = graph.input(STREAM_FRESH, Ty::new(DType::I32, &[rows]));
        by_row(graph, fresh, state, |b, fresh| {
            let value = b.var(state);
            fresh.select(value.constant(0.0), value).id
        })
    }

    /// Keeps a value for later traces; the last call for a path counts.
    pub(super) fn keep(&mut self, graph: &mut Graph, path: &str, value: NodeId) -> NodeId {
        let Some((state, kept)) = self.kept.get_mut(path) else {
            return graph.fail(
                None,
                format!("keeps the memory {path}, which was not asked for"),
                "use cx.fast",
            );
        };
        if value == NodeId::POISON {
            return value;
        }
        if graph.ty(*state) != graph.ty(value) {
            let (state, value) = (graph.describe(*state), graph.describe(value));
            return graph.fail(
                None,
                format!("cannot keep {value} in memory {path}, {state}"),
                "a memory keeps its shape",
            );
        }
        *kept = Some(value);
        value
    }

    /// The input that says how many tokens each row has read before.
    pub(super) fn read(&self, graph: &mut Graph) -> Option<NodeId> {
        let rows = self.rows()?;
        Some(graph.outside_regions(|graph| graph.input(STREAM_READ, Ty::new(DType::I32, &[rows]))))
    }

    /// In a session: the input that says where each row's context stands.
    pub(super) fn context(&self, graph: &mut Graph) -> Option<NodeId> {
        let Lasting::Session { rows, .. } = self.lasting else { return None };
        Some(graph.outside_regions(|graph| graph.input(CONTEXT_START, Ty::new(DType::I32, &[rows]))))
    }

    pub(super) fn capacity(&self) -> usize {
        match self.lasting {
            Lasting::Session { capacity, .. } => capacity,
            _ => 0,
        }
    }

    /// Writes what is kept: all of it where `finite` (bool[]) holds, in a session the rows it is for whose new value is
    /// finite. Where it does not hold, a row that starts a new text keeps zeros and not what the text before has left.
    pub(super) fn write(&self, graph: &mut Graph, finite: Option<NodeId>) {
        for (state, value) in self.kept.values() {
            let Some(value) = *value else { continue };
            let guarded = match (self.lasting, finite) {
                (Lasting::Session { rows, .. }, _) => {
                    let wanted = graph.input(ROWS, Ty::new(DType::I32, &[rows]));
                    by_row(graph, wanted, *state, |b, wanted| {
                        let (old, new) = (b.var(*state), b.var(value));
                        let axes: Vec<usize> = (1..old.dims().len()).collect();
                        // A sum of numbers that are not all finite is not finite, up to an overflow of its own.
                        let sound = is_finite(new.sum(&axes)).broadcast(&old.dims());
                        wanted.binary(Op::And, sound).select(new, old).id
                    })
                }
                (_, Some(finite)) => {
                    let old = self.begun(graph, *state);
                    Builder::with(graph, |b| {
                        let (old, new) = (b.var(old), b.var(value));
                        b.var(finite).like(old).select(new, old).id
                    })
                }
                (_, None) => value,
            };
            graph.write(*state, guarded);
        }
    }
}

/// Builds with a flag of each row (i32`[B]`, 1 or 0) as bool of the shape of `like`.
fn by_row(
    graph: &mut Graph,
    flags: NodeId,
    like: NodeId,
    build: impl FnOnce(&Builder, graph::Var<'_>) -> NodeId,
) -> NodeId {
    let dims = graph.dims(like).to_vec();
    Builder::with(graph, |b| {
        let flags = b.var(flags);
        let mut shape = vec![1; dims.len()];
        shape[0] = dims[0];
        let flags = flags.constant(0.0).binary(Op::Lt, flags).reshape(&shape).broadcast(&dims);
        build(b, flags)
    })
}
