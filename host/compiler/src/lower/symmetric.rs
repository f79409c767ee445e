//! Which values equal their own transposes, so that a product may compute one triangle of its result and mirror it.
//!
//! X X' does, whatever X is. Polynomials of one symmetric matrix commute with each other, so their sums and products are
//! symmetric again: each such value is known by its *base*, the matrix that it is a polynomial of. Newton-Schulz
//! iterations (Muon) are made of these: A = X X', then b A + c A A. Rounding aside, that is: where it breaks the symmetry, the
//! triangle that is computed decides.

use graph::{Graph, Node, NodeId, Op};

/// For each node its base, if it is symmetric in its last two axes at each point of the others.
pub fn bases(graph: &Graph) -> Vec<Option<NodeId>> {
    let mut bases: Vec<Option<NodeId>> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let of = |input: usize| base(graph, &bases, node.inputs[input]);
        // Two symmetric values with different bases add up to one that is known by itself.
        let joint = |a: NodeId, b: NodeId| if a == b { a } else { id };
        let found = match node.op {
            Op::Dot => {
                let product = of_product(graph, &bases, node).or_else(|| is_gram(graph, node).then_some(id));
                match node.inputs.len() {
                    2 => product,
                    _ => product.zip(of(2)).map(|(product, addend)| joint(product, addend)),
                }
            }
            Op::Add | Op::Sub => of(0).zip(of(1)).map(|(x, y)| joint(x, y)),
            Op::Neg => of(0),
            Op::Mul if graph.node(node.inputs[1]).op == Op::Const => of(0),
            Op::Mul if graph.node(node.inputs[0]).op == Op::Const => of(1),
            _ => None,
        };
        bases.push(found);
    }
    bases
}

/// Where a value comes from, looking through copies and permutations, and the axis there of each of its axes.
fn origin(graph: &Graph, mut id: NodeId) -> (NodeId, Vec<usize>) {
    let mut axes: Vec<usize> = (0..graph.ty(id).rank()).collect();
    loop {
        let node = graph.node(id);
        match node.op {
            Op::Copy => {}
            Op::Permute => axes.iter_mut().for_each(|axis| *axis = node.ints[*axis] as usize),
            _ => return (id, axes),
        }
        id = node.inputs[0];
    }
}

/// The base of what a value is a copy of, its last two axes in whatever order.
fn base(graph: &Graph, bases: &[Option<NodeId>], id: NodeId) -> Option<NodeId> {
    let (origin, axes) = origin(graph, id);
    let others = axes.len().checked_sub(2)?;
    let found = *bases.get(origin.index())?;
    found.filter(|_| (0..others).all(|axis| axes[axis] == axis))
}

/// The common base of two factors that are multiplied as matrices, point by point of their other axes.
fn of_product(graph: &Graph, bases: &[Option<NodeId>], node: &Node) -> Option<NodeId> {
    let (x, y) = (node.inputs[0], node.inputs[1]);
    let rank = graph.ty(x).rank();
    let axes = node.dot_axes(rank, graph.ty(y).rank());
    let others: Vec<usize> = (0..rank.checked_sub(2)?).collect();
    let is_plain = axes.batch.0 == others && axes.batch.1 == others && axes.free.0.len() == 1;
    let (of_x, of_y) = (base(graph, bases, x)?, base(graph, bases, y)?);
    (is_plain && axes.free.1.len() == 1 && of_x == of_y).then_some(of_x)
}

/// Whether a Dot is X X': both factors are one value, with the same axes repeated, kept and summed over.
fn is_gram(graph: &Graph, node: &Node) -> bool {
    let (x, y) = (node.inputs[0], node.inputs[1]);
    let ((of_x, axes_x), (of_y, axes_y)) = (origin(graph, x), origin(graph, y));
    if of_x != of_y {
        return false;
    }
    let axes = node.dot_axes(axes_x.len(), axes_y.len());
    let same = |(of_x, of_y): &(Vec<usize>, Vec<usize>)| {
        of_x.iter().map(|axis| axes_x[*axis]).eq(of_y.iter().map(|axis| axes_y[*axis]))
    };
    axes.free.0.len() == 1 && [&axes.batch, &axes.free, &axes.contract].into_iter().all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{DType, Ty};

    const MATRICES: [i64; 6] = [1, 1, 0, 0, 2, 1];

    fn turned(graph: &mut Graph, x: NodeId) -> NodeId {
        graph.emit(Op::Permute, &[x], &[0, 2, 1], &[])
    }

    fn product(graph: &mut Graph, operands: &[NodeId]) -> NodeId {
        let scales: &[f64] = if operands.len() == 3 { &[2.0, -1.0] } else { &[1.0] };
        graph.emit(Op::Dot, operands, &MATRICES, scales)
    }

    #[test]
    fn polynomials_of_one_matrix_are_symmetric_and_products_of_two_are_not() {
        let mut graph = Graph::default();
        let x = graph.input("x", Ty::new(DType::F32, &[3, 4, 5]));
        let y = graph.input("y", Ty::new(DType::F32, &[3, 4, 5]));
        let mut gram = |x: NodeId| {
            let x_turned = turned(&mut graph, x);
            product(&mut graph, &[x, x_turned])
        };
        let (a, other) = (gram(x), gram(y));
        let y_turned = turned(&mut graph, y);
        let mixed = product(&mut graph, &[x, y_turned]);
        let b = product(&mut graph, &[a, a, a]);
        let a_turned = turned(&mut graph, a);
        let cube = product(&mut graph, &[b, a_turned]);
        let sum = graph.emit(Op::Add, &[cube, a], &[], &[]);
        let joint = graph.emit(Op::Sub, &[a, other], &[], &[]);
        let square = product(&mut graph, &[joint, joint]);
        let foreign = product(&mut graph, &[a, other]);
        let applied = product(&mut graph, &[b, x, x]);
        assert_eq!(graph.errors, []);
        let bases = bases(&graph);
        let of = |id: NodeId| bases[id.index()];
        assert_eq!([a, b, cube, sum].map(of), [Some(a); 4]);
        assert_eq!([other, joint, square].map(of), [Some(other), Some(joint), Some(joint)]);
        assert_eq!([mixed, foreign, applied].map(of), [None; 3]);
    }

    #[test]
    fn axes_that_are_summed_crosswise_make_no_square() {
        let mut graph = Graph::default();
        let x = graph.input("x", Ty::new(DType::F32, &[4, 4]));
        let square = graph.emit(Op::Dot, &[x, x], &[0, 1, 1, 0], &[1.0]);
        let gram = graph.emit(Op::Dot, &[x, x], &[0, 1, 0, 0], &[1.0]);
        let bases = bases(&graph);
        assert_eq!([square, gram].map(|id| bases[id.index()]), [None, Some(gram)]);
    }
}
