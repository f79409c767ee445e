//! Types of composites: what each expects of its operands, in the letters of its row in the op table.

use ops::{DType, Op};

use super::{Fault, fault, need_dtype, supported};
use crate::{Graph, NodeId, Ty};

pub fn infer(graph: &Graph, op: Op, inputs: &[NodeId], floats: &[f64]) -> Result<Ty, Fault> {
    let ty = |index: usize| graph.ty(inputs[index]);
    let all = || inputs.iter().map(|id| graph.describe(*id)).collect::<Vec<_>>().join(", ");
    let expect =
        |holds: bool, what: &str| if holds { Ok(()) } else { Err(fault(format!("{what}, got {}", all()))) };
    let floats_needed = usize::from(matches!(op, Op::LayerNorm | Op::RmsNorm | Op::Rope | Op::Attention));
    expect(floats.len() == floats_needed, "lacks an attribute")?;
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
            expect(ty(1) == &Ty::new(DType::I32, &x.dims[2..3]), "needs i32 positions[T]")?;
            Ok(x.clone())
        }
        Op::Attention => {
            let (k, v) = (ty(1), ty(2));
            need_dtype(graph, inputs[1], DType::F32)?;
            expect(x.rank() == 4 && k.rank() == 4 && k == v, "needs q[B, H, T, D] and k, v[B, G, T, D]")?;
            let same = x.dims[0] == k.dims[0] && x.dims[2..] == k.dims[2..];
            expect(
                same && x.dims[1] % k.dims[1] == 0,
                "needs q[B, H, T, D], k[B, G, T, D] with G dividing H",
            )?;
            // What the decomposition makes on the way must be possible too.
            supported(&[x.dims[0], x.dims[1], x.dims[2], x.dims[2]])?;
            Ok(x.clone())
        }
        Op::LinearCrossEntropy => {
            let (w, targets) = (ty(1), ty(2));
            need_dtype(graph, inputs[1], DType::F32)?;
            need_dtype(graph, inputs[2], DType::I32)?;
            expect(w.rank() == 2 && w.dims[1] == last, "contracts x[..., D] with w[V, D]")?;
            expect(targets.dims[..] == x.dims[..x.rank() - 1], "needs a target for each row of x")?;
            supported(&[&targets.dims[..], &w.dims[..1]].concat())?;
            Ok(Ty::new(DType::F32, &targets.dims))
        }
        other => Err(fault(format!("has no inference row for {other}"))),
    }
}
