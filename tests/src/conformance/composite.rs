//! Composites under every mask, with targets that are ignored, and linear recurrences, which devices run in chunks.

use graph::{Builder, DType, NodeId, Op};

use super::values::{UNIT, Values};
use super::{Maker, Row, Tolerance, row};

pub fn rows() -> Vec<Row> {
    let through = "a few sums and roundings of numbers of size one, and as many again for each derivative";
    let composite = |op, cases, make, value| {
        let tolerances = [Tolerance::Scaled(value), Tolerance::Scaled(1e-4), Tolerance::Scaled(5e-4)];
        Row { tolerances, ..row(op, cases, make, Tolerance::Exact, 2, through) }
    };
    vec![
        composite(Op::Softmax, 32, softmax, 2e-6),
        composite(Op::LayerNorm, 32, norm, 1e-5),
        composite(Op::RmsNorm, 32, norm, 1e-5),
        composite(Op::Rope, 24, rope, 2e-5),
        composite(Op::Attention, 72, attention, 1e-5),
        composite(Op::AttentionLse, 48, attention, 1e-5),
        Row { order: 1, ..composite(Op::AttentionGrad, 72, attention_grad, 2e-5) },
        composite(Op::LinearCrossEntropy, 24, linear_cross_entropy, 1e-5),
        Row { order: 1, ..composite(Op::LinearCrossEntropyGrad, 36, linear_cross_entropy_grad, 2e-5) },
        composite(Op::CrossEntropy, 24, cross_entropy, 1e-5),
        composite(Op::CausalConv, 24, causal_conv, 1e-5),
        composite(Op::GatedDeltaRule, 48, recurrence, 5e-5),
        Row { order: 1, ..composite(Op::GatedDeltaRuleGrad, 48, recurrence_grad, 1e-4) },
        composite(Op::LinearAttention, 24, recurrence, 5e-5),
    ]
}

fn softmax(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(1..=8);
    let values = if m.differentiates { Values::Within(-2.0, 2.0) } else { Values::Within(-90.0, 90.0) };
    let x = m.operand(DType::F32, &dims, values);
    vec![m.emit(op, &[x], &[], &[])]
}

fn norm(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = m.dims(1..=8);
    let last = dims[dims.len() - 1];
    // A row of near equal numbers has derivatives as large as eps is small.
    let eps = if m.differentiates { 0.1 } else { 1e-3 };
    let mut operands = vec![m.operand(DType::F32, &dims, UNIT), m.operand(DType::F32, &[last], UNIT)];
    if op == Op::LayerNorm && m.below(2) == 0 {
        operands.push(m.operand(DType::F32, &[last], UNIT));
    }
    vec![m.emit(op, &operands, &[], &[eps])]
}

fn rope(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let dims = [m.pick(&[1, 2]), m.pick(&[1, 3]), m.pick(&[1, 5, 17]), m.pick(&[2, 6, 16, 34])];
    let x = m.operand(DType::F32, &dims, UNIT);
    // An angle of 100 is known to 4e-6.
    let positions = m.operand(DType::I32, &dims[2..3], Values::Whole(-3, 100));
    let theta = m.pick(&[1e4, 100.0]);
    vec![m.emit(op, &[x, positions], &[], &[theta])]
}

fn attention(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (operands, attributes) = attention_operands(m);
    vec![m.emit(op, &operands, &attributes, &[0.7])]
}

/// With the result and the log-sum-exp that belong to the operands; the three cotangents.
fn attention_grad(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (mut operands, attributes) = attention_operands(m);
    let [y, lse] = [Op::Attention, Op::AttentionLse].map(|op| m.emit(op, &operands, &attributes, &[0.7]));
    let dims = m.graph.dims(y).to_vec();
    let ct = m.operand(DType::F32, &dims, UNIT);
    operands.extend([y, lse, ct]);
    let all = m.emit(op, &operands, &attributes, &[0.7]);
    (0..3).map(|index| m.emit(Op::Result, &[all], &[index], &[])).collect()
}

fn attention_operands(m: &mut Maker) -> (Vec<NodeId>, [i64; 4]) {
    let (batch, groups) = (m.pick(&[1, 2, 3]), m.pick(&[1, 2]));
    let heads = groups * m.pick(&[1, 2, 3]);
    // Kernels cut queries and keys into blocks of 64.
    let (queries, keys) = (m.pick(&[1, 2, 5, 17, 70, 133]), m.pick(&[1, 3, 8, 33, 70, 150]));
    let (width, value_width) = (m.pick(&[2, 5, 16, 33]), m.pick(&[3, 16, 80]));
    let mut operands = vec![
        m.operand(DType::F32, &[batch, heads, queries, width], UNIT),
        m.operand(DType::F32, &[batch, groups, keys, width], UNIT),
        m.operand(DType::F32, &[batch, groups, keys, value_width], UNIT),
    ];
    // Each sum of operands has its turn.
    let bits = [0, 1, 2, 3, 12, 13, 14, 15][(m.seed / 2) as usize % 8];
    for (bit, dims, values) in [
        (1, &[batch][..], Values::Whole(-3, 8)),
        (2, &[batch], Values::Whole(0, 9)),
        (4, &[batch, queries], Values::Whole(0, 2)),
        (8, &[batch, keys], Values::Whole(0, 2)),
    ] {
        if bits & bit != 0 {
            operands.push(m.operand(DType::I32, dims, values));
        }
    }
    let prefix = m.below(keys + 1) as i64;
    (operands, [m.pick(&[1, 1, 0]), m.pick(&[0, 1, 4]), m.pick(&[0, prefix]), bits])
}

/// Of which some are ignored.
fn targets(m: &mut Maker, dims: &[usize], vocab: usize) -> NodeId {
    m.operand(DType::I32, dims, Values::Whole(-1, vocab as i64))
}

fn linear_cross_entropy(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (tokens, vocab) = (m.dims(0..=2), m.pick(&[2, 7, 33, 300]));
    let tokens: Vec<usize> = tokens.iter().map(|dim| (*dim).min(17)).collect();
    let width = m.pick(&[1, 5, 16]);
    let hidden = m.operand(DType::F32, &[&tokens[..], &[width]].concat(), UNIT);
    let head = m.operand(DType::F32, &[vocab, width], UNIT);
    let targets = targets(m, &tokens, vocab);
    vec![m.emit(op, &[hidden, head, targets], &[], &[])]
}

/// Of both operands, from a cotangent of every loss.
fn linear_cross_entropy_grad(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let losses = linear_cross_entropy(m, Op::LinearCrossEntropy)[0];
    let (operands, dims) = (m.graph.node(losses).inputs.clone(), m.graph.dims(losses).to_vec());
    let ct = m.operand(DType::F32, &dims, UNIT);
    let both = m.emit(op, &[&operands[..], &[ct]].concat(), &[], &[]);
    // Where the losses are asked for too, both come from one pass.
    let losses = (m.below(2) == 0).then_some(losses);
    let cts = [0, 1].map(|index| m.emit(Op::Result, &[both], &[index], &[]));
    cts.into_iter().chain(losses).collect()
}

fn cross_entropy(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (tokens, vocab) = (m.dims(0..=3), m.pick(&[2, 7, 33, 300]));
    let tokens: Vec<usize> = tokens.iter().map(|dim| (*dim).min(5)).collect();
    let logits = m.operand(DType::F32, &[&tokens[..], &[vocab]].concat(), Values::Within(-4.0, 4.0));
    let targets = targets(m, &tokens, vocab);
    vec![m.emit(op, &[logits, targets], &[], &[])]
}

fn causal_conv(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (batch, tokens) = (m.pick(&[1, 2]), m.pick(&[1, 2, 9, 40]));
    let (channels, taps) = (m.pick(&[1, 6, 33]), m.pick(&[2, 3, 4]));
    let x = m.operand(DType::F32, &[batch, tokens, channels], UNIT);
    let weight = m.operand(DType::F32, &[channels, taps], UNIT);
    let tail = m.operand(DType::F32, &[batch, taps - 1, channels], UNIT);
    vec![m.emit(op, &[x, weight, tail], &[], &[])]
}

/// Outputs and last states.
fn recurrence(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (operands, chunk) = recurrence_operands(m, op);
    let both = m.emit(op, &operands, &[chunk], &[]);
    [0, 1].map(|index| m.emit(Op::Result, &[both], &[index], &[])).to_vec()
}

/// Cotangents of all operands, from those of one result or both.
fn recurrence_grad(m: &mut Maker, op: Op) -> Vec<NodeId> {
    let (mut operands, chunk) = recurrence_operands(m, op);
    let given = [3, 1, 2][(m.seed / 2) as usize % 3];
    for (bit, operand) in [(1, 2), (2, 5)] {
        if given & bit != 0 {
            let dims = m.graph.dims(operands[operand]).to_vec();
            operands.push(m.operand(DType::F32, &dims, UNIT));
        }
    }
    let all = m.emit(op, &operands, &[chunk, given], &[]);
    (0..6).map(|index| m.emit(Op::Result, &[all], &[index], &[])).collect()
}

/// q, keys of length about one, v, decays, rates where there are some, a state; and the chunk.
fn recurrence_operands(m: &mut Maker, op: Op) -> (Vec<NodeId>, i64) {
    let (batch, heads) = (m.pick(&[1, 2]), m.pick(&[1, 3]));
    let (tokens, chunk) = (m.pick(&[1, 3, 8, 20, 70]), m.pick(&[4, 16, 64]));
    let (width, size) = (m.pick(&[4, 16, 33]), m.pick(&[1, 5, 16, 40]));
    let decay = m.pick(&[0.0, 0.2, 11.5]);
    let rows = [batch, heads, tokens];
    let [q, k] = [0, 1].map(|_| m.operand(DType::F32, &[&rows[..], &[width]].concat(), UNIT));
    let v = m.operand(DType::F32, &[&rows[..], &[size]].concat(), UNIT);
    let gate = m.operand(DType::F32, &rows, UNIT);
    let state = m.operand(DType::F32, &[batch, heads, size, width], UNIT);
    let rate = (op != Op::LinearAttention).then(|| m.operand(DType::F32, &rows, UNIT));
    Builder::with(&mut m.graph, |b| {
        let [key, gate] = [k, gate].map(|id| b.var(id));
        let norm = (key * key).sum(&[3]).plus(1e-2).unary(Op::Sqrt);
        let k = (key / norm.like(key)).id;
        let log_alpha = gate.plus(-1.0).scale(0.5 * decay).id;
        let beta = rate.map(|rate| b.var(rate).plus(1.0).scale(0.95).id);
        ([q, k, v, log_alpha].into_iter().chain(beta).chain([state]).collect(), chunk)
    })
}
