//! Cross-entropy of a head, losses and cotangents, without logits of all tokens: rows of x pass through scratch in chunks.
//!
//! A chunk is a product that gives its logits, a kernel that turns each row of them into its loss and into the cotangent of
//! the logits in place, and a product each for the cotangents of x and of w, to which every chunk adds. All chunks but the
//! last have the same kernels.

use std::ops::Range;

use ops::{DType, Op};
use plan::{CrossEntropy, CrossEntropyCaps, CrossEntropyGrad, Gemm, Matrix, Numbered, Slot};

use super::source::{Dispatch, Kernel, element, line};
use super::tile::{fold, identity};
use super::{Operands, Tiles, product, scalar};
use crate::memory::{self, Memory};

/// Fewer logits than 64 MiB take little enough as tensors, and fewer launches.
pub const CAPS: CrossEntropyCaps = CrossEntropyCaps { min_logits: 1 << 24, min_vocabulary: 1024 };

/// Floats of a chunk's logits, so few in tests that small shapes have several chunks.
const KEPT: usize = if cfg!(test) { 1 << 11 } else { 1 << 24 };
/// Rows of a chunk are a multiple of this: tiles of products are as high.
const ROWS: usize = if cfg!(test) { 4 } else { 64 };
/// Invocations that share a row.
const INVOCATIONS: usize = 256;

type Operand = (Memory, usize, usize);

pub fn print(launch: &CrossEntropy, tiles: Tiles) -> Result<Vec<Dispatch>, String> {
    let CrossEntropy { tokens, vocabulary, .. } = *launch;
    let most = (KEPT / vocabulary / ROWS * ROWS).max(ROWS);
    let mut dispatches = Vec::new();
    for start in (0..tokens).step_by(most) {
        Chunk { launch, tiles, tokens: start..tokens.min(start + most) }.print(&mut dispatches)?;
    }
    Ok(dispatches)
}

/// Some tokens in a row.
struct Chunk<'l> {
    launch: &'l CrossEntropy,
    tiles: Tiles,
    tokens: Range<usize>,
}

/// A matrix as its place and its strides.
type Placed = (Operand, usize, usize);

impl Chunk<'_> {
    fn print(&self, dispatches: &mut Vec<Dispatch>) -> Result<(), String> {
        let CrossEntropy { width, vocabulary, x, w, .. } = self.launch;
        let (rows, width, vocabulary) = (self.tokens.len(), *width, *vocabulary);
        let logits = memory::scratch(rows * vocabulary * DType::BYTES);
        let x = self.part(&x.slot, x.stride, width);
        let (w, w_stride) = (memory::operand(&w.slot), w.stride);
        let x_stride = self.launch.x.stride;
        dispatches.push(self.product(
            [rows, vocabulary, width],
            (x, x_stride, 1),
            (w, 1, w_stride),
            (logits, vocabulary, 1),
            false,
        )?);
        dispatches.push(self.rows(logits)?);
        let Some(CrossEntropyGrad { ct_x, ct_w, .. }) = self.launch.grad else { return Ok(()) };
        if let Some(ct_x) = ct_x {
            dispatches.push(self.product(
                [rows, width, vocabulary],
                (logits, vocabulary, 1),
                (w, w_stride, 1),
                (self.part(&ct_x, width, width), width, 1),
                false,
            )?);
        }
        if let Some(ct_w) = ct_w {
            dispatches.push(self.product(
                [vocabulary, width, rows],
                (logits, 1, vocabulary),
                (x, x_stride, 1),
                (memory::operand(&ct_w), width, 1),
                self.tokens.start > 0,
            )?);
        }
        Ok(())
    }

    /// What of a slot belongs to the chunk's tokens, of which each has `width` elements, `stride` after the one before.
    fn part(&self, slot: &Slot, stride: usize, width: usize) -> Operand {
        let (memory, offset, _) = memory::operand(slot);
        let elements = (self.tokens.len() - 1) * stride + width;
        (memory, offset + self.tokens.start * stride * DType::BYTES, elements * DType::BYTES)
    }

    fn numbers(&self, numbers: &Numbered) -> Operand {
        self.part(&numbers.slot, numbers.stride, 1)
    }

    /// `out = a b`, or `out += a b`: an invocation reads an element of `out` just before it writes that.
    fn product(
        &self,
        [m, n, k]: [usize; 3],
        a: Placed,
        b: Placed,
        out: Placed,
        adds: bool,
    ) -> Result<Dispatch, String> {
        // Printers ask operands where matrices lie, not the product.
        let matrix =
            |(_, row_stride, col_stride): Placed| Matrix { slot: self.launch.x.slot, row_stride, col_stride };
        let gemm = Gemm {
            m,
            n,
            k,
            alpha: 1.0,
            beta: 1.0,
            a: matrix(a),
            b: matrix(b),
            c: adds.then(|| matrix(out)),
            out: matrix(out),
            batch: Vec::new(),
            symmetric: false,
        };
        let mut slots = vec![a.0, b.0, out.0];
        slots.extend(adds.then_some(out.0));
        product::print(&gemm, self.tiles, &Operands { slots })
    }

    /// One workgroup a row: its largest logit, the sum of exponentials relative to that, the loss, and where cotangents are
    /// wanted those of the logits in their place.
    fn rows(&self, logits: Operand) -> Result<Dispatch, String> {
        let CrossEntropy { vocabulary, targets, loss, grad, .. } = self.launch;
        let mut slots = vec![logits, self.numbers(targets)];
        slots.extend(loss.map(|loss| self.part(&loss, 1, 1)));
        slots.extend(grad.map(|grad| self.numbers(&grad.ct)));
        let bound = Operands { slots }.bind(0)?;
        let mut body = String::new();
        let text = &mut body;
        let call = |op: Op, x: &str| {
            let expression = scalar::apply(op, &[x.to_string()], DType::F32, DType::F32);
            expression.ok_or_else(|| format!("no kernel holds {op}"))
        };
        let place = element(&bound, 0, &format!("work * {vocabulary}u + column"));
        let logit = format!("bitcast<f32>({place})");
        let id = element(&bound, 1, &format!("work * {}u", targets.stride));
        line(text, 1, &format!("let chosen = bitcast<i32>({id});"));
        line(text, 1, &format!("let is_there = chosen >= 0i && chosen < {vocabulary}i;"));
        let fold_row = |text: &mut String, name: &str, op: Op, term: &str| {
            line(text, 1, &format!("var {name}_of_lane = {};", identity(op)));
            line(
                text,
                1,
                &format!("for (var column = lane; column < {vocabulary}u; column += {INVOCATIONS}u) {{"),
            );
            line(text, 2, &format!("let logit = {logit};"));
            line(text, 2, &format!("let term = {term};"));
            line(text, 2, &format!("{name}_of_lane = {};", fold(op, &format!("{name}_of_lane"), "term")));
            line(text, 1, "}");
            line(text, 1, &format!("lanes[lane] = {name}_of_lane;"));
            line(text, 1, "workgroupBarrier();");
            line(text, 1, &format!("for (var half = {}u; half > 0u; half = half / 2u) {{", INVOCATIONS / 2));
            line(text, 2, "if lane < half {");
            line(text, 3, "let other = lanes[lane + half];");
            line(text, 3, &format!("lanes[lane] = {};", fold(op, "lanes[lane]", "other")));
            line(text, 2, "}");
            line(text, 2, "workgroupBarrier();");
            line(text, 1, "}");
            line(text, 1, &format!("let {name} = lanes[0];"));
            line(text, 1, "workgroupBarrier();");
        };
        let exponential = call(Op::Exp, "logit - largest")?;
        fold_row(text, "largest", Op::ReduceMax, "logit");
        fold_row(text, "total", Op::Sum, &exponential);
        if loss.is_some() {
            line(text, 1, "if lane == 0u {");
            line(text, 2, &format!("let column = u32(clamp(chosen, 0i, {}i));", vocabulary - 1));
            line(text, 2, &format!("let cost = largest - {logit} + {};", call(Op::Log, "total")?));
            let to = element(&bound, 2, "work");
            line(text, 2, &format!("{to} = bitcast<u32>(select(0.0f, cost, is_there));"));
            line(text, 1, "}");
            // The logit of the target is read before it is overwritten.
            line(text, 1, "storageBarrier();");
        }
        if let Some(grad) = grad {
            let of_ct = 2 + usize::from(loss.is_some());
            let ct = element(&bound, of_ct, &format!("work * {}u", grad.ct.stride));
            line(text, 1, &format!("let ct = bitcast<f32>({ct});"));
            line(
                text,
                1,
                &format!("for (var column = lane; column < {vocabulary}u; column += {INVOCATIONS}u) {{"),
            );
            line(text, 2, &format!("let logit = {logit};"));
            line(text, 2, "let of_target = select(0.0f, ct, column == u32(chosen));");
            line(text, 2, &format!("let slope = ct / total * {exponential} - of_target;"));
            line(text, 2, &format!("{place} = bitcast<u32>(select(0.0f, slope, is_there));"));
            line(text, 1, "}");
        }
        let globals = format!("var<workgroup> lanes: array<f32, {INVOCATIONS}>;\n");
        let groups = self.tokens.len();
        Kernel { bound: &bound, invocations: INVOCATIONS, groups, globals, body }.finish()
    }
}
