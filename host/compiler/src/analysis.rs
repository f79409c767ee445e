//! What each node becomes, where its value lies, and which kernels wait for which.

use std::collections::HashMap;

use graph::{Class, Graph, NodeId, Op};

use crate::guard::Guards;
use crate::joined::joined;
use crate::view::View;

/// What a node becomes in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Input or State: memory that is there before the first launch.
    Memory,
    /// A constant, an index, or cheap arithmetic on those: computed again wherever it is used.
    Free,
    /// A strided view of another node's buffer.
    View,
    /// Part of a tile kernel.
    Tile,
    Gemm,
    Scatter,
    /// A result of a hand kernel, or the node that has several.
    Attention,
    CrossEntropy,
    /// One result of a delta rule, forward or backward, or the node that has several.
    Delta,
    /// Owns a buffer that its operands are computed into.
    Concat,
    /// Write or Output.
    Effect,
}

/// The buffer (by its owner node) and view in which a node's value lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub owner: NodeId,
    pub view: View,
}

/// Facts about a laid-out graph, computed once per pass that needs them.
pub struct Analysis {
    pub kinds: Vec<Kind>,
    pub sources: Vec<Option<Source>>,
    /// Nodes that use each node, in order, directly.
    pub users: Vec<Vec<NodeId>>,
    /// Kernel nodes each kernel node must wait for: operands through views and concatenations, and readers of the
    /// State it overwrites.
    pub waits: Vec<Vec<NodeId>>,
    /// For the node that Write reads: the State it is computed into.
    pub written: HashMap<NodeId, NodeId>,
    pub guards: Guards,
    /// The node whose launch computes a node of a hand kernel as well: its first in graph order.
    pub joined: HashMap<NodeId, NodeId>,
}

impl Kind {
    pub fn is_kernel(self) -> bool {
        use Kind::{Attention, CrossEntropy, Delta, Gemm, Scatter, Tile};
        matches!(self, Tile | Gemm | Scatter | Attention | CrossEntropy | Delta)
    }
}

/// Ops cheaper to repeat than to read back.
fn is_cheap(op: Op) -> bool {
    use Op::{Copy, Cos, Erf, Exp, Log, Rand, Rem, Sin, Tanh};
    !matches!(op, Exp | Log | Sin | Cos | Tanh | Erf | Rem | Rand | Copy)
}

impl Analysis {
    pub fn new(graph: &Graph) -> Analysis {
        let mut users = vec![Vec::new(); graph.nodes.len()];
        for id in graph.ids() {
            for input in &graph.node(id).inputs {
                users[input.index()].push(id);
            }
        }
        let kinds = kinds(graph, &users);
        let states: HashMap<i64, NodeId> = graph
            .ids()
            .filter(|id| graph.node(*id).op == Op::State)
            .map(|id| (graph.node(id).ints[0], id))
            .collect();
        let mut written = HashMap::new();
        for id in graph.ids().filter(|id| graph.node(*id).op == Op::Write) {
            let node = graph.node(id);
            // A State that is only written has no node; the write itself then names it.
            written.insert(node.inputs[0], states.get(&node.ints[0]).copied().unwrap_or(id));
        }
        let guards = Guards::new(graph);
        let joined = joined(graph, &guards);
        let (sources_later, waits_later) = (Vec::new(), Vec::new());
        let mut analysis =
            Analysis { kinds, sources: sources_later, users, waits: waits_later, written, guards, joined };
        analysis.sources = sources(graph, &analysis);
        analysis.waits = waits(graph, &analysis);
        analysis
    }

    pub fn kind(&self, id: NodeId) -> Kind {
        self.kinds[id.index()]
    }

    /// Where the value of `id` lies. Free nodes and effects lie nowhere.
    pub fn source(&self, id: NodeId) -> Option<&Source> {
        self.sources[id.index()].as_ref()
    }

    /// The node whose kernel computes the value seen through views, and whether the way there was broadcasts only.
    pub fn through_views(&self, graph: &Graph, mut id: NodeId) -> (NodeId, bool) {
        let mut plain = true;
        while self.kind(id) == Kind::View {
            plain &= graph.node(id).op == Op::Broadcast;
            id = graph.node(id).inputs[0];
        }
        (id, plain)
    }

    /// Kernel nodes in graph order.
    pub fn kernels(&self, graph: &Graph) -> impl Iterator<Item = NodeId> + use<'_> {
        graph.ids().filter(|id| self.kind(*id).is_kernel())
    }
}

/// Whether its results are read through Result.
fn has_several(op: Op) -> bool {
    use Op::{AttentionGrad, GatedDeltaRule, GatedDeltaRuleGrad, LinearCrossEntropyGrad};
    matches!(op, AttentionGrad | GatedDeltaRule | GatedDeltaRuleGrad | LinearCrossEntropyGrad)
}

fn kinds(graph: &Graph, users: &[Vec<NodeId>]) -> Vec<Kind> {
    let mut kinds = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let kind = match node.op {
            Op::Input | Op::State => Kind::Memory,
            Op::Const | Op::Iota => Kind::Free,
            Op::Reshape | Op::Permute | Op::Broadcast | Op::Slice => Kind::View,
            Op::Concat => Kind::Concat,
            Op::Dot => Kind::Gemm,
            Op::ScatterAdd => Kind::Scatter,
            Op::Attention | Op::AttentionLse | Op::AttentionGrad => Kind::Attention,
            Op::LinearCrossEntropy | Op::LinearCrossEntropyGrad => Kind::CrossEntropy,
            Op::GatedDeltaRule | Op::GatedDeltaRuleGrad => Kind::Delta,
            // Scan and When are unrolled, other composites decomposed: only those have several results.
            Op::Result => kinds[node.inputs[0].index()],
            Op::Write | Op::Output => Kind::Effect,
            op => {
                let direct = |user: &NodeId| matches!(graph.class(*user), Class::Elementwise | Class::Reduce);
                let free = op.row().class == Class::Elementwise
                    && is_cheap(op)
                    && node.inputs.iter().all(|input| kinds[input.index()] == Kind::Free)
                    && users[id.index()].iter().all(direct);
                if free { Kind::Free } else { Kind::Tile }
            }
        };
        kinds.push(kind);
    }
    kinds
}

/// Operands of a Concat are computed into its buffer, which may lie within another's; what `Write` reads is computed
/// into its State.
fn sources(graph: &Graph, analysis: &Analysis) -> Vec<Option<Source>> {
    let mut placed: HashMap<NodeId, Source> = HashMap::new();
    for id in graph.ids().rev().filter(|id| graph.node(*id).op == Op::Concat) {
        let node = graph.node(id);
        let axis = node.ints[0] as usize;
        let own = || Source { owner: id, view: View::of_kernel(graph, node) };
        let Source { owner, view: whole } = placed.get(&id).cloned().unwrap_or_else(own);
        let mut start = 0;
        for part in &node.inputs {
            let mut starts = vec![0; node.ty.rank()];
            starts[axis] = start;
            start += graph.dims(*part)[axis];
            let mut view = whole.slice(&starts);
            let mut root = *part;
            while graph.node(root).op == Op::Reshape {
                root = graph.node(root).inputs[0];
                view.strides = View::contiguous(graph.dims(root)).strides;
            }
            placed.insert(root, Source { owner, view });
        }
    }
    let mut sources: Vec<Option<Source>> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let inner = || node.inputs.first().and_then(|input| sources[input.index()].clone());
        let source = match analysis.kind(id) {
            Kind::Free | Kind::Effect => None,
            _ if has_several(node.op) => None,
            Kind::View => inner().and_then(|Source { owner, view }| {
                view.moved(graph, node).map(|view| Source { owner, view })
            }),
            _ => Some(match (analysis.written.get(&id), placed.get(&id)) {
                (Some(state), _) => Source { owner: *state, view: View::contiguous(&node.ty.dims) },
                (None, Some(place)) => place.clone(),
                (None, None) => Source { owner: id, view: View::of_kernel(graph, node) },
            }),
        };
        sources.push(source);
    }
    sources
}

fn waits(graph: &Graph, analysis: &Analysis) -> Vec<Vec<NodeId>> {
    let mut waits: Vec<Vec<NodeId>> = vec![Vec::new(); graph.nodes.len()];
    let mut readers: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    for id in analysis.kernels(graph) {
        let mut pending = graph.node(id).inputs.clone();
        while let Some(input) = pending.pop() {
            match analysis.kind(input) {
                kind if kind.is_kernel() => waits[id.index()].push(input),
                Kind::View | Kind::Concat => pending.extend(&graph.node(input).inputs),
                Kind::Memory => readers.entry(input).or_default().push(id),
                Kind::Free => pending.extend(&graph.node(input).inputs),
                _ => {}
            }
        }
    }
    for (writer, state) in &analysis.written {
        let before = readers.get(state).into_iter().flatten().filter(|reader| *reader != writer);
        waits[writer.index()].extend(before.copied());
    }
    for list in &mut waits {
        list.sort_unstable();
        list.dedup();
    }
    waits
}
