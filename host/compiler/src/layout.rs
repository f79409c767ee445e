//! Makes every movement a view: inserts a Copy wherever strides cannot say what an op needs.
//!
//! Afterwards each Reshape, Permute, Broadcast and Slice is a strided view of a buffer; each Pad is a Concat; each
//! operand of a Concat can be computed into the joint buffer; each Dot is a matrix product over strides; what Write
//! reads is a Copy of its own, which may be computed into the State; what Output and ScatterAdd read is contiguous.
//! Attention and the delta rule read any view.

use std::collections::{HashMap, HashSet};

use graph::attributes::pairs;
use graph::{Class, Graph, Node, NodeId, Op, live, rewrite};
use plan::DeviceCaps;

use crate::Module;
use crate::module::COPY;
use crate::view::View;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let pads_gone = rewrite(&module.graph, |graph, node, inputs| match node.op {
        Op::Pad => concat_instead(graph, node, inputs[0]),
        _ => graph.emit(node.op, inputs, &node.ints, &node.floats),
    });
    let mut layout = Layout { uses: uses(&pads_gone), ..Layout::default() };
    module.graph = rewrite(&pads_gone, |graph, node, inputs| layout.emit(graph, node, inputs));
    Ok(())
}

/// How many live nodes use each node.
fn uses(graph: &Graph) -> Vec<usize> {
    let live = live(graph);
    let mut uses = vec![0; graph.nodes.len()];
    for id in graph.ids().filter(|id| live[id.index()]) {
        graph.node(id).inputs.iter().for_each(|input| uses[input.index()] += 1);
    }
    uses
}

/// x between blocks of the fill value, one axis after another.
fn concat_instead(graph: &mut Graph, node: &Node, mut x: NodeId) -> NodeId {
    for (axis, (before, after)) in pairs(&node.ints).into_iter().enumerate() {
        let ty = graph.ty(x).clone();
        let mut block = |extent: usize| {
            let mut dims = ty.dims.clone();
            dims[axis] = extent;
            (extent > 0).then(|| graph.constant(node.floats[0], ty.dtype, &dims))
        };
        let parts: Vec<NodeId> = [block(before), Some(x), block(after)].into_iter().flatten().collect();
        x = graph.emit(Op::Concat, &parts, &[axis as i64], &[]);
    }
    x
}

#[derive(Default)]
struct Layout {
    /// Uses of each old node.
    uses: Vec<usize>,
    /// View of each new node in its buffer, as far as it is known to be one.
    views: HashMap<NodeId, View>,
    /// Nodes that are computed into a joint buffer already.
    placed: HashSet<NodeId>,
    /// What operands of attentions and delta rules are read from.
    written_out: HashMap<NodeId, NodeId>,
    copies: u32,
}

impl Layout {
    fn emit(&mut self, graph: &mut Graph, node: &Node, inputs: &[NodeId]) -> NodeId {
        let plain =
            |graph: &mut Graph, inputs: &[NodeId]| graph.emit(node.op, inputs, &node.ints, &node.floats);
        match node.op {
            Op::Reshape | Op::Permute | Op::Broadcast | Op::Slice => {
                let mut x = self.in_memory(graph, inputs[0]);
                if node.op == Op::Reshape
                    && self.view(graph, x).reshape(graph.dims(x), &node.ty.dims).is_none()
                {
                    x = self.copy(graph, x);
                }
                plain(graph, &[x])
            }
            Op::Gather => {
                let inputs = [self.in_memory(graph, inputs[0]), self.in_memory(graph, inputs[1])];
                plain(graph, &inputs)
            }
            Op::Dot => {
                let axes = node.dot_axes(graph.ty(inputs[0]).rank(), graph.ty(inputs[1]).rank());
                let x = self.matrix(graph, inputs[0], [&axes.batch.0, &axes.free.0, &axes.contract.0], false);
                let y = self.matrix(graph, inputs[1], [&axes.batch.1, &axes.free.1, &axes.contract.1], true);
                let columns = node.ty.rank() - axes.free.1.len();
                let c = inputs.get(2).map(|c| self.addend(graph, *c, columns));
                plain(graph, &[x, y].into_iter().chain(c).collect::<Vec<_>>())
            }
            Op::Attention | Op::AttentionLse | Op::AttentionGrad => {
                let mut inputs: Vec<NodeId> = inputs.iter().map(|x| self.written_out(graph, *x)).collect();
                if node.op == Op::AttentionGrad {
                    let lse = inputs.len() - 2;
                    inputs[lse] = self.contiguous(graph, inputs[lse]);
                }
                plain(graph, &inputs)
            }
            Op::GatedDeltaRule | Op::GatedDeltaRuleGrad => {
                let inputs: Vec<NodeId> = inputs.iter().map(|x| self.written_out(graph, *x)).collect();
                plain(graph, &inputs)
            }
            Op::ScatterAdd => {
                let inputs = [self.contiguous(graph, inputs[0]), self.contiguous(graph, inputs[1])];
                plain(graph, &inputs)
            }
            Op::Concat => {
                let parts: Vec<NodeId> = inputs
                    .iter()
                    .zip(&node.inputs)
                    .map(|(new, old)| self.part(graph, *new, *old, node))
                    .collect();
                plain(graph, &parts)
            }
            Op::Write => {
                let copy = self.copy(graph, inputs[0]);
                plain(graph, &[copy])
            }
            Op::Output => {
                let computed = graph.class(root(graph, inputs[0])) != Class::Leaf;
                let ready = computed && self.is_contiguous(graph, inputs[0]);
                let x = if ready { inputs[0] } else { self.copy(graph, inputs[0]) };
                plain(graph, &[x])
            }
            _ => plain(graph, inputs),
        }
    }

    /// A Copy that no other use shares: what it writes can be placed freely.
    fn copy(&mut self, graph: &mut Graph, x: NodeId) -> NodeId {
        self.copies += 1;
        graph.in_clone(COPY | self.copies, |graph| graph.emit(Op::Copy, &[x], &[], &[]))
    }

    /// Constants and indices lie in no buffer; a view of one needs it written out. (Most such views fold.)
    fn in_memory(&mut self, graph: &mut Graph, x: NodeId) -> NodeId {
        if matches!(graph.node(x).op, Op::Const | Op::Iota) { self.copy(graph, x) } else { x }
    }

    /// [`Layout::in_memory`] with one copy for all who ask: launches that join have the same operands.
    fn written_out(&mut self, graph: &mut Graph, x: NodeId) -> NodeId {
        if let Some(copy) = self.written_out.get(&x) {
            return *copy;
        }
        let copy = self.in_memory(graph, x);
        self.written_out.insert(x, copy);
        copy
    }

    fn view(&mut self, graph: &Graph, id: NodeId) -> View {
        if let Some(view) = self.views.get(&id) {
            return view.clone();
        }
        let node = graph.node(id);
        let movement = matches!(node.op, Op::Reshape | Op::Permute | Op::Broadcast | Op::Slice);
        let moved = movement.then(|| self.view(graph, node.inputs[0]).moved(graph, node)).flatten();
        let view = moved.unwrap_or_else(|| View::of_kernel(graph, node));
        self.views.insert(id, view.clone());
        view
    }

    fn is_contiguous(&mut self, graph: &Graph, id: NodeId) -> bool {
        self.view(graph, id).is_contiguous(graph.dims(id))
    }

    fn contiguous(&mut self, graph: &mut Graph, id: NodeId) -> NodeId {
        let id = self.in_memory(graph, id);
        if self.is_contiguous(graph, id) { id } else { self.copy(graph, id) }
    }

    /// An operand of a Concat is computed in place if one kernel computes it and no other Concat has claimed it. A
    /// place with strides is only for a tile kernel's result that nothing else looks at.
    fn part(&mut self, graph: &mut Graph, part: NodeId, old: NodeId, concat: &Node) -> NodeId {
        let axis = concat.ints[0] as usize;
        let in_one_piece = concat.ty.dims[..axis].iter().all(|dim| *dim == 1);
        let root = if in_one_piece { unshaped(graph, part) } else { part };
        let fits = match graph.class(root) {
            Class::Elementwise | Class::Reduce => in_one_piece || self.uses[old.index()] == 1,
            Class::Contraction | Class::Indexing => in_one_piece,
            _ => false,
        };
        if fits && self.placed.insert(root) {
            return part;
        }
        let copy = self.copy(graph, part);
        self.placed.insert(copy);
        copy
    }

    /// An operand of a Dot as a matrix: its contracted axes collapse to one stride, and so do its free axes where
    /// `free_too` (outer free axes of the left operand may become batch axes instead). Else a copy with the axes in
    /// the order [batch, free, contract].
    fn matrix(&mut self, graph: &mut Graph, x: NodeId, groups: [&[usize]; 3], free_too: bool) -> NodeId {
        let x = self.in_memory(graph, x);
        let view = self.view(graph, x);
        let collapses = |axes: &[usize]| view.collapse(graph.dims(x), axes.iter().copied()).is_some();
        if collapses(groups[2]) && (!free_too || collapses(groups[1])) {
            return x;
        }
        let order = groups.concat();
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(to, from)| back[*from] = to as i64);
        let order: Vec<i64> = order.iter().map(|axis| *axis as i64).collect();
        let turned = graph.emit(Op::Permute, &[x], &order, &[]);
        let copy = self.copy(graph, turned);
        graph.emit(Op::Permute, &[copy], &back, &[])
    }

    /// What a Dot adds to its product: the axes from `columns` on collapse to one stride, as those of the result do.
    /// (Its outer axes may become batch axes.)
    fn addend(&mut self, graph: &mut Graph, c: NodeId, columns: usize) -> NodeId {
        let c = self.in_memory(graph, c);
        let dims = graph.dims(c);
        let collapses = self.view(graph, c).collapse(dims, columns..dims.len()).is_some();
        if collapses { c } else { self.copy(graph, c) }
    }
}

/// The node below a chain of reshapes.
fn unshaped(graph: &Graph, mut id: NodeId) -> NodeId {
    while graph.node(id).op == Op::Reshape {
        id = graph.node(id).inputs[0];
    }
    id
}

fn root(graph: &Graph, mut id: NodeId) -> NodeId {
    while matches!(graph.node(id).op, Op::Reshape | Op::Permute | Op::Broadcast | Op::Slice) {
        id = graph.node(id).inputs[0];
    }
    id
}
