//! Types of ops that work along one axis: boxes whose start is a value, the place of a maximum, running sums.

use ops::{DType, Op};

use super::{Fault, axis_of, bad_axis, fault, hinted, need_dtype};
use crate::{Graph, NodeId, Ty};

/// Longest axis whose indices are all exact in f32, through which devices find a place.
const EXACT: usize = 1 << 24;

pub fn infer(graph: &Graph, op: Op, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let ty = graph.ty(inputs[0]);
    let name = graph.describe(inputs[0]);
    let expected = if matches!(op, Op::DynUpdateSlice | Op::ArgMax) { 1 } else { 2 };
    if ints.len() != expected {
        let wanted = op.row().attributes;
        return Err(fault(format!("wants the attributes \"{wanted}\", got {ints:?}")));
    }
    let axis = ints[0];
    let mut dims = ty.dims.clone();
    let extent = axis_of(&mut dims, axis).ok_or_else(|| bad_axis(axis, &name))?;
    match op {
        Op::DynSlice => {
            need_start(graph, inputs[1])?;
            let length = usize::try_from(ints[1]).unwrap_or(0);
            if length == 0 || length > *extent {
                return Err(hinted(
                    format!("takes {} indices of axis {axis} of {name}", ints[1]),
                    "a length is at least 1 and at most the axis",
                ));
            }
            *extent = length;
            Ok(Ty::new(ty.dtype, &dims))
        }
        Op::DynUpdateSlice => {
            need_start(graph, inputs[2])?;
            let update = graph.ty(inputs[1]);
            let agrees = update.dtype == ty.dtype
                && update.rank() == ty.rank()
                && (0..ty.rank())
                    .all(|i| update.dims[i] == dims[i] || (i as i64 == axis && update.dims[i] < dims[i]));
            if agrees {
                return Ok(ty.clone());
            }
            Err(hinted(
                format!("cannot write {} into {name} along axis {axis}", graph.describe(inputs[1])),
                "the dtypes and all other axes must agree, and what is written must fit",
            ))
        }
        Op::ArgMax => {
            need_dtype(graph, inputs[0], DType::F32)?;
            if *extent > EXACT {
                return Err(hinted(
                    format!("finds a place among at most {EXACT}, got axis {axis} of {name}"),
                    "reshape to blocks and take the maximum of their maxima first",
                ));
            }
            *extent = 1;
            Ok(Ty::new(DType::I32, &dims))
        }
        Op::CumSum => {
            need_dtype(graph, inputs[0], DType::F32)?;
            if ![0, 1].contains(&ints[1]) {
                let message = format!("runs forward or in reverse, got direction {}", ints[1]);
                return Err(hinted(message, "reverse is 0 or 1"));
            }
            Ok(ty.clone())
        }
        other => Err(fault(format!("has no row for {other}"))),
    }
}

fn need_start(graph: &Graph, start: NodeId) -> Result<(), Fault> {
    if *graph.ty(start) == Ty::scalar(DType::I32) {
        return Ok(());
    }
    Err(hinted(
        format!("starts at an i32[], got {}", graph.describe(start)),
        "cast it and reshape it to no axes",
    ))
}
