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

/// How names of States begin that hold memories.
pub const MEMORY: &str = "memory.";

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
            Lasting::Stream { of, .. } => format!("{MEMORY}{of}.{path}"),
            _ => format!("{MEMORY}{path}"),
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
        cleared(graph, fresh, state)
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

    /// Whether anything is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.values().any(|(_, value)| value.is_some())
    }

    /// Writes what is kept of the rows whose memories are all finite: in training where `finite` (bool[]) holds, in a
    /// session of the rows the call is for. A row that starts a new text and keeps nothing keeps zeros, not what the
    /// text before has left.
    pub(super) fn write(&self, graph: &mut Graph, finite: Option<NodeId>) {
        let kept: Vec<(NodeId, NodeId)> =
            self.kept.values().filter_map(|(state, value)| Some((*state, (*value)?))).collect();
        let (Some(rows), false) = (self.rows(), kept.is_empty()) else { return };
        let wanted = match (self.lasting, finite) {
            (Lasting::Session { .. }, _) => {
                let wanted = graph.input(ROWS, Ty::new(DType::I32, &[rows]));
                Builder::with(graph, |b| {
                    let wanted = b.var(wanted);
                    wanted.constant(0.0).binary(Op::Lt, wanted).id
                })
            }
            (_, Some(finite)) => Builder::with(graph, |b| b.var(finite).reshape(&[1]).broadcast(&[rows]).id),
            (_, None) => Builder::with(graph, |b| b.constant(1.0, &Ty::new(DType::Bool, &[rows])).id),
        };
        let sound = sound(graph, rows, kept.iter().map(|(_, value)| *value));
        let changes = graph.emit(Op::And, &[wanted, sound], &[], &[]);
        for (state, value) in kept {
            let old = self.begun(graph, state);
            let guarded = by_row(graph, changes, state, |b, changes| {
                let (old, new) = (b.var(old), b.var(value));
                changes.select(new, old).id
            });
            graph.write(state, guarded);
        }
    }
}

/// Which rows hold finite numbers only, bool`[B]`. A sum of numbers that are not all finite is not finite; that of
/// numbers near the end of f32 may be called so too.
fn sound(graph: &mut Graph, rows: usize, values: impl Iterator<Item = NodeId>) -> NodeId {
    Builder::with(graph, |b| {
        let sums = values.map(|value| {
            let value = b.var(value);
            let axes: Vec<usize> = (1..value.dims().len()).collect();
            value.sum(&axes).reshape(&[rows])
        });
        let zero = b.constant(0.0, &Ty::new(DType::F32, &[rows]));
        is_finite(sums.fold(zero, |total, sum| total + sum)).id
    })
}

/// A State with zeros in the rows that are flagged (i32`[B]`, 1 or 0).
pub(super) fn cleared(graph: &mut Graph, flags: NodeId, state: NodeId) -> NodeId {
    let flagged = Builder::with(graph, |b| {
        let flags = b.var(flags);
        flags.constant(0.0).binary(Op::Lt, flags).id
    });
    by_row(graph, flagged, state, |b, flagged| {
        let value = b.var(state);
        flagged.select(value.constant(0.0), value).id
    })
}

/// Builds with a flag of each row, bool`[B]`, repeated to the shape of `like`.
fn by_row(
    graph: &mut Graph,
    flags: NodeId,
    like: NodeId,
    build: impl FnOnce(&Builder, graph::Var<'_>) -> NodeId,
) -> NodeId {
    let dims = graph.dims(like).to_vec();
    Builder::with(graph, |b| {
        let mut shape = vec![1; dims.len()];
        shape[0] = dims[0];
        let flags = b.var(flags).reshape(&shape).broadcast(&dims);
        build(b, flags)
    })
}
