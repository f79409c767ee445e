//! Products by our own kernel, which packs one operand at most and reads the other where it lies.
//!
//! A library packs both operands, which pays for large ones. Training is made of products with one small extent, or a
//! small result: there, packing costs as much as a fifth of the product, and fetching what comes next while it computes is
//! worth as much again. The operand that is packed is the one for which it is cheap: because it is small, or because its
//! columns lie side by side.

mod ahead;
mod block;
mod cut;
mod kept;
mod kernel;
mod mirror;
mod pack;
mod product;
mod tile;

use std::ops::Range;

use plan::{Gemm, GemmBatch, Matrix};

use crate::gemm::{Operands, add_parts, at_point, terms_of_a_part};
use crate::pool::TaskPanicked;
use crate::team::Team;
pub use block::PANEL;
use cut::Cut;
pub use kept::Kept;
pub use kernel::Shape;
use product::{Product, Side};

/// Which operand of a product is packed. The other's numbers are multiplied with its columns one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// b: a tile is rows of a times columns of b.
    Right,
    /// a, by its rows: a tile is columns of b times rows of a, and is written transposed.
    Left,
}

impl Packed {
    /// The one that costs less to pack and to write from. In units of one multiplication of a vector.
    fn cheaper(gemm: &Gemm, shape: Shape) -> Packed {
        let Gemm { m, n, k, a, b, out, .. } = *gemm;
        // Packed columns and rows with their strides, and the stride of the result along the columns.
        let cost =
            |(columns, stride): (usize, usize), (rows, row_stride): (usize, usize), out_stride: usize| {
                let padded = columns.next_multiple_of(shape.lanes);
                let product = padded * rows * k / shape.lanes;
                let lies = block::lies(rows, row_stride, stride);
                let packing = match stride {
                    _ if lies => 0,
                    1 => 2 * columns * k / shape.lanes,
                    _ => 8 * columns * k / shape.lanes,
                };
                let writing = block::rounds(k, lies) * columns * rows;
                product + packing + if out_stride == 1 { 2 * writing / shape.lanes } else { 2 * writing }
            };
        let right = cost((n, b.col_stride), (m, a.row_stride), out.col_stride);
        let left = cost((m, a.row_stride), (n, b.col_stride), out.row_stride);
        if left < right { Packed::Left } else { Packed::Right }
    }
}

/// The kernel for a product that it computes more quickly than the library: `None` where it does not, or where this machine
/// has none.
///
/// Measured, with operands as cold as in a step: the library reaches 55 to 80 % of the peak where one extent is 128 or a long
/// sum has a small result, and this 80 to 95. It gathers the columns of a transposed b one by one, which costs it most
/// where a has few rows. It is the better one where the operand that would be packed leaves the second cache, by 5 to 20 %,
/// where few rows meet a b that lies in rows, for the shortest sums, and for weight gradients with far strides, whose terms
/// lie on pages of their own. It knows nothing of symmetric results, half of which it would compute for nothing.
pub fn suits(gemm: &Gemm, shape: Option<Shape>) -> Option<Shape> {
    let Gemm { m, n, k, a, b, .. } = *gemm;
    // Sums wait in the result, whatever a c that lies there holds.
    let is_apart = gemm.c.is_none_or(|c| !c.slot.overlaps(&gemm.out.slot));
    let is_near = n * k <= NEAR;
    let is_transposed = b.row_stride == 1 && b.col_stride != 1;
    let pays = if a.row_stride == 1 && b.col_stride == 1 {
        k >= SHORT && a.col_stride + b.row_stride <= CLOSE
    } else if is_transposed {
        is_near || m <= SOME_ROWS
    } else {
        k >= SHORT && is_near && m > FEW_ROWS
    };
    shape.filter(|_| m > 1 && n > 1 && is_apart && (pays || gemm.symmetric))
}

/// Floats of b that stay in half of a usual second cache once they are packed.
const NEAR: usize = 1 << 17;
/// Floats between one term and the next, of both operands, where both lie with terms below one another.
const CLOSE: usize = 768;
/// Rows too few, and a sum too short, for a b that lies in rows.
const FEW_ROWS: usize = 64;
const SHORT: usize = 32;
/// Rows so few that gathering the columns of a transposed b shows.
const SOME_ROWS: usize = 512;

/// # Safety
/// As for `gemm::run`, for a product that [`suits`], or whose `panels` are kept; without those the scratch has [`PANEL`]
/// floats for each thread of the pool, and before them a result for each part of sums that are cut.
pub unsafe fn run(
    gemm: &Gemm,
    shape: Shape,
    operands: Operands,
    panels: Option<*const f32>,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    let batch: usize = gemm.batch.iter().map(|axis| axis.count).product();
    let packed = if panels.is_some() { Packed::Right } else { Packed::cheaper(gemm, shape) };
    let terms = if panels.is_some() { gemm.k } else { terms_of_a_part(gemm) };
    let parts = gemm.k.div_ceil(terms);
    // A part is a point of the batch: they have the same extents, and of a product that is cut so there is one.
    let points = batch * parts;
    let cut = Cut::of(gemm, shape, packed, (terms, points), team.threads());
    let panels = Panels(panels);
    let panels = &panels;
    let (across, down) = if packed == Packed::Right { (gemm.n, gemm.m) } else { (gemm.m, gemm.n) };
    let (beside, below) = (across.div_ceil(cut.across), down.div_ceil(cut.down));
    let tasks = beside * below * points.div_ceil(cut.batch);
    let operands = &operands;
    let results = if parts > 1 { parts * gemm.m * gemm.n } else { 0 };
    let task = |worker: usize, task: usize| {
        let (block, group) = (task % (beside * below), task / (beside * below));
        let (x, y) = (block % beside * cut.across, block / beside * cut.down);
        let part = (x..across.min(x + cut.across), y..down.min(y + cut.down));
        for point in group * cut.batch..points.min((group + 1) * cut.batch) {
            let (point, first) = (point / parts, point % parts * terms);
            let product = match parts {
                1 => product_at(gemm, packed, operands, point),
                _ => part_at(gemm, packed, operands, first..gemm.k.min(first + terms)),
            };
            // SAFETY: the caller's; tasks have different blocks, and workers their own scratch.
            unsafe {
                match panels.0 {
                    Some(panels) => kept::block_of(shape, &product, part.clone(), panels),
                    None => {
                        let scratch = operands.scratch.add(results + worker * PANEL);
                        block::block_of(shape, &product, part.clone(), scratch);
                    }
                }
            };
        }
    };
    let is_small = gemm.m * gemm.n * gemm.k * batch < SMALL;
    team.share(tasks, is_small, &task)?;
    // SAFETY: the caller's, and the tasks above wrote every part.
    if parts > 1 { unsafe { add_parts(gemm, operands, parts, team) } } else { Ok(()) }
}

/// Multiply-adds that are worth handing out.
const SMALL: usize = 1 << 21;

/// Panels that are kept.
struct Panels(Option<*const f32>);

// SAFETY: tasks only read them.
unsafe impl Sync for Panels {}

/// A product at one point of its batch, turned where a is packed.
fn product_at(gemm: &Gemm, packed: Packed, operands: &Operands, point: usize) -> Product {
    let at = |stride: fn(&GemmBatch) -> usize| at_point(gemm, point, stride);
    let turned = packed == Packed::Left;
    let strides = |matrix: &Matrix| match turned {
        false => [matrix.row_stride, matrix.col_stride],
        true => [matrix.col_stride, matrix.row_stride],
    };
    let a = Side {
        start: operands.a.wrapping_add(at(|axis| axis.a)),
        stride: gemm.a.row_stride,
        k_stride: gemm.a.col_stride,
    };
    let b = Side {
        start: operands.b.wrapping_add(at(|axis| axis.b)),
        stride: gemm.b.col_stride,
        k_stride: gemm.b.row_stride,
    };
    let (rows, columns) = if turned { (b, a) } else { (a, b) };
    let c = gemm.c.map(|c| (gemm.beta, operands.c.wrapping_add(at(|axis| axis.c)), strides(&c)));
    let out = (operands.out.wrapping_add(at(|axis| axis.out)), strides(&gemm.out));
    Product { k: gemm.k, alpha: gemm.alpha, rows, columns, out, c, symmetric: gemm.symmetric }
}

/// Some terms of a product whose sums are cut: a dense result in the scratch, without c.
fn part_at(gemm: &Gemm, packed: Packed, operands: &Operands, terms: Range<usize>) -> Product {
    let whole = product_at(gemm, packed, operands, 0);
    let from = |side: Side| Side { start: side.start.wrapping_add(terms.start * side.k_stride), ..side };
    let start = operands.scratch.wrapping_add(terms.start / terms_of_a_part(gemm) * gemm.m * gemm.n);
    let strides = if packed == Packed::Left { [1, gemm.n] } else { [gemm.n, 1] };
    Product {
        k: terms.len(),
        rows: from(whole.rows),
        columns: from(whole.columns),
        out: (start, strides),
        c: None,
        ..whole
    }
}
