//! Attention, forward and backward, over the views its operands have.

use graph::{Graph, NodeId, Op};
use ops::attention::{KEY_SEGMENTS, KV_LEN, Q_OFFSET, QUERY_SEGMENTS};
use plan::{Attention, AttentionGrad, AttentionShape, Heads, LaunchOp, Numbers, Slot};

/// `nodes` are those of one launch: Attention, AttentionLse or both, or AttentionGrad and its Results.
pub fn lower(
    graph: &Graph,
    nodes: &[NodeId],
    at: impl Fn(NodeId) -> Result<(Slot, Vec<usize>), String>,
) -> Result<LaunchOp, String> {
    let node = graph.node(nodes[0]);
    let heads = |id: NodeId| {
        let (slot, strides) = at(id)?;
        let [batch, head, token, element] = strides[..] else {
            return Err(format!("{}: not the heads of an attention", graph.describe(id)));
        };
        Ok(Heads { slot, batch, head, token, element })
    };
    let [q, k, v] = [0, 1, 2].map(|index: usize| heads(node.inputs[index]));
    let (q, k, v) = (q?, k?, v?);
    let shape = shape(graph, nodes[0], &at)?;
    if node.op == Op::AttentionGrad {
        let mut cts = [None; 3];
        for id in &nodes[1..] {
            cts[graph.node(*id).ints[0] as usize] = Some(heads(*id)?);
        }
        let [.., out, lse, ct_out] = node.inputs[..] else { return Err("lacks operands".into()) };
        let (out, lse, ct_out) = (heads(out)?, at(lse)?.0, heads(ct_out)?);
        let [ct_q, ct_k, ct_v] = cts;
        let grad = AttentionGrad { shape, q, k, v, out, lse, ct_out, ct_q, ct_k, ct_v };
        return Ok(LaunchOp::AttentionGrad(Box::new(grad)));
    }
    let of = |op: Op| nodes.iter().copied().find(|id| graph.node(*id).op == op);
    let out = of(Op::Attention).map(heads).transpose()?;
    let lse = of(Op::AttentionLse).map(&at).transpose()?.map(|(slot, _)| slot);
    Ok(LaunchOp::Attention(Box::new(Attention { shape, q, k, v, out, lse })))
}

fn shape(
    graph: &Graph,
    id: NodeId,
    at: &impl Fn(NodeId) -> Result<(Slot, Vec<usize>), String>,
) -> Result<AttentionShape, String> {
    let node = graph.node(id);
    let mask = node.attention_mask();
    let numbers = |bit: i64| -> Result<Option<Numbers>, String> {
        let Some(index) = mask.operand(bit) else { return Ok(None) };
        let (slot, strides) = at(node.inputs[index])?;
        let token = strides.get(1).copied().unwrap_or(0);
        Ok(Some(Numbers { slot, batch: strides[0], token }))
    };
    let [q, k, v] = [0, 1, 2].map(|index: usize| graph.dims(node.inputs[index]));
    Ok(AttentionShape {
        batch: q[0],
        heads: q[1],
        groups: k[1],
        queries: q[2],
        keys: k[2],
        width: q[3],
        value_width: v[3],
        scale: node.floats[0] as f32,
        causal: mask.causal,
        window: mask.window,
        prefix: mask.prefix,
        q_offset: numbers(Q_OFFSET)?,
        kv_len: numbers(KV_LEN)?,
        segments: numbers(QUERY_SEGMENTS)?.zip(numbers(KEY_SEGMENTS)?),
    })
}
