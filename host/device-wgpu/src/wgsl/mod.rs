//! Kernels as WGSL: functions from plan data to text. Nothing here needs a device.

mod address;
mod attention;
mod column;
mod cross_entropy;
mod prelude;
mod product;
mod row;
mod scalar;
mod scatter;
mod source;
mod tile;

use plan::{LaunchOp, Plan, Slot};

pub use attention::CAPS as ATTENTION;
pub use cross_entropy::CAPS as CROSS_ENTROPY;
pub use product::Tiles;
pub use source::Dispatch;

use crate::memory::{self, Bound, Memory};

/// Memory operands of a launch, in the order its printer names them.
struct Operands {
    slots: Vec<(Memory, usize, usize)>,
}

impl Operands {
    fn new<'s>(slots: impl IntoIterator<Item = &'s Slot>) -> Operands {
        Operands { slots: slots.into_iter().map(memory::operand).collect() }
    }

    /// With so many bytes of scratch as one more operand, if any.
    fn bind(&self, scratch: usize) -> Result<Bound, String> {
        let mut slots = self.slots.clone();
        if scratch > 0 {
            slots.push(memory::scratch(scratch));
        }
        memory::bind(&slots)
    }
}

/// What one launch becomes, in order. Its plan has passed `Plan::validate`.
pub fn print(plan: &Plan, launch: &LaunchOp, tiles: Tiles) -> Result<Vec<Dispatch>, String> {
    match launch {
        LaunchOp::Tile { kernel, bindings } => tile::print(&plan.kernels[*kernel], &Operands::new(bindings)),
        LaunchOp::Gemm(gemm) => {
            let c = gemm.c.as_ref().map(|c| &c.slot);
            let slots = [&gemm.a.slot, &gemm.b.slot, &gemm.out.slot].into_iter().chain(c);
            Ok(vec![product::print(gemm, tiles, &Operands::new(slots))?])
        }
        LaunchOp::ScatterAdd(scatter) => {
            let slots = [&scatter.out, &scatter.ids, &scatter.source];
            Ok(vec![scatter::print(scatter, &Operands::new(slots))?])
        }
        LaunchOp::Attention(attention) => Ok(vec![attention::print(attention)?]),
        LaunchOp::AttentionGrad(grad) => attention::print_grad(grad),
        LaunchOp::CrossEntropy(launch) => cross_entropy::print(launch, tiles),
        // The device's caps have none of these, so the compiler says them in simpler ones.
        LaunchOp::DeltaRule(_) | LaunchOp::DeltaRuleGrad(_) => Err("no kernel of this kind".to_string()),
    }
}
