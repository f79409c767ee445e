//! Primitives that no kernel knows, in terms of those that kernels know: the counterpart of `expand` for ops whose
//! meaning is in the interpreter and whose derivative is a row of its own.
//!
//! A device needs no kernel for them: positions become element-wise arithmetic on indices, moved rows a Gather, running sums a product.

use ops::{DType, Op};

use crate::attributes::DotAxes;
use crate::{Builder, Graph, Node, NodeId, Ty, Var, rewrite};

/// Longest axis that one product sums. Half of its terms are zeros, so longer ones waste more than blocks do.
const SUMMED_AT_ONCE: usize = 256;

/// The graph in which only ops are left that the compiler has kernels or views for. Composites are to be expanded
/// before.
pub fn legalize(graph: &Graph) -> Graph {
    rewrite(graph, |graph, node, inputs| match node.op {
        Op::DynSlice | Op::DynUpdateSlice | Op::ArgMax | Op::CumSum => {
            Builder::with(graph, |b| legal(b, node, inputs).id)
        }
        _ => graph.emit(node.op, inputs, &node.ints, &node.floats),
    })
}

fn legal<'b>(b: &'b Builder, node: &Node, inputs: &[NodeId]) -> Var<'b> {
    let x = |index: usize| b.var(inputs[index]);
    let axis = node.ints[0] as usize;
    match node.op {
        Op::DynSlice => dyn_slice(x(0), x(1), axis, node.ty.dims[axis]),
        Op::ArgMax => arg_max(x(0), axis),
        Op::CumSum => cum_sum(x(0), axis, node.ints[1] == 1),
        _ => dyn_update_slice(x(0), x(1), x(2), axis),
    }
}

/// Rows start, start + 1, ... of x with its axis in front.
fn dyn_slice<'b>(x: Var<'b>, start: Var<'b>, axis: usize, length: usize) -> Var<'b> {
    let first = clamped(start, x.dims()[axis], length).reshape(&[1]).broadcast(&[length]);
    let ids = first.builder().iota(0, DType::I32, &[length]).binary(Op::Add, first);
    from_front(to_front(x, axis).binary(Op::Gather, ids), axis)
}

/// Where a position lies in the box that begins at `start` the row of `update` for it, else x. Gather clamps the rows
/// of positions outside.
fn dyn_update_slice<'b>(x: Var<'b>, update: Var<'b>, start: Var<'b>, axis: usize) -> Var<'b> {
    let (dims, length) = (x.dims(), update.dims()[axis]);
    let first = clamped(start, dims[axis], length);
    let row = |dims: &[usize], axis| {
        let ones = vec![1; dims.len()];
        x.builder().iota(axis, DType::I32, dims) - first.reshape(&ones).broadcast(dims)
    };
    let rows = from_front(to_front(update, axis).binary(Op::Gather, row(&[dims[axis]], 0)), axis);
    let row = row(&dims, axis);
    let is_before = row.binary(Op::Lt, row.constant(0.0));
    let is_below_end = row.binary(Op::Lt, row.constant(length as f64));
    is_before.select(x, is_below_end.select(rows, x))
}

/// The smallest index of an element that equals the maximum. Indices go through f32, the one dtype that kernels fold;
/// inference sees to it that they are exact there. The last index stands where no element equals the maximum.
fn arg_max(x: Var<'_>, axis: usize) -> Var<'_> {
    let dims = x.dims();
    let is_peak = x.binary(Op::Eq, x.max(&[axis]).like(x));
    let last = x.constant(1.0 - dims[axis] as f64);
    let negative = is_peak.select(-x.builder().iota(axis, DType::F32, &dims), last);
    (-negative.max(&[axis])).cast(DType::I32)
}

/// Short axes are a product with a triangle of ones; long ones are cut into blocks, and each block is raised by the
/// running sum of the blocks before it. A NaN or an infinity reaches its whole block.
fn cum_sum(x: Var<'_>, axis: usize, reverse: bool) -> Var<'_> {
    let (dims, block) = (x.dims(), SUMMED_AT_ONCE);
    let length = dims[axis];
    if length <= block {
        return from_back(x.dot(triangle(x.builder(), length, reverse), &along(axis, dims.len()), 1.0), axis);
    }
    let (rows, blocks) = (dims.iter().product::<usize>() / length, length.div_ceil(block));
    let at_back = to_back(x, axis);
    let padded = at_back.reshape(&[rows, length]).pad(&[(0, 0), (0, blocks * block - length)]);
    let inside = cum_sum(padded.reshape(&[rows, blocks, block]), 2, reverse);
    let (last, margin, first) = if reverse { (0, (0, 1), 1) } else { (block - 1, (1, 0), 0) };
    let totals = inside.slice(&[(0, rows), (0, blocks), (last, 1)]).reshape(&[rows, blocks]);
    let running = cum_sum(totals, 1, reverse).pad(&[(0, 0), margin]);
    let before = running.slice(&[(0, rows), (first, blocks)]).reshape(&[rows, blocks, 1]);
    let sum = inside + before.broadcast(&[rows, blocks, block]);
    let unpadded = sum.reshape(&[rows, blocks * block]).slice(&[(0, rows), (0, length)]);
    from_back(unpadded.reshape(&at_back.dims()), axis)
}

/// Element [i, j] is 1 where index i counts towards sum j.
fn triangle(builder: &Builder, length: usize, reverse: bool) -> Var<'_> {
    let dims = [length, length];
    let [from, to] = [0, 1].map(|axis| builder.iota(axis, DType::I32, &dims));
    let leaves_out = if reverse { from.binary(Op::Lt, to) } else { to.binary(Op::Lt, from) };
    let ones = builder.constant(1.0, &Ty::new(DType::F32, &dims));
    leaves_out.select(ones.constant(0.0), ones)
}

/// Contracts one axis with the rows of a matrix, whose columns become the last axis.
fn along(axis: usize, rank: usize) -> DotAxes {
    let others = (0..rank).filter(|other| *other != axis).collect();
    DotAxes { batch: (vec![], vec![]), contract: (vec![axis], vec![0]), free: (others, vec![1]) }
}

/// First index of a box of `length` along an axis of `extent`, an i32[].
fn clamped(start: Var<'_>, extent: usize, length: usize) -> Var<'_> {
    let last = start.constant((extent - length) as f64);
    start.binary(Op::Max, start.constant(0.0)).binary(Op::Min, last)
}

/// The axis moved in front of all others.
fn to_front(x: Var<'_>, axis: usize) -> Var<'_> {
    let others = (0..x.rank()).filter(|other| *other != axis);
    x.permute(&std::iter::once(axis).chain(others).collect::<Vec<_>>())
}

/// The first axis moved to where `axis` shall be.
fn from_front(x: Var<'_>, axis: usize) -> Var<'_> {
    let order = (0..x.rank()).map(|to| match to {
        to if to < axis => to + 1,
        to if to == axis => 0,
        to => to,
    });
    x.permute(&order.collect::<Vec<_>>())
}

/// The axis moved behind all others.
fn to_back(x: Var<'_>, axis: usize) -> Var<'_> {
    let others = (0..x.rank()).filter(|other| *other != axis);
    x.permute(&others.chain([axis]).collect::<Vec<_>>())
}

/// The last axis moved to where `axis` shall be.
fn from_back(x: Var<'_>, axis: usize) -> Var<'_> {
    let last = x.rank() - 1;
    let order = (0..=last).map(|to| match to {
        to if to < axis => to,
        to if to == axis => last,
        to => to - 1,
    });
    x.permute(&order.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp::{self, Tensor};

    /// Output of one op on an f32 input, as the interpreter gives it before and after legalising.
    fn both(op: Op, ints: &[i64], dims: &[usize], data: Vec<f64>) -> [Vec<f64>; 2] {
        let mut graph = Graph::default();
        let ty = Ty::new(DType::F32, dims);
        let x = graph.input("x", ty.clone());
        let y = graph.emit(op, &[x], ints, &[]);
        graph.output("y", y);
        assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
        let x = Tensor { ty, data };
        let legal = legalize(&graph);
        assert!(legal.nodes.iter().all(|node| node.op != op));
        [&graph, &legal].map(|graph| interp::run(graph, std::slice::from_ref(&x), &mut []).remove(0).data)
    }

    /// Lengths below, at and above one block, and with more blocks than one product sums.
    #[test]
    fn running_sums_agree_at_every_length() {
        for (dims, axis) in
            [(&[2, 1, 3][..], 1), (&[3, 256, 2], 1), (&[257], 0), (&[2, 700, 3], 1), (&[1, 65_800], 1)]
        {
            for reverse in [0, 1] {
                let data = (0..dims.iter().product()).map(|i| f64::from(i as u32 % 7) - 2.0).collect();
                let [direct, legal] = both(Op::CumSum, &[axis, reverse], dims, data);
                assert_eq!(legal, direct, "{dims:?} along {axis}, reverse {reverse}");
            }
        }
    }

    #[test]
    fn arg_max_is_the_first_of_equals_and_stays_in_range() {
        let (low, nan) = (f64::NEG_INFINITY, f64::NAN);
        let rows = vec![1.0, 3.0, 3.0, nan, 2.0, 1.0, low, low, low, nan, nan, nan];
        let [direct, legal] = both(Op::ArgMax, &[1], &[4, 3], rows);
        assert_eq!(direct, [1.0, 1.0, 0.0, 2.0]);
        assert_eq!(legal, direct);
    }
}
