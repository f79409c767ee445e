//! Makes every movement a view: inserts a Copy wherever strides cannot say what an op needs.
//!
//! Afterwards each Reshape, Permute, Broadcast and Slice is a strided view of a buffer; each Pad is a Concat; each
//! operand of a Concat can be computed into the joint buffer; each Dot is a matrix product over strides; what Write
//! reads is a Copy of its own, which may be computed into the State; what Output and ScatterAdd read is contiguous.
//! Attention and the delta rule read any view; cross-entropy reads rows whose elements are side by side.

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
    let mut layout = Layout { uses: uses(&pads_gone), nested: nested(&pads_gone), ..Layout::default() };
    let live = live(&pads_gone);
    let mut order = pads_gone.ids().filter(|id| live[id.index()]);
    module.graph = rewrite(&pads_gone, |graph, node, inputs| {
        let old = order.next().expect("rewrite visits live nodes in order");
        let new = layout.emit(graph, old, node, inputs);
        if let Some(nested) = layout.nested.get(&old) {
            layout.views.insert(new, nested.view.clone());
        }
        new
    });
    Ok(())
}

/// A Concat that lies within another.
struct Nested {
    outer: NodeId,
    /// Its view in the buffer of the outermost.
    view: View,
}

/// What grows along an axis (keys and values that are kept, the products of a memory's writes) is a Concat of all
/// before and something new, again and again. Each lies within the next, so nothing is moved when it grows.
fn nested(graph: &Graph) -> HashMap<NodeId, Nested> {
    let live = live(graph);
    let mut nested: HashMap<NodeId, Nested> = HashMap::new();
    // Who reads a Concat comes after it, so the outermost is met first.
    for outer in graph.ids().rev().filter(|id| live[id.index()] && graph.node(*id).op == Op::Concat) {
        let node = graph.node(outer);
        let whole =
            nested.get(&outer).map_or_else(|| View::of_kernel(graph, node), |found| found.view.clone());
        let axis = node.ints[0] as usize;
        let mut start = 0;
        for part in &node.inputs {
            let mut starts = vec![0; node.ty.rank()];
            starts[axis] = start;
            start += graph.dims(*part)[axis];
            let along = graph.node(*part);
            if along.op == Op::Concat && along.ints[0] == node.ints[0] {
                nested.entry(*part).or_insert_with(|| Nested { outer, view: whole.slice(&starts) });
            }
        }
    }
    nested
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
    /// Old nodes that lie within another Concat.
    nested: HashMap<NodeId, Nested>,
    /// View of each new node in its buffer, as far as it is known to be one.
    views: HashMap<NodeId, View>,
    /// Nodes that are computed into a joint buffer already.
    placed: HashSet<NodeId>,
    /// What operands of attentions and delta rules are read from.
    written_out: HashMap<NodeId, NodeId>,
    /// Operands of cross-entropies as rows, by node and rank.
    rows: HashMap<(NodeId, usize), NodeId>,
    copies: u32,
}

impl Layout {
    fn emit(&mut self, graph: &mut Graph, old: NodeId, node: &Node, inputs: &[NodeId]) -> NodeId {
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
            Op::LinearCrossEntropy | Op::LinearCrossEntropyGrad => {
                let width = graph.dims(inputs[1])[1];
                let matrices = [0, 1].map(|index: usize| self.rows(graph, inputs[index], Some(width)));
                let numbers = inputs[2..].iter().map(|x| self.rows(graph, *x, None));
                let inputs: Vec<NodeId> = matrices.into_iter().chain(numbers).collect();
                let result = plain(graph, &inputs);
                reshaped(graph, node, result)
            }
            Op::Result => {
                let result = plain(graph, inputs);
                reshaped(graph, node, result)
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
                    .map(|(part, old_part)| self.part(graph, *part, *old_part, (old, node)))
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

    /// All of x as rows of `width`, the elements of a row side by side; without a width as numbers one stride apart. One
    /// for all who ask, as launches that join have the same operands.
    fn rows(&mut self, graph: &mut Graph, x: NodeId, width: Option<usize>) -> NodeId {
        let count = graph.ty(x).elements();
        let dims = width.map_or(vec![count], |width| vec![count / width, width]);
        let key = (x, dims.len());
        if let Some(rows) = self.rows.get(&key) {
            return *rows;
        }
        let mut source = self.in_memory(graph, x);
        let view = self.view(graph, source).reshape(graph.dims(source), &dims);
        let fits = view.is_some_and(|view| width.is_none_or(|width| width == 1 || view.strides[1] == 1));
        if !fits {
            source = self.copy(graph, source);
        }
        let ints: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
        let rows = graph.emit(Op::Reshape, &[source], &ints, &[]);
        self.rows.insert(key, rows);
        rows
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
    fn part(
        &mut self,
        graph: &mut Graph,
        part: NodeId,
        old: NodeId,
        (old_concat, concat): (NodeId, &Node),
    ) -> NodeId {
        if self.nested.get(&old).is_some_and(|nested| nested.outer == old_concat) && self.placed.insert(part)
        {
            return part;
        }
        let axis = concat.ints[0] as usize;
        let in_one_piece = concat.ty.dims[..axis].iter().all(|dim| *dim == 1);
        let root = if in_one_piece { unshaped(graph, part) } else { part };
        let fits = match graph.class(root) {
            Class::Elementwise | Class::Reduce => in_one_piece || self.uses[old.index()] == 1,
            Class::Contraction | Class::Indexing => in_one_piece,
            // A cotangent of a cross-entropy: the gradient of a head lies in its bank.
            Class::Structure => in_one_piece && is_of_cross_entropy(graph, root),
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

/// A result of a kernel that knows rows only, with the extents that the node has. Results of others have them already.
fn reshaped(graph: &mut Graph, node: &Node, result: NodeId) -> NodeId {
    let is_derivative = node.op == Op::LinearCrossEntropyGrad;
    if is_derivative || result == NodeId::POISON || graph.dims(result) == node.ty.dims {
        return result;
    }
    let dims: Vec<i64> = node.ty.dims.iter().map(|dim| *dim as i64).collect();
    graph.emit(Op::Reshape, &[result], &dims, &[])
}

/// Whether a node is a result of the derivative of a cross-entropy.
fn is_of_cross_entropy(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    node.op == Op::Result && graph.node(node.inputs[0]).op == Op::LinearCrossEntropyGrad
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
