//! Types of regions and of several results: a body must fit its operands, its carries come back as they went in.

use ops::{DType, Op};

use super::{Fault, fault, hinted, need_dtype, rank_limit};
use crate::attributes::{ScanShape, WhenShape};
use crate::{Graph, NodeId, Ty};

/// Most steps of a Scan: plans hold every step.
pub const MAX_STEPS: usize = 1 << 16;

/// Type of a node that has several results, or none: it is only read through `Result`.
pub fn unit() -> Ty {
    Ty::new(DType::Bool, &[0])
}

pub fn scan(graph: &Graph, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let shape = ScanShape::decode(ints).ok_or_else(|| fault(format!("has malformed attributes {ints:?}")))?;
    let body = graph.bodies.get(shape.body).ok_or_else(|| fault(format!("has no body {}", shape.body)))?;
    let taken = shape.carries.checked_add(shape.xs).filter(|taken| *taken <= inputs.len());
    let consts = taken.map(|taken| inputs.len() - taken);
    let consts = consts.ok_or_else(|| fault(format!("has {} operands, too few", inputs.len())))?;
    if shape.length == 0 || shape.length > MAX_STEPS {
        return Err(hinted(
            format!("runs {} times", shape.length),
            &format!("a Scan has 1 to {MAX_STEPS} steps; let a step take a chunk of several tokens"),
        ));
    }
    let mut wanted = vec![Ty::scalar(DType::I32)];
    wanted.extend(inputs[..consts + shape.carries].iter().map(|id| graph.ty(*id).clone()));
    for id in &inputs[consts + shape.carries..] {
        if graph.dims(*id).first() != Some(&shape.length) {
            return Err(hinted(
                format!("takes {} slices of {}", shape.length, graph.describe(*id)),
                "the first extent of each of xs is the number of steps",
            ));
        }
        wanted.push(Ty::new(graph.ty(*id).dtype, &graph.dims(*id)[1..]));
    }
    inputs_fit(body, &wanted)?;
    for (index, carry) in inputs[consts..consts + shape.carries].iter().enumerate() {
        match body.outputs.get(index) {
            Some(decl) if decl.ty == *graph.ty(*carry) => {}
            Some(decl) => {
                return Err(hinted(
                    format!(
                        "gets {} as carry {index} from its body, which began as {}",
                        decl.ty,
                        graph.describe(*carry)
                    ),
                    "a carry keeps its dtype and shape",
                ));
            }
            None => return Err(fault(format!("gets no carry {index} from its body"))),
        }
    }
    if body.outputs.len() < shape.carries + shape.residuals {
        return Err(fault(format!("has a body of {} results, too few", body.outputs.len())));
    }
    for decl in &body.outputs[shape.carries..] {
        rank_limit([&[shape.length], &decl.ty.dims[..]].concat(), decl.ty.dtype)?;
    }
    Ok(unit())
}

pub fn when(graph: &Graph, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let shape = WhenShape::decode(ints).ok_or_else(|| fault(format!("has malformed attributes {ints:?}")))?;
    let body = graph.bodies.get(shape.body).ok_or_else(|| fault(format!("has no body {}", shape.body)))?;
    need_dtype(graph, inputs[0], DType::I32)?;
    if !graph.dims(inputs[0]).is_empty() {
        return Err(fault(format!("counts by one number, got {}", graph.describe(inputs[0]))));
    }
    let (period, offset) = (shape.period, shape.offset);
    if period == 0 || offset >= period || period > i32::MAX as usize {
        return Err(hinted(
            format!("has period {period} and offset {offset}"),
            "the offset lies in 0..period, and the period is at least 1",
        ));
    }
    let operands = &inputs[1..];
    let consts = operands.len().checked_sub(shape.olds);
    let consts = consts.ok_or_else(|| fault(format!("has {} operands, too few", inputs.len())))?;
    inputs_fit(body, &operands.iter().map(|id| graph.ty(*id).clone()).collect::<Vec<_>>())?;
    let news = body.outputs.len().checked_sub(shape.residuals);
    if news != Some(shape.olds) {
        return Err(fault(format!("has {} old values and {} new ones", shape.olds, news.unwrap_or(0))));
    }
    for (old, new) in operands[consts..].iter().zip(&body.outputs) {
        if *graph.ty(*old) != new.ty {
            return Err(hinted(
                format!("would replace {} by {}", graph.describe(*old), new.ty),
                "the new value has the dtype and shape of the old one",
            ));
        }
    }
    Ok(unit())
}

fn inputs_fit(body: &Graph, wanted: &[Ty]) -> Result<(), Fault> {
    let got: Vec<Ty> = body.inputs.iter().map(|decl| decl.ty.clone()).collect();
    if got == wanted {
        return Ok(());
    }
    let list = |types: &[Ty]| types.iter().map(Ty::to_string).collect::<Vec<_>>().join(", ");
    Err(fault(format!("has a body over ({}) for operands ({})", list(&got), list(wanted))))
}

pub fn result(graph: &Graph, inputs: &[NodeId], ints: &[i64]) -> Result<Ty, Fault> {
    let of = inputs[0];
    let types = result_types(graph, of);
    let index = ints.first().and_then(|index| usize::try_from(*index).ok());
    let found = index.and_then(|index| types.get(index)).cloned();
    found.ok_or_else(|| {
        fault(format!("{ints:?} asks {} for a result; it has {}", graph.describe(of), types.len()))
    })
}

/// Types of the results of an op that has several; none for other ops.
pub fn result_types(graph: &Graph, id: NodeId) -> Vec<Ty> {
    let node = graph.node(id);
    match node.op {
        Op::Scan => {
            let shape = node.scan_shape();
            let body = &graph.bodies[shape.body];
            let (carries, ys) = body.outputs.split_at(shape.carries);
            let stacked = |ty: &Ty| Ty::new(ty.dtype, &[&[shape.length], &ty.dims[..]].concat());
            let carries = carries.iter().map(|decl| decl.ty.clone());
            carries.chain(ys.iter().map(|decl| stacked(&decl.ty))).collect()
        }
        Op::When => {
            let body = &graph.bodies[node.when_shape().body];
            body.outputs.iter().map(|decl| decl.ty.clone()).collect()
        }
        Op::GatedDeltaRule | Op::LinearAttention => {
            let of = |index: usize| graph.ty(node.inputs[index]).clone();
            vec![of(2), of(node.inputs.len() - 1)]
        }
        Op::GatedDeltaRuleGrad => node.inputs[..6].iter().map(|id| graph.ty(*id).clone()).collect(),
        Op::AttentionGrad => node.inputs[..3].iter().map(|id| graph.ty(*id).clone()).collect(),
        Op::LinearCrossEntropyGrad => node.inputs[..2].iter().map(|id| graph.ty(*id).clone()).collect(),
        _ => Vec::new(),
    }
}
