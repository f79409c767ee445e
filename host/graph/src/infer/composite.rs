//! Types of composites: what each expects of its operands, in the letters of its row in the op table.

use ops::attention::{KEY_SEGMENTS, KV_LEN, Q_OFFSET, QUERY_SEGMENTS};
use ops::{DType, Op};

use super::region::unit;
use super::{Fault, fault, need_dtype, supported};
use crate::attributes::AttentionMask;
use crate::{Graph, NodeId, Ty};

/// Of GatedDeltaRule: q, k, v, log_alpha, beta, state.
pub const DELTA_OPERANDS: usize = 6;

pub fn infer(graph: &Graph, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> Result<Ty, Fault> {
    let ty = |index: usize| graph.ty(inputs[index]);
    let all = || inputs.iter().map(|id| graph.describe(*id)).collect::<Vec<_>>().join(", ");
    let expect =
        |holds: bool, what: &str| if holds { Ok(()) } else { Err(fault(format!("{what}, got {}", all()))) };
    let attends = matches!(op, Op::Attention | Op::AttentionLse | Op::AttentionGrad);
    let floats_needed = usize::from(attends || matches!(op, Op::LayerNorm | Op::RmsNorm | Op::Rope));
    expect(floats.len() == floats_needed, "lacks an attribute")?;
    let recurs = matches!(op, Op::GatedDeltaRule | Op::LinearAttention | Op::GatedDeltaRuleGrad);
    let has_ints = attends || recurs;
    if !has_ints && !ints.is_empty() {
        return Err(fault(format!("takes no integer attributes, got {ints:?}")));
    }
    need_dtype(graph, inputs[0], DType::F32)?;
    let x = ty(0);
    expect(x.rank() > 0, "needs at least one axis")?;
    let last = *x.dims.last().unwrap_or(&0);
    match op {
        Op::Softmax => Ok(x.clone()),
        Op::LayerNorm | Op::RmsNorm => {
            let fits = inputs[1..].iter().all(|id| graph.ty(*id) == &Ty::new(DType::F32, &[last]));
            expect(fits, "needs a gain (and bias) as long as the last axis")?;
            Ok(x.clone())
        }
        Op::Rope => {
            expect(x.rank() == 4 && last % 2 == 0, "rotates x[B, H, T, D] with an even D")?;
            let (b, t) = (x.dims[0], x.dims[2]);
            let fits = [&[t][..], &[b, t]].iter().any(|dims| ty(1) == &Ty::new(DType::I32, dims));
            expect(fits, "needs i32 positions[T] or [B, T]")?;
            Ok(x.clone())
        }
        Op::Attention => attention(graph, inputs, ints),
        Op::AttentionLse => attention(graph, inputs, ints).map(|ty| Ty::new(DType::F32, &ty.dims[..3])),
        Op::AttentionGrad => {
            let (forward, rest) = inputs.split_at(inputs.len() - 3);
            let out = attention(graph, forward, ints)?;
            let lse = Ty::new(DType::F32, &out.dims[..3]);
            let fits = rest.iter().zip([&out, &lse, &out]).all(|(id, ty)| graph.ty(*id) == ty);
            expect(fits, "needs a result[B, H, Tq, Dv], its lse[B, H, Tq] and the result's cotangent")?;
            Ok(unit())
        }
        Op::GatedDeltaRule | Op::LinearAttention => recurrence(graph, inputs, ints),
        Op::GatedDeltaRuleGrad => {
            let (own, which) = ints.split_at(ints.len().min(1));
            let given = which.first().copied().unwrap_or(3);
            if which.len() > 1 || !(1..=3).contains(&given) {
                return Err(fault(format!("needs cotangents as a sum of 1 (o) and 2 (state), got {ints:?}")));
            }
            let (forward, cts) = inputs.split_at(DELTA_OPERANDS.min(inputs.len()));
            recurrence(graph, forward, own)?;
            let wanted = [(1, 2), (2, 5)].into_iter().filter(|(bit, _)| given & bit != 0);
            let wanted: Vec<&Ty> = wanted.map(|(_, operand)| ty(operand)).collect();
            let fits = cts.iter().map(|id| graph.ty(*id)).eq(wanted.iter().copied());
            expect(fits, &format!("needs the cotangents that {given} says, of o[B, H, T, V] and the state"))?;
            Ok(unit())
        }
        Op::LinearCrossEntropy | Op::LinearCrossEntropyGrad => {
            let (w, targets) = (ty(1), ty(2));
            need_dtype(graph, inputs[1], DType::F32)?;
            need_dtype(graph, inputs[2], DType::I32)?;
            expect(w.rank() == 2 && w.dims[1] == last, "contracts x[..., D] with w[V, D]")?;
            expect(targets.dims[..] == x.dims[..x.rank() - 1], "needs a target for each row of x")?;
            supported(&[&targets.dims[..], &w.dims[..1]].concat())?;
            let losses = Ty::new(DType::F32, &targets.dims);
            if op == Op::LinearCrossEntropy {
                return Ok(losses);
            }
            expect(*ty(3) == losses, "needs the cotangent of each row's loss")?;
            Ok(unit())
        }
        Op::CrossEntropy => {
            need_dtype(graph, inputs[1], DType::I32)?;
            expect(ty(1).dims[..] == x.dims[..x.rank() - 1], "needs logits[..., V] and targets[...]")?;
            Ok(Ty::new(DType::F32, &ty(1).dims))
        }
        Op::CausalConv => {
            let (weight, tail) = (ty(1), ty(2));
            need_dtype(graph, inputs[1], DType::F32)?;
            need_dtype(graph, inputs[2], DType::F32)?;
            expect(x.rank() == 3 && tail.rank() == 3, "needs x[B, T, C] and tail[B, K - 1, C]")?;
            let taps = tail.dims[1] + 1;
            expect(weight.dims == [last, taps], &format!("needs weight[C, K], here {:?}", [last, taps]))?;
            expect(tail.dims == [x.dims[0], taps - 1, last], "needs x[B, T, C] and tail[B, K - 1, C]")?;
            Ok(x.clone())
        }
        other => Err(fault(format!("has no inference row for {other}"))),
    }
}

/// q, k, v, log_alpha, beta where there is one, and the state.
fn recurrence(graph: &Graph, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let names = || inputs.iter().map(|id| graph.describe(*id)).collect::<Vec<_>>().join(", ");
    let expect =
        |holds: bool, what: &str| if holds { Ok(()) } else { Err(fault(format!("{what}, got {}", names()))) };
    let chunk = ints.first().copied().unwrap_or(1);
    if ints.len() > 1 || chunk < 1 || !(chunk as u64).is_power_of_two() {
        return Err(fault(format!("takes a chunk that is a power of two, got {ints:?}")));
    }
    let ty = |index: usize| graph.ty(inputs[index]);
    let (q, k, v, state) = (ty(0), ty(1), ty(2), ty(inputs.len() - 1));
    for id in inputs {
        need_dtype(graph, *id, DType::F32)?;
    }
    let fits = q.rank() == 4 && q == k && v.rank() == 4 && v.dims[..3] == q.dims[..3];
    expect(fits, "needs q, k[B, H, T, K] and v[B, H, T, V]")?;
    let numbers = inputs[3..inputs.len() - 1].iter().all(|id| graph.dims(*id) == &q.dims[..3]);
    expect(numbers, "needs log_alpha (and beta)[B, H, T]")?;
    let matrix = [q.dims[0], q.dims[1], v.dims[3], q.dims[3]];
    expect(state.dims == matrix, &format!("needs a state[B, H, V, K], here {matrix:?}"))?;
    supported(&[&matrix[..], &[q.dims[2]]].concat())?;
    Ok(unit())
}

fn attention(graph: &Graph, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let mask = AttentionMask::decode(ints).map_err(|reason| fault(format!("{reason}, got {ints:?}")))?;
    let names = || inputs.iter().map(|id| graph.describe(*id)).collect::<Vec<_>>().join(", ");
    let expect =
        |holds: bool, what: &str| if holds { Ok(()) } else { Err(fault(format!("{what}, got {}", names()))) };
    if inputs.len() != mask.arity() {
        let (want, got) = (mask.arity(), inputs.len());
        return Err(fault(format!("takes {want} operands with attributes {ints:?}, got {got}")));
    }
    let [q, k, v] = [0, 1, 2].map(|index: usize| graph.ty(inputs[index]));
    for id in &inputs[..3] {
        need_dtype(graph, *id, DType::F32)?;
    }
    let fits = [q, k, v].iter().all(|ty| ty.rank() == 4)
        && [k, v].iter().all(|ty| ty.dims[0] == q.dims[0])
        && k.dims[1..3] == v.dims[1..3]
        && q.dims[3] == k.dims[3];
    expect(fits, "needs q[B, H, Tq, D], k[B, G, Tk, D] and v[B, G, Tk, Dv]")?;
    let (batch, queries, keys) = (q.dims[0], q.dims[2], k.dims[2]);
    expect(q.dims[1].is_multiple_of(k.dims[1]), "needs q[B, H, Tq, D] and k[B, G, Tk, D] with G dividing H")?;
    expect(mask.prefix <= keys, &format!("needs at least the {} keys of its prefix", mask.prefix))?;
    // What the decomposition makes on the way must be possible too.
    supported(&[batch, q.dims[1], queries, keys])?;
    let optional: [(i64, &str, &[usize]); 4] = [
        (Q_OFFSET, "i32 q_offset[B]", &[batch]),
        (KV_LEN, "i32 kv_len[B]", &[batch]),
        (QUERY_SEGMENTS, "i32 query segments[B, Tq]", &[batch, queries]),
        (KEY_SEGMENTS, "i32 key segments[B, Tk]", &[batch, keys]),
    ];
    for (bit, what, dims) in optional {
        let found = mask.operand(bit).map(|index| inputs[index]);
        let fits = found.is_none_or(|id| *graph.ty(id) == Ty::new(DType::I32, dims));
        expect(fits, &format!("needs {what}, here {dims:?}, as one of its operands"))?;
    }
    Ok(Ty::new(DType::F32, &[batch, q.dims[1], queries, v.dims[3]]))
}
