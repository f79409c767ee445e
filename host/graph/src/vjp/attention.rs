//! The derivative of Attention: an op of the host's own, which a device may have a kernel for.
//!
//! A kernel forms the weights of a block of keys again from the log-sum-exp of each row, so that no tensor of queries
//! times keys is kept. The second derivative goes through the decomposition of that op (`expand`).

use ops::Op;

use crate::{Builder, Node, Var};

/// Of q, k and v; integer operands have none.
pub fn cotangents<'b>(b: &'b Builder, node: &Node, y: Var<'b>, ct: Var<'b>) -> Vec<Option<Var<'b>>> {
    let lse = b.emit(Op::AttentionLse, &node.inputs, &node.ints, &node.floats);
    let operands = [&node.inputs[..], &[y.id, lse, ct.id]].concat();
    let all = b.emit(Op::AttentionGrad, &operands, &node.ints, &node.floats);
    let result = |index: i64| Some(b.var(b.emit(Op::Result, &[all], &[index], &[])));
    let optional = std::iter::repeat_n(None, node.inputs.len() - 3);
    (0..3).map(result).chain(optional).collect()
}
