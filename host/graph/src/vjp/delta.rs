//! The derivative of GatedDeltaRule: an op of the host's own, which a device may have a kernel for.
//!
//! A kernel goes through the tokens again rather than keep what the forward pass knew at each of them. The second
//! derivative goes through the decomposition of that op (`expand`).

use ops::Op;

use crate::expand::DEFAULT_CHUNK;
use crate::{Builder, Node, NodeId};

/// Of all operands, from the cotangents of o and the last state, of which at least one is there.
pub fn cotangents(b: &Builder, node: &Node, cts: &[Option<NodeId>]) -> Vec<NodeId> {
    let chunk = node.ints.first().copied().unwrap_or(DEFAULT_CHUNK as i64);
    let given = cts.iter().enumerate().map(|(index, ct)| i64::from(ct.is_some()) << index).sum();
    let operands: Vec<NodeId> = node.inputs.iter().copied().chain(cts.iter().flatten().copied()).collect();
    let all = b.emit(Op::GatedDeltaRuleGrad, &operands, &[chunk, given], &[]);
    (0..node.inputs.len() as i64).map(|index| b.emit(Op::Result, &[all], &[index], &[])).collect()
}
