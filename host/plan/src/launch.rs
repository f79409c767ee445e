//! Launches: one kernel each, with the memory it works on.

use crate::{Attention, AttentionGrad, CrossEntropy, DeltaRule, DeltaRuleGrad, TileKernel};

/// Which memory a slot lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Lives across steps.
    State,
    /// Lives within one replay of one plan.
    Arena,
}

/// A byte range. Offsets are multiples of 4; the start of a buffer is a multiple of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub region: Region,
    pub offset: usize,
    pub bytes: usize,
}

impl Slot {
    /// Whether some byte lies in both.
    pub fn overlaps(&self, other: &Slot) -> bool {
        self.region == other.region
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Scope path of the layer it came from, and the op: `layers.3.attn: Softmax`.
    pub label: String,
    pub op: LaunchOp,
    /// Guards of the plan that must all hold; else nothing this launch writes is read.
    pub guards: Vec<usize>,
}

impl Launch {
    /// Where it writes. `kernels` are those of its plan.
    pub fn written(&self, kernels: &[TileKernel]) -> Vec<Slot> {
        match &self.op {
            LaunchOp::Tile { kernel, bindings } => {
                let slots = bindings.iter().zip(&kernels[*kernel].bindings);
                slots.filter(|(_, binding)| binding.written).map(|(slot, _)| *slot).collect()
            }
            LaunchOp::Gemm(gemm) => vec![gemm.out.slot],
            LaunchOp::ScatterAdd(scatter) => vec![scatter.out],
            LaunchOp::Attention(attention) => {
                attention.out.map(|out| out.slot).into_iter().chain(attention.lse).collect()
            }
            LaunchOp::AttentionGrad(grad) => {
                [grad.ct_q, grad.ct_k, grad.ct_v].into_iter().flatten().map(|heads| heads.slot).collect()
            }
            LaunchOp::DeltaRule(rule) => {
                [&rule.out, &rule.last].into_iter().flatten().map(|tensor| tensor.slot).collect()
            }
            LaunchOp::DeltaRuleGrad(rule) => rule.cts.iter().flatten().map(|ct| ct.slot).collect(),
            LaunchOp::CrossEntropy(pass) => {
                let cts = pass.grad.iter().flat_map(|grad| [grad.ct_x, grad.ct_w]).flatten();
                pass.loss.into_iter().chain(cts).collect()
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum LaunchOp {
    /// A tile kernel of the plan, by index, and a slot per binding.
    Tile {
        kernel: usize,
        bindings: Vec<Slot>,
    },
    Gemm(Gemm),
    ScatterAdd(ScatterAdd),
    Attention(Box<Attention>),
    AttentionGrad(Box<AttentionGrad>),
    CrossEntropy(Box<CrossEntropy>),
    DeltaRule(Box<DeltaRule>),
    DeltaRuleGrad(Box<DeltaRuleGrad>),
}

/// `out[i, j] = alpha * sum over k of a[i, k] * b[k, j] + beta * c[i, j]`, once per point of the batch. All f32.
///
/// Without `c` its term is left out and `beta` means nothing. `out` overlaps no operand. Which blocks of rows are computed apart may depend on the shape, never on the
/// number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub alpha: f32,
    pub beta: f32,
    pub a: Matrix,
    pub b: Matrix,
    pub c: Option<Matrix>,
    pub out: Matrix,
    /// Batch axes, outermost first; none for a single product.
    pub batch: Vec<GemmBatch>,
    /// The result is its own transpose at each point of the batch, rounding aside, and so is `c`: a device may compute one
    /// triangle and mirror it.
    pub symmetric: bool,
}

/// A strided matrix. Strides are in elements and may be 0 (a repeated operand) but not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix {
    pub slot: Slot,
    pub row_stride: usize,
    pub col_stride: usize,
}

/// One batch axis, with the stride of each matrix along it, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmBatch {
    pub count: usize,
    pub a: usize,
    pub b: usize,
    /// 0 where the product has no `c`.
    pub c: usize,
    pub out: usize,
}

/// `out = 0; for i in 0..count { out[clamp(ids[i], 0, rows - 1), :] += source[i, :] }`, f32, all contiguous.
///
/// Rows with the same id are added in the order of `i`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterAdd {
    pub out: Slot,
    pub ids: Slot,
    pub source: Slot,
    pub rows: usize,
    pub width: usize,
    pub count: usize,
}
