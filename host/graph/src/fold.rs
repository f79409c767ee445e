//! What `emit` simplifies on the spot: identities, chains of movements, constants. Every rule keeps values up to the
//! sign of a zero; rules that would hide a NaN (x * 0) are left out.

use ops::{Class, Op};

use crate::attributes::pairs;
use crate::{Graph, NodeId, Ty, interp};

/// An existing or simpler node with the value of the op, if there is one.
pub fn fold(
    graph: &mut Graph,
    op: Op,
    inputs: &[NodeId],
    ints: &[i64],
    floats: &[f64],
    ty: &Ty,
) -> Option<NodeId> {
    let x = *inputs.first()?;
    let unchanged = graph.ty(x) == ty;
    let inner = graph.node(x).clone();
    match op {
        Op::Reshape | Op::Broadcast | Op::Slice | Op::Pad if unchanged => Some(x),
        Op::Cast if unchanged => Some(x),
        Op::Concat if inputs.len() == 1 => Some(x),
        Op::Permute if ints.iter().enumerate().all(|(axis, from)| axis as i64 == *from) => Some(x),
        Op::Sum | Op::ReduceMax => {
            let dims = graph.dims(x);
            let real: Vec<i64> = ints.iter().copied().filter(|axis| dims[*axis as usize] != 1).collect();
            if real.is_empty() {
                return Some(x);
            }
            (real.len() < ints.len()).then(|| graph.emit(op, inputs, &real, floats))
        }
        Op::Reshape | Op::Broadcast | Op::Permute | Op::Slice | Op::Gather | Op::DynSlice
            if inner.op == Op::Const =>
        {
            Some(graph.constant(inner.floats[0], ty.dtype, &ty.dims))
        }
        Op::Reshape | Op::Broadcast if inner.op == Op::Iota => iota_under(graph, op, &inner, ty),
        // Joining two movements would lead around the inner node, of which a gradient may yet be taken.
        _ if !graph.joins_movements => elementwise_or_none(graph, op, inputs, ty),
        Op::Reshape if inner.op == Op::Reshape => Some(graph.emit(op, &inner.inputs, ints, &[])),
        Op::Broadcast if inner.op == Op::Broadcast => Some(graph.emit(op, &inner.inputs, ints, &[])),
        Op::Permute if inner.op == Op::Permute => {
            let through: Vec<i64> = ints.iter().map(|axis| inner.ints[*axis as usize]).collect();
            Some(graph.emit(op, &inner.inputs, &through, &[]))
        }
        Op::Slice if inner.op == Op::Slice => {
            let both = pairs(ints).into_iter().zip(pairs(&inner.ints));
            let joined = both.flat_map(|(outer, inner)| [(outer.0 + inner.0) as i64, outer.1 as i64]);
            Some(graph.emit(op, &inner.inputs, &joined.collect::<Vec<_>>(), &[]))
        }
        Op::Slice if inner.op == Op::Concat => part_of(graph, &inner, ints),
        Op::Neg if inner.op == Op::Neg => Some(inner.inputs[0]),
        _ => elementwise_or_none(graph, op, inputs, ty),
    }
}

/// A slice that lies in one operand of a Concat, as a slice of that operand: the value of one step of a loop.
fn part_of(graph: &mut Graph, concat: &crate::Node, ints: &[i64]) -> Option<NodeId> {
    let axis = concat.ints[0] as usize;
    let mut first = 0;
    for part in &concat.inputs {
        let extent = graph.dims(*part)[axis] as i64;
        let (start, length) = (ints[2 * axis] - first, ints[2 * axis + 1]);
        if start >= 0 && start + length <= extent {
            let mut ranges = ints.to_vec();
            ranges[2 * axis] = start;
            return Some(graph.emit(Op::Slice, &[*part], &ranges, &[]));
        }
        first += extent;
    }
    None
}

fn elementwise_or_none(graph: &mut Graph, op: Op, inputs: &[NodeId], ty: &Ty) -> Option<NodeId> {
    let applies = op.row().class == Class::Elementwise && op != Op::Copy;
    applies.then(|| elementwise(graph, op, inputs, ty)).flatten()
}

/// Counting along an axis commutes with adding, dropping or repeating other axes.
fn iota_under(graph: &mut Graph, op: Op, iota: &crate::Node, ty: &Ty) -> Option<NodeId> {
    let axis = iota.ints[0] as usize;
    let length = iota.ty.dims[axis];
    let others_are_one = iota.ty.elements() == length;
    let axis = match op {
        Op::Broadcast if ty.dims[axis] == length => axis,
        Op::Reshape if others_are_one => ty.dims.iter().position(|dim| *dim == length)?,
        _ => return None,
    };
    let mut ints = vec![axis as i64, ty.dtype as i64];
    ints.extend(ty.dims.iter().map(|dim| *dim as i64));
    Some(graph.emit(Op::Iota, &[], &ints, &[]))
}

fn elementwise(graph: &mut Graph, op: Op, inputs: &[NodeId], ty: &Ty) -> Option<NodeId> {
    let constant = |id: NodeId| (graph.node(id).op == Op::Const).then(|| graph.node(id).floats[0]);
    let values: Vec<Option<f64>> = inputs.iter().map(|id| constant(*id)).collect();
    if values.iter().all(Option::is_some) && !matches!(op, Op::Bitcast) {
        let args: Vec<f64> = values.into_iter().flatten().collect();
        let from = graph.ty(*inputs.last()?).dtype;
        let value = interp::scalar(op, &args, from, ty.dtype)?;
        return Some(graph.constant(value, ty.dtype, &ty.dims));
    }
    match (op, &values[..]) {
        (Op::Add, [Some(0.0), _]) => Some(inputs[1]),
        (Op::Add | Op::Sub, [_, Some(0.0)]) => Some(inputs[0]),
        (Op::Mul, [Some(1.0), _]) => Some(inputs[1]),
        (Op::Mul | Op::Div, [_, Some(1.0)]) => Some(inputs[0]),
        (Op::Select, [Some(condition), ..]) => Some(inputs[if *condition != 0.0 { 1 } else { 2 }]),
        _ => None,
    }
}
