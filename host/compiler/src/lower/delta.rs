//! The gated delta rule, forward and backward, over the views its operands have.

use graph::{Graph, NodeId, Op};
use plan::{DeltaRule, DeltaRuleGrad, DeltaShape, DeltaTensors, Heads, LaunchOp, Slot};

/// `nodes` are those of one launch: GatedDeltaRule or GatedDeltaRuleGrad, then its Results.
pub fn lower(
    graph: &Graph,
    nodes: &[NodeId],
    at: impl Fn(NodeId) -> Result<(Slot, Vec<usize>), String>,
) -> Result<LaunchOp, String> {
    let node = graph.node(nodes[0]);
    let heads = |id: NodeId| {
        let (slot, strides) = at(id)?;
        match strides[..] {
            [batch, head, token, element] => Ok(Heads { slot, batch, head, token, element }),
            [batch, head, token] => Ok(Heads { slot, batch, head, token, element: 0 }),
            _ => Err(format!("{}: not the heads of a delta rule", graph.describe(id))),
        }
    };
    let dims = |index: usize| graph.dims(node.inputs[index]);
    let shape = DeltaShape {
        batch: dims(0)[0],
        heads: dims(0)[1],
        tokens: dims(0)[2],
        width: dims(0)[3],
        value_width: dims(2)[3],
    };
    let operand = |index: usize| heads(node.inputs[index]);
    let operands = DeltaTensors {
        q: operand(0)?,
        k: operand(1)?,
        v: operand(2)?,
        log_alpha: operand(3)?,
        beta: operand(4)?,
        state: operand(5)?,
    };
    let mut results = [None; 6];
    for id in &nodes[1..] {
        results[graph.node(*id).ints[0] as usize] = Some(heads(*id)?);
    }
    if node.op == Op::GatedDeltaRule {
        let [out, last, ..] = results;
        return Ok(LaunchOp::DeltaRule(Box::new(DeltaRule { shape, operands, out, last })));
    }
    let mut given = node.inputs[6..].iter();
    let mut next = |is_there: bool| match is_there {
        true => given.next().map(|id| heads(*id)).transpose(),
        false => Ok(None),
    };
    let [of_out, of_last] = node.delta_cotangents();
    let (ct_out, ct_last) = (next(of_out)?, next(of_last)?);
    Ok(LaunchOp::DeltaRuleGrad(Box::new(DeltaRuleGrad { shape, operands, ct_out, ct_last, cts: results })))
}
