//! Regions as they are meant: a loop, and a condition.

use super::{Tensor, watch};
use crate::{Graph, Node, Ty};

/// Last carries, then stacked ys. Bodies hold no composites: the graph was expanded.
pub fn scan(graph: &Graph, node: &Node, operands: &[&Tensor]) -> Vec<Tensor> {
    let shape = node.scan_shape();
    let body = &graph.bodies[shape.body];
    let (consts, rest) = operands.split_at(shape.consts(operands.len()));
    let (carries, xs) = rest.split_at(shape.carries);
    let mut carries: Vec<Tensor> = carries.iter().map(|carry| (*carry).clone()).collect();
    let mut ys: Vec<Tensor> = body.outputs[shape.carries..]
        .iter()
        .map(|decl| Tensor::zeros(&Ty::new(decl.ty.dtype, &[&[shape.length], &decl.ty.dims[..]].concat())))
        .collect();
    for step in 0..shape.length {
        let index = if shape.options.reverse { shape.length - 1 - step } else { step };
        let mut inputs = vec![Tensor { ty: body.inputs[0].ty.clone(), data: vec![index as f64] }];
        inputs.extend(consts.iter().map(|value| (*value).clone()));
        inputs.append(&mut carries);
        inputs.extend(xs.iter().map(|x| slice(x, index)));
        let mut outputs = watch(body, &inputs, &mut [], |_, _| {});
        for (y, value) in ys.iter_mut().zip(outputs.split_off(shape.carries)) {
            let width = value.data.len();
            y.data[index * width..][..width].copy_from_slice(&value.data);
        }
        carries = outputs;
    }
    carries.into_iter().chain(ys).collect()
}

fn slice(x: &Tensor, index: usize) -> Tensor {
    let ty = Ty::new(x.ty.dtype, &x.ty.dims[1..]);
    let width = ty.elements();
    Tensor { data: x.data[index * width..][..width].to_vec(), ty }
}

/// The new values where the body is due, else the old ones.
pub fn when(graph: &Graph, node: &Node, operands: &[&Tensor]) -> Vec<Tensor> {
    let shape = node.when_shape();
    let values: Vec<Tensor> = operands[1..].iter().map(|value| (*value).clone()).collect();
    if shape.is_due(operands[0].data[0] as i64) {
        return watch(&graph.bodies[shape.body], &values, &mut [], |_, _| {});
    }
    let olds = values[values.len() - shape.olds..].to_vec();
    let residuals = &graph.bodies[shape.body].outputs[shape.olds..];
    olds.into_iter().chain(residuals.iter().map(|decl| Tensor::zeros(&decl.ty))).collect()
}
