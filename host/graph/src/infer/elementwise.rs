//! Types of element-wise ops: one shape, and which dtypes each op takes.

use ops::{DType, Op};

use super::{Fault, fault, hinted, need_dtype};
use crate::{Graph, NodeId, Ty};

pub fn infer(graph: &Graph, op: Op, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let most = usize::from(matches!(op, Op::Cast | Op::Bitcast));
    if ints.len() > most {
        return Err(fault(format!("takes at most {most} integer attributes, got {}", ints.len())));
    }
    let first = graph.ty(inputs[inputs.len() - 1]);
    for id in inputs {
        if graph.dims(*id) != first.dims {
            let operands: Vec<String> = inputs.iter().map(|id| graph.describe(*id)).collect();
            return Err(hinted(
                format!("needs operands of one shape, got {}", operands.join(" and ")),
                "axes of size 1 are repeated, others must agree",
            ));
        }
    }
    let wants = |allowed: &[DType], ids: &[NodeId]| {
        let bad = ids.iter().find(|id| !allowed.contains(&graph.ty(**id).dtype));
        match bad {
            Some(id) => {
                let names: Vec<&str> = allowed.iter().map(|dtype| dtype.name()).collect();
                Err(hinted(
                    format!("takes {}, got {}", names.join(" or "), graph.describe(*id)),
                    "cast the operand explicitly",
                ))
            }
            None if ids.windows(2).any(|pair| graph.ty(pair[0]).dtype != graph.ty(pair[1]).dtype) => {
                let operands: Vec<String> = ids.iter().map(|id| graph.describe(*id)).collect();
                Err(hinted(
                    format!("needs one dtype, got {}", operands.join(" and ")),
                    "nothing is promoted silently: cast one of them",
                ))
            }
            None => Ok(graph.ty(ids[0]).dtype),
        }
    };
    let numbers = [DType::F32, DType::I32, DType::U32];
    let dtype = match op {
        Op::Recip | Op::Sqrt | Op::Exp | Op::Log | Op::Sin | Op::Cos | Op::Tanh | Op::Erf | Op::Floor => {
            wants(&[DType::F32], inputs)?
        }
        Op::Neg => wants(&[DType::F32, DType::I32], inputs)?,
        Op::Copy => first.dtype,
        Op::Cast | Op::Bitcast => {
            let code = ints.first().copied().unwrap_or(-1);
            let to = DType::from_code(code).ok_or_else(|| fault(format!("knows no dtype number {code}")))?;
            if op == Op::Bitcast && (to == DType::Bool || first.dtype == DType::Bool) {
                return Err(fault("cannot read or make a bool".into()));
            }
            to
        }
        Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem | Op::Max | Op::Min => wants(&numbers, inputs)?,
        Op::Lt | Op::Eq => wants(&DType::ALL, inputs).map(|_| DType::Bool)?,
        Op::And | Op::Or | Op::Xor => wants(&[DType::I32, DType::U32, DType::Bool], inputs)?,
        Op::Shl | Op::Shr | Op::Rand => wants(&[DType::U32], inputs)?,
        Op::Select => {
            need_dtype(graph, inputs[0], DType::Bool)?;
            wants(&DType::ALL, &inputs[1..])?
        }
        other => return Err(fault(format!("has no row for {other}"))),
    };
    Ok(Ty::new(dtype, &first.dims))
}
