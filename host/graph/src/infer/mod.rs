//! Type inference: one row per op, and the messages people see when operands do not fit.

mod axis;
mod composite;
mod elementwise;
pub mod region;

pub use composite::DELTA_OPERANDS;

use ops::{Class, DType, MAX_RANK, Op};

use crate::attributes::{DotAxes, pairs, usizes};
use crate::{Graph, NodeId, Ty};

/// An extent fits into 32 bits, as an index on a device does.
const MAX_EXTENT: usize = u32::MAX as usize;

/// Most elements of one tensor: a larger one is a mistake in the extents.
const MAX_ELEMENTS: usize = 1 << 40;

/// (message, hint)
type Fault = (String, String);

/// Result type of an op, or why it cannot be built. What it accepts has a size that a `usize` can count.
pub fn infer(graph: &Graph, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> Result<Ty, Fault> {
    let ty = result(graph, op, inputs, ints, floats)?;
    // What has several results is no tensor, and only Result takes it.
    if ty == region::unit() {
        return Ok(ty);
    }
    supported(&ty.dims).map(|()| ty)
}

/// Extents from 1 up, few enough axes, and few enough elements: nobody who counts them or their bytes has to think of
/// overflow again.
pub fn supported(dims: &[usize]) -> Result<(), Fault> {
    if dims.len() > MAX_RANK {
        return Err(fault(format!("would have {} axes; at most {MAX_RANK} are supported", dims.len())));
    }
    if dims.iter().any(|dim| *dim == 0 || *dim > MAX_EXTENT) {
        return Err(fault(format!("has an extent outside 1..2^32 in {dims:?}")));
    }
    let count = dims.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
    if count.is_some_and(|count| count <= MAX_ELEMENTS) {
        return Ok(());
    }
    Err(hinted(
        format!("would make a tensor of {dims:?}"),
        "check the extents: at most 2^40 elements are supported",
    ))
}

fn result(graph: &Graph, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> Result<Ty, Fault> {
    let row = op.row();
    if inputs.len() < row.arity.0 || inputs.len() > row.arity.1 {
        return Err(fault(format!("takes {:?} operands, got {}", row.arity, inputs.len())));
    }
    if let Some(several) = inputs.iter().find(|id| op != Op::Result && *graph.ty(**id) == region::unit()) {
        return Err(hinted(
            format!("reads {}, which has several results", graph.describe(*several)),
            "take one of them with Result",
        ));
    }
    let ty = |index: usize| graph.ty(inputs[index]);
    let name = |index: usize| graph.describe(inputs[index]);
    match row.class {
        Class::Elementwise => elementwise::infer(graph, op, inputs, ints),
        Class::Reduce => {
            need_dtype(graph, inputs[0], DType::F32)?;
            let mut dims = ty(0).dims.clone();
            for (index, &axis) in ints.iter().enumerate() {
                *axis_of(&mut dims, axis).ok_or_else(|| bad_axis(axis, &name(0)))? = 1;
                if ints[..index].contains(&axis) {
                    return Err(fault(format!("names axis {axis} of {} twice", name(0))));
                }
            }
            Ok(Ty::new(DType::F32, &dims))
        }
        _ => match op {
            Op::Input | Op::State => {
                let list = if op == Op::Input { &graph.inputs } else { &graph.states };
                let index = ints.first().and_then(|index| usize::try_from(*index).ok());
                let decl = index.and_then(|index| list.get(index));
                decl.map(|decl| decl.ty.clone()).ok_or_else(|| fault("refers to no declaration".into()))
            }
            Op::Const | Op::Iota => leaf(op, ints, floats),
            Op::Reshape => {
                let dims = extents(ints)?;
                if dims.iter().product::<usize>() == ty(0).elements() {
                    return Ok(Ty::new(ty(0).dtype, &dims));
                }
                let (from, to) = (ty(0).elements(), dims.iter().product::<usize>());
                Err(fault(format!("cannot turn {} ({from} elements) into {dims:?} ({to} elements)", name(0))))
            }
            Op::Permute => {
                let mut seen: Vec<i64> = ints.to_vec();
                seen.sort_unstable();
                if seen != (0..ty(0).rank() as i64).collect::<Vec<_>>() {
                    return Err(fault(format!("axes {ints:?} do not name each axis of {} once", name(0))));
                }
                let dims: Vec<usize> = ints.iter().map(|axis| ty(0).dims[*axis as usize]).collect();
                Ok(Ty::new(ty(0).dtype, &dims))
            }
            Op::Broadcast => {
                let dims = extents(ints)?;
                let from = &ty(0).dims;
                if dims.len() == from.len()
                    && from.iter().zip(&dims).all(|(from, to)| from == to || *from == 1)
                {
                    return Ok(Ty::new(ty(0).dtype, &dims));
                }
                Err(hinted(
                    format!("cannot repeat {} to {dims:?}", name(0)),
                    "only axes of size 1 repeat, and the rank must agree",
                ))
            }
            Op::Slice => slice(&name(0), ty(0), ints),
            Op::Pad => {
                let possible = 0..=MAX_ELEMENTS as i64;
                if ints.len() != 2 * ty(0).rank()
                    || ints.iter().any(|pad| !possible.contains(pad))
                    || floats.len() != 1
                {
                    return Err(fault(format!(
                        "wants (before, after) for each axis of {}, got {ints:?}",
                        name(0)
                    )));
                }
                let padded =
                    ty(0).dims.iter().zip(pairs(ints)).map(|(dim, (before, after))| before + dim + after);
                Ok(Ty::new(ty(0).dtype, &padded.collect::<Vec<_>>()))
            }
            Op::Concat => concat(graph, inputs, ints),
            Op::Gather => {
                need_dtype(graph, inputs[1], DType::I32)?;
                let table = &ty(0).dims;
                if table.is_empty() || table[0] == 0 {
                    return Err(fault(format!("needs rows to choose from, got {}", name(0))));
                }
                rank_limit([&ty(1).dims, &table[1..]].concat(), ty(0).dtype)
            }
            Op::ScatterAdd => {
                need_dtype(graph, inputs[0], DType::F32)?;
                need_dtype(graph, inputs[1], DType::I32)?;
                let (x, ids) = (&ty(0).dims, &ty(1).dims);
                let rows = ints.first().copied().unwrap_or(0);
                if rows <= 0 || x.len() < ids.len() || x[..ids.len()] != ids[..] {
                    return Err(fault(format!(
                        "cannot add rows of {} at {} into {rows} rows",
                        name(0),
                        name(1)
                    )));
                }
                Ok(Ty::new(DType::F32, &[&[rows as usize], &x[ids.len()..]].concat()))
            }
            Op::DynSlice | Op::DynUpdateSlice | Op::ArgMax | Op::CumSum => {
                axis::infer(graph, op, inputs, ints)
            }
            Op::Dot => dot(graph, inputs, ints, floats),
            Op::StopGrad | Op::Save => Ok(ty(0).clone()),
            Op::Scan => region::scan(graph, inputs, ints),
            Op::When => region::when(graph, inputs, ints),
            Op::Result => region::result(graph, inputs, ints),
            Op::Write | Op::Output => {
                let list = if op == Op::Write { &graph.states } else { &graph.outputs };
                let index = ints.first().and_then(|index| usize::try_from(*index).ok());
                let decl = index
                    .and_then(|index| list.get(index))
                    .ok_or_else(|| fault("refers to no declaration".into()))?;
                if decl.ty == *ty(0) {
                    return Ok(decl.ty.clone());
                }
                Err(fault(format!("{} holds {}, got {}", decl.name, decl.ty, name(0))))
            }
            _ => composite::infer(graph, op, inputs, ints, floats),
        },
    }
}

fn leaf(op: Op, ints: &[i64], floats: &[f64]) -> Result<Ty, Fault> {
    let head = if op == Op::Iota { 2 } else { 1 };
    if ints.len() < head || (op == Op::Const && floats.len() != 1) {
        return Err(fault("lacks attributes".into()));
    }
    let code = ints[head - 1];
    let dtype = DType::from_code(code).ok_or_else(|| fault(format!("knows no dtype number {code}")))?;
    let dims = extents(&ints[head..])?;
    if op == Op::Iota && (ints[0] < 0 || ints[0] as usize >= dims.len() || dtype == DType::Bool) {
        return Err(fault(format!("cannot count along axis {} of {dims:?} as {dtype}", ints[0])));
    }
    rank_limit(dims, dtype)
}

fn slice(name: &str, ty: &Ty, ints: &[i64]) -> Result<Ty, Fault> {
    let rank = ty.rank();
    if ints.len() != 2 * rank || ints.iter().any(|value| *value < 0) {
        return Err(fault(format!("wants (start, length) for each axis of {name}, got {ints:?}")));
    }
    let ranges = pairs(ints);
    for (axis, (start, length)) in ranges.iter().enumerate() {
        if *length == 0 || start + length > ty.dims[axis] {
            return Err(fault(format!("takes {start}..{} of axis {axis} of {name}", start + length)));
        }
    }
    Ok(Ty::new(ty.dtype, &ranges.iter().map(|range| range.1).collect::<Vec<_>>()))
}

fn concat(graph: &Graph, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let first = graph.ty(inputs[0]);
    let axis = ints.first().copied().unwrap_or(-1);
    if axis < 0 || axis as usize >= first.rank() {
        return Err(bad_axis(axis, &graph.describe(inputs[0])));
    }
    let axis = axis as usize;
    let mut dims = first.dims.clone();
    dims[axis] = 0;
    for id in inputs {
        let ty = graph.ty(*id);
        let agrees = ty.dtype == first.dtype
            && ty.rank() == first.rank()
            && (0..ty.rank()).all(|other| other == axis || ty.dims[other] == first.dims[other]);
        if !agrees {
            let (a, b) = (graph.describe(inputs[0]), graph.describe(*id));
            return Err(fault(format!("cannot join {a} and {b} along axis {axis}")));
        }
        dims[axis] += ty.dims[axis];
    }
    Ok(Ty::new(first.dtype, &dims))
}

fn dot(graph: &Graph, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> Result<Ty, Fault> {
    let (x, y) = (graph.ty(inputs[0]), graph.ty(inputs[1]));
    let (x_name, y_name) = (graph.describe(inputs[0]), graph.describe(inputs[1]));
    need_dtype(graph, inputs[0], DType::F32)?;
    need_dtype(graph, inputs[1], DType::F32)?;
    if floats.len() + 1 != inputs.len() {
        return Err(hinted(
            format!("takes {} operands with {} factors", inputs.len(), floats.len()),
            "alpha scales the product of x and y; beta and c come together or not at all",
        ));
    }
    let axes = (ints.len() >= 2).then(|| DotAxes::decode(ints, x.rank(), y.rank())).flatten();
    let Some(axes) = axes else {
        return Err(fault(format!("has malformed axes {ints:?} for {x_name} and {y_name}")));
    };
    for (verb, (of_x, of_y)) in [("pairs", &axes.batch), ("contracts", &axes.contract)] {
        for (&i, &j) in of_x.iter().zip(of_y) {
            if x.dims[i] != y.dims[j] {
                let (size_x, size_y) = (x.dims[i], y.dims[j]);
                return Err(fault(format!(
                    "{verb} {x_name} dim {i} ({size_x}) with {y_name} dim {j} ({size_y})"
                )));
            }
        }
    }
    let pick = |ty: &Ty, axes: &[usize]| axes.iter().map(|axis| ty.dims[*axis]).collect::<Vec<_>>();
    let dims = [pick(x, &axes.batch.0), pick(x, &axes.free.0), pick(y, &axes.free.1)].concat();
    let result = rank_limit(dims, DType::F32)?;
    match inputs.get(2).filter(|c| *graph.ty(**c) != result) {
        Some(c) => Err(hinted(
            format!("adds {} to a result of {result}", graph.describe(*c)),
            "c has the type of the result: repeat it explicitly",
        )),
        None => Ok(result),
    }
}

fn need_dtype(graph: &Graph, id: NodeId, dtype: DType) -> Result<(), Fault> {
    if graph.ty(id).dtype == dtype {
        return Ok(());
    }
    Err(hinted(format!("needs {dtype}, got {}", graph.describe(id)), "cast it explicitly"))
}

fn extents(ints: &[i64]) -> Result<Vec<usize>, Fault> {
    if ints.iter().any(|dim| *dim <= 0 || *dim > MAX_EXTENT as i64) {
        return Err(fault(format!("has an extent outside 1..2^32 in {ints:?}")));
    }
    let dims = usizes(ints);
    supported(&dims).map(|()| dims)
}

fn rank_limit(dims: Vec<usize>, dtype: DType) -> Result<Ty, Fault> {
    supported(&dims)?;
    Ok(Ty { dtype, dims })
}

fn axis_of(dims: &mut [usize], axis: i64) -> Option<&mut usize> {
    usize::try_from(axis).ok().and_then(|axis| dims.get_mut(axis))
}

fn bad_axis(axis: i64, name: &str) -> Fault {
    fault(format!("has no axis {axis} in {name}"))
}

fn fault(message: String) -> Fault {
    (message, String::new())
}

fn hinted(message: String, hint: &str) -> Fault {
    (message, hint.to_string())
}
