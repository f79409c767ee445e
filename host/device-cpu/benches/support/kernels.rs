//! Tile kernels written as lists of values.

use ops::{DType, Op};
use plan::*;

pub fn value(expr: Expr, dtype: DType) -> Value {
    Value { expr, dtype, domain: Domain::Element }
}

pub fn load(binding: usize, strides: &[i64]) -> Value {
    value(Expr::Load { binding, at: Affine::new(0, strides.to_vec()), gather: None }, DType::F32)
}

pub fn constant(x: f32) -> Value {
    value(Expr::Const(x.to_bits()), DType::F32)
}

pub fn apply(op: Op, args: &[ValueId]) -> Value {
    let dtype = if op == Op::Lt { DType::Bool } else { DType::F32 };
    value(Expr::Apply { op, args: args.to_vec() }, dtype)
}

pub fn reduce(op: Op, arg: ValueId) -> Value {
    value(Expr::Reduce { op, arg }, DType::F32)
}

pub fn store(binding: usize, strides: &[i64], value: ValueId) -> Store {
    Store { binding, at: Affine::new(0, strides.to_vec()), value }
}

pub fn kernel(dims: &[usize], template: Template, values: Vec<Value>, stores: Vec<Store>) -> TileKernel {
    let mut bindings = vec![];
    for value in &values {
        if let Expr::Load { binding, .. } = value.expr {
            bindings.resize(bindings.len().max(binding + 1), Binding { dtype: DType::F32, written: false });
            bindings[binding].dtype = value.dtype;
        }
    }
    for store in &stores {
        bindings.resize(bindings.len().max(store.binding + 1), Binding { dtype: DType::F32, written: false });
        bindings[store.binding].written = true;
        bindings[store.binding].dtype = values[store.value].dtype;
    }
    TileKernel { dims: dims.to_vec(), template, bindings, values, stores }
}
