//! What this machine can do at best, measured through the device in some 100 ms.
//!
//! A specification would be of another machine: virtual ones share caches and memory with strangers, and clocks move.

use std::time::{Duration, Instant};

use graph::{DType, Op};
use plan::{
    Affine, Binding, Device, Domain, Expr, Gemm, Launch, LaunchOp, Matrix, Peaks, Plan, PlanSet, Region,
    Slot, StateLayout, Store, Template, TileKernel, Value,
};

use crate::Error;

/// Edge of the product: packing its operands is a small part already, and it is over before another program on the same
/// core gets its turn.
const EDGE: usize = 512;
/// Elements of each of the three arrays of the sum: 96 MiB together, more than caches hold.
const LENGTH: usize = 8 << 20;
/// How long each of the two is repeated; the best time counts.
const PATIENCE: Duration = Duration::from_millis(40);

/// Peak of products and of memory traffic. What the device had loaded is lost.
pub fn measure(device: &mut dyn Device) -> Result<Peaks, Error> {
    device.load(PlanSet { states: StateLayout::default(), plans: vec![product(), sum()] })?;
    let mut rate = |index: usize, work: f64| -> Result<f64, Error> {
        device.replay(index)?;
        let (mut best, start) = (f64::INFINITY, Instant::now());
        while start.elapsed() < PATIENCE {
            let clock = Instant::now();
            device.replay(index)?;
            best = clock.elapsed().as_secs_f64().min(best);
        }
        Ok(work / best)
    };
    let [flops, bytes] = [product(), sum()].map(|plan| plan.costs()[0]);
    Ok(Peaks { flops_per_second: rate(0, flops.flops)?, bytes_per_second: rate(1, bytes.bytes)? })
}

fn slot(index: usize, elements: usize) -> Slot {
    let bytes = elements * DType::BYTES;
    Slot { region: Region::Arena, offset: index * bytes, bytes }
}

fn plan(name: &str, elements: usize, kernels: Vec<TileKernel>, op: LaunchOp) -> Plan {
    Plan {
        name: name.into(),
        inputs: vec![],
        outputs: vec![],
        guards: vec![],
        kernels,
        launches: vec![Launch { label: name.into(), op, guards: vec![] }],
        arena_bytes: 3 * elements * DType::BYTES,
        block_bytes: 0,
        live_bytes: 3 * elements * DType::BYTES,
        peak: Vec::new(),
        reads: vec![],
        writes: vec![],
    }
}

fn product() -> Plan {
    let matrix = |index| Matrix { slot: slot(index, EDGE * EDGE), row_stride: EDGE, col_stride: 1 };
    let (m, n, k) = (EDGE, EDGE, EDGE);
    let (a, b, out) = (matrix(0), matrix(1), matrix(2));
    let gemm = Gemm { m, n, k, alpha: 1.0, beta: 0.0, a, b, c: None, out, batch: vec![], symmetric: false };
    plan("product", EDGE * EDGE, vec![], LaunchOp::Gemm(gemm))
}

/// `out = a + b`
fn sum() -> Plan {
    let at = Affine::new(0, vec![1]);
    let value = |expr| Value { expr, dtype: DType::F32, domain: Domain::Element };
    let load = |binding| value(Expr::Load { binding, at: at.clone(), gather: None });
    let kernel = TileKernel {
        dims: vec![LENGTH],
        template: Template::Map,
        bindings: [false, false, true].map(|written| Binding { dtype: DType::F32, written }).to_vec(),
        values: vec![load(0), load(1), value(Expr::Apply { op: Op::Add, args: vec![0, 1] })],
        stores: vec![Store { binding: 2, at: at.clone(), value: 2 }],
    };
    let bindings = (0..3).map(|index| slot(index, LENGTH)).collect();
    plan("sum", LENGTH, vec![kernel], LaunchOp::Tile { kernel: 0, bindings })
}
