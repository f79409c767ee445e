//! The derivative of every op, as a table: given an op's result `y`, its operands and the cotangent `ct` of `y`, the
//! cotangent of each operand. None is a symbolic zero. Rows emit ordinary nodes, so they can be differentiated again.

mod attention;
pub mod delta;
mod dot;

use std::f64::consts::PI;

use ops::Op;

use crate::attributes::pairs;
use crate::expand::{cross_entropy_cotangent, rms_scaled, standardize};
use crate::{Builder, Node, NodeId, Var};

/// Outcome of looking up a row.
pub enum Rule<'b> {
    Cotangents(Vec<Option<Var<'b>>>),
    /// Integer, comparison and piecewise constant ops: no cotangent, by definition.
    Constant,
    /// A composite without a row of its own: differentiate its decomposition.
    Decompose,
    Missing,
}

pub fn vjp<'b>(b: &'b Builder, node: &Node, result: NodeId, ct: Var<'b>) -> Rule<'b> {
    // Of a cotangent that failed, an error tells already.
    if ct.id == NodeId::POISON {
        return Rule::Missing;
    }
    let x = |index: usize| b.var(node.inputs[index]);
    let y = b.var(result);
    let one = |ct: Var<'b>| Rule::Cotangents(vec![Some(ct)]);
    let two = |first: Var<'b>, second: Var<'b>| Rule::Cotangents(vec![Some(first), Some(second)]);
    match node.op {
        Op::Neg => one(-ct),
        Op::Recip => one(-(ct * y * y)),
        Op::Sqrt => one(ct * y.unary(Op::Recip).scale(0.5)),
        Op::Exp => one(ct * y),
        Op::Log => one(ct / x(0)),
        Op::Sin => one(ct * x(0).unary(Op::Cos)),
        Op::Cos => one(-(ct * x(0).unary(Op::Sin))),
        Op::Tanh => one(ct - ct * y * y),
        Op::Erf => one(ct * (-(x(0) * x(0))).unary(Op::Exp).scale(2.0 / PI.sqrt())),
        Op::Copy | Op::Save => one(ct),
        Op::Cast if x(0).ty().dtype.is_float() && y.ty().dtype.is_float() => one(ct),

        Op::Add => two(ct, ct),
        Op::Sub => two(ct, -ct),
        Op::Mul => two(ct * x(1), ct * x(0)),
        Op::Div => two(ct / x(1), -(ct * y / x(1))),
        // trunc(x / y) is piecewise constant and equals (x - r) / y.
        Op::Rem => two(ct, -(ct * (x(0) - y) / x(1))),
        Op::Max => {
            let share = share_of_ties(x(0), x(1));
            two(ct * share, ct - ct * share)
        }
        Op::Min => {
            let share = share_of_ties(x(1), x(0));
            two(ct * share, ct - ct * share)
        }
        Op::Select => {
            let zero = ct.constant(0.0);
            Rule::Cotangents(vec![None, Some(x(0).select(ct, zero)), Some(x(0).select(zero, ct))])
        }

        Op::Reshape => one(ct.reshape(&x(0).dims())),
        Op::Permute => {
            let mut inverse = vec![0; node.ints.len()];
            node.ints.iter().enumerate().for_each(|(axis, from)| inverse[*from as usize] = axis);
            one(ct.permute(&inverse))
        }
        Op::Broadcast => {
            let (from, to) = (x(0).dims(), y.dims());
            let repeated: Vec<usize> = (0..from.len()).filter(|axis| from[*axis] != to[*axis]).collect();
            one(ct.sum(&repeated))
        }
        Op::Slice => {
            let margins = pairs(&node.ints).into_iter().zip(x(0).dims());
            let margins: Vec<_> =
                margins.map(|((start, length), dim)| (start, dim - start - length)).collect();
            one(ct.pad(&margins))
        }
        Op::Pad => {
            let ranges =
                pairs(&node.ints).into_iter().zip(x(0).dims()).map(|((before, _), dim)| (before, dim));
            one(ct.slice(&ranges.collect::<Vec<_>>()))
        }
        Op::Concat => Rule::Cotangents(unconcat(b, node, ct)),

        Op::Gather => {
            let rows = x(0).dims()[0] as i64;
            let added = b.emit(Op::ScatterAdd, &[ct.id, node.inputs[1]], &[rows], &[]);
            Rule::Cotangents(vec![Some(b.var(added)), None])
        }
        Op::ScatterAdd => Rule::Cotangents(vec![Some(ct.binary(Op::Gather, x(1))), None]),

        Op::DynSlice => {
            let zeros = x(0).constant(0.0).id;
            let spread = b.emit(Op::DynUpdateSlice, &[zeros, ct.id, node.inputs[1]], &node.ints[..1], &[]);
            Rule::Cotangents(vec![Some(b.var(spread)), None])
        }
        Op::DynUpdateSlice => {
            let (zeros, start) = (x(1).constant(0.0).id, node.inputs[2]);
            let kept = b.emit(Op::DynUpdateSlice, &[ct.id, zeros, start], &node.ints, &[]);
            let length = x(1).dims()[node.ints[0] as usize] as i64;
            let written = b.emit(Op::DynSlice, &[ct.id, start], &[node.ints[0], length], &[]);
            Rule::Cotangents(vec![Some(b.var(kept)), Some(b.var(written)), None])
        }

        Op::Sum => one(ct.broadcast(&x(0).dims())),
        Op::CumSum => {
            let opposite = b.emit(Op::CumSum, &[ct.id], &[node.ints[0], 1 - node.ints[1]], &[]);
            one(b.var(opposite))
        }
        Op::ReduceMax => {
            let axes: Vec<usize> = node.ints.iter().map(|axis| *axis as usize).collect();
            let (ones, zeros) = (x(0).constant(1.0), x(0).constant(0.0));
            let hit = x(0).binary(Op::Eq, y.like(x(0))).select(ones, zeros);
            one((ct / hit.sum(&axes)).like(x(0)) * hit)
        }
        Op::Dot => {
            let (ct_x, ct_y) = dot::cotangents(node, x(0), x(1), ct);
            let ct_c = node.floats.get(1).map(|beta| Some(ct.scale(*beta)));
            Rule::Cotangents([Some(ct_x), Some(ct_y)].into_iter().chain(ct_c).collect())
        }

        Op::Softmax => {
            let last = [y.rank() - 1];
            one(y * (ct - (ct * y).sum(&last).like(ct)))
        }
        Op::LayerNorm => {
            let (normal, factor) = standardize(x(0), node.floats[0]);
            let inner = ct * x(1).like(ct);
            let centered = inner - inner.mean_last().like(ct);
            let mut cts = vec![
                Some((centered - normal * (inner * normal).mean_last().like(ct)) * factor.like(ct)),
                Some(sum_to_last(ct * normal)),
            ];
            if node.inputs.len() == 3 {
                cts.push(Some(sum_to_last(ct)));
            }
            Rule::Cotangents(cts)
        }
        Op::RmsNorm => {
            let (normal, factor) = rms_scaled(x(0), node.floats[0]);
            let inner = ct * x(1).like(ct);
            let ct_x = (inner - normal * (inner * normal).mean_last().like(ct)) * factor.like(ct);
            two(ct_x, sum_to_last(ct * normal))
        }
        Op::CrossEntropy => Rule::Cotangents(vec![Some(cross_entropy_cotangent(x(0), x(1), ct)), None]),
        Op::Attention => Rule::Cotangents(attention::cotangents(b, node, y, ct)),
        Op::LinearCrossEntropy => {
            let operands = [&node.inputs[..], &[ct.id]].concat();
            let both = b.emit(Op::LinearCrossEntropyGrad, &operands, &[], &[]);
            let result = |index: i64| Some(b.var(b.emit(Op::Result, &[both], &[index], &[])));
            Rule::Cotangents(vec![result(0), result(1), None])
        }
        Op::Rope | Op::AttentionLse | Op::CausalConv => Rule::Decompose,

        // Bits that were computed with are no number to differentiate by, and a zero would be a wrong answer.
        Op::Bitcast if y.ty().dtype.is_float() => Rule::Missing,
        Op::Const | Op::Iota | Op::Rand | Op::Input | Op::State | Op::StopGrad => Rule::Constant,
        Op::Floor | Op::Cast | Op::Bitcast | Op::Lt | Op::Eq | Op::ArgMax => Rule::Constant,
        Op::And | Op::Or | Op::Xor | Op::Shl | Op::Shr => Rule::Constant,
        // What has several results gets its cotangents through them; `differentiate` handles both.
        Op::Scan | Op::When | Op::GatedDeltaRule | Op::LinearAttention => Rule::Missing,
        Op::AttentionGrad | Op::GatedDeltaRuleGrad | Op::LinearCrossEntropyGrad => Rule::Missing,
        Op::Result | Op::Write | Op::Output => Rule::Missing,
    }
}

/// 1 where a > b, 1/2 where they tie, else 0.
fn share_of_ties<'b>(a: Var<'b>, b: Var<'b>) -> Var<'b> {
    let (all, half, none) = (a.constant(1.0), a.constant(0.5), a.constant(0.0));
    b.binary(Op::Lt, a).select(all, a.binary(Op::Eq, b).select(half, none))
}

/// Sum over all axes but the last, as a vector.
fn sum_to_last(x: Var<'_>) -> Var<'_> {
    let dims = x.dims();
    let leading: Vec<usize> = (0..dims.len() - 1).collect();
    x.sum(&leading).reshape(&dims[dims.len() - 1..])
}

fn unconcat<'b>(b: &'b Builder, node: &Node, ct: Var<'b>) -> Vec<Option<Var<'b>>> {
    let axis = node.ints[0] as usize;
    let mut start = 0;
    let parts = node.inputs.iter().map(|input| {
        let dims = b.ty(*input).dims;
        let mut ranges: Vec<(usize, usize)> = dims.iter().map(|dim| (0, *dim)).collect();
        ranges[axis].0 = start;
        start += dims[axis];
        Some(ct.slice(&ranges))
    });
    parts.collect()
}
