//! Each element-wise op on each dtype it takes, in a kernel of its own: its text calls what the prelude holds. Whether
//! the numbers are right the conformance suite says.

use ops::{Class, DType, Op};
use plan::{Affine, Binding, Domain, Expr, LaunchOp, Slot, Store, Template, TileKernel, Value};

use super::{single, valid};
use crate::Tiles;

fn takes(op: Op, dtype: DType) -> bool {
    match op {
        Op::Copy | Op::Cast | Op::Bitcast | Op::Select | Op::Eq | Op::Lt => true,
        Op::Neg => matches!(dtype, DType::F32 | DType::I32),
        Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem | Op::Max | Op::Min => dtype != DType::Bool,
        Op::And | Op::Or | Op::Xor => dtype != DType::F32,
        Op::Shl | Op::Shr | Op::Rand => dtype == DType::U32,
        _ => dtype == DType::F32,
    }
}

#[test]
fn every_op_is_valid() {
    let table = Op::ALL.iter().copied().filter(|op| op.row().class == Class::Elementwise);
    let cases = table.flat_map(|op| DType::ALL.into_iter().map(move |dtype| (op, dtype)));
    for (op, dtype) in cases.filter(|(op, dtype)| takes(*op, *dtype)) {
        let results: &[DType] = match op {
            Op::Lt | Op::Eq => &[DType::Bool],
            Op::Cast => &DType::ALL,
            Op::Bitcast => &[DType::F32, DType::I32, DType::U32],
            _ => &[dtype],
        };
        for to in results {
            let at = Affine::new(0, vec![1]);
            let arity = op.row().arity.0;
            let of = |argument: usize| if op == Op::Select && argument == 0 { DType::Bool } else { dtype };
            let value = |expr, dtype| Value { expr, dtype, domain: Domain::Element };
            let mut values: Vec<Value> = (0..arity)
                .map(|binding| value(Expr::Load { binding, at: at.clone(), gather: None }, of(binding)))
                .collect();
            values.push(value(Expr::Apply { op, args: (0..arity).collect() }, *to));
            let mut bindings: Vec<Binding> =
                (0..arity).map(|argument| Binding { dtype: of(argument), written: false }).collect();
            bindings.push(Binding { dtype: *to, written: true });
            let stores = vec![Store { binding: arity, at, value: arity }];
            let kernel = TileKernel { dims: vec![9], template: Template::Map, bindings, values, stores };
            let launch = |slots: &[Slot]| LaunchOp::Tile { kernel: 0, bindings: slots.to_vec() };
            valid(&single(vec![kernel], launch, &vec![9; arity + 1]), Tiles::Direct);
        }
    }
}
