//! Products that pack one operand only, a panel at a time, and read the other where it lies.
//!
//! A library packs both operands, which pays for large ones. In a product with 16 or 64 rows, as memories that are
//! written by chunks and decoding have them, packing a weight matrix costs as much as multiplying with it. Here the
//! operand that is packed is the one for which it is cheap: because it is small, or because its columns lie side by side.

mod kept;
mod kernel;
mod mirror;
mod pack;

use std::ops::Range;

use plan::{Gemm, GemmBatch, Matrix};

use crate::gemm::{Operands, at_point};
use crate::pool::TaskPanicked;
use crate::team::Team;
pub use kept::Kept;
pub use kernel::Shape;
use kernel::{Rows, TILE};
use pack::Columns;

/// Longest sum that is packed whole: a panel of that length still lies in the second cache.
const LONGEST: usize = 2048;

/// Terms of a symmetric result's sums that are packed at once, so that more of its rows stay in the second cache beside
/// them. What the sums have come to waits in the result: no bit depends on it.
const TERMS: usize = 512;

/// Floats that a thread packs at once.
pub const PANEL: usize = LONGEST * 32;

fn terms(gemm: &Gemm) -> usize {
    if gemm.symmetric { TERMS } else { LONGEST }.min(gemm.k)
}

/// Which operand of a product is packed. The other's numbers are multiplied with its columns one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    /// b: a tile is rows of a times columns of b.
    Right,
    /// a, by its rows: a tile is columns of b times rows of a, and is written transposed.
    Left,
}

impl Packed {
    /// The one that costs less to pack and to write from. In units of one multiplication of a vector.
    fn cheaper(gemm: &Gemm, shape: Shape) -> Packed {
        let Gemm { m, n, k, .. } = *gemm;
        // (columns that are packed, stride between them, rows, stride of the result along the columns)
        let cost = |columns: usize, stride: usize, rows: usize, out_stride: usize| {
            let padded = columns.next_multiple_of(shape.lanes);
            let product = padded * rows * k / shape.lanes;
            let packing = columns * k * if stride == 1 { 2 } else { 8 } / shape.lanes;
            let writing = if out_stride == 1 { 2 * padded * rows / shape.lanes } else { 2 * columns * rows };
            product + packing + writing
        };
        let right = cost(n, gemm.b.col_stride, m, gemm.out.col_stride);
        let left = cost(m, gemm.a.row_stride, n, gemm.out.row_stride);
        if left < right { Packed::Left } else { Packed::Right }
    }
}

/// The kernel for a product that panels compute more quickly than the library: `None` where they do not, or where this
/// machine has none.
///
/// Measured: the library gathers the columns of a transposed b one by one, which costs it up to nineteen parts in twenty
/// where a has few rows and a tenth where it has a thousand. Of other forms it packs little. A single row is a sum over b
/// as it lies, and short sums of many rows are the library's. It knows nothing of symmetric results, half of which it would
/// compute for nothing.
pub fn suits(gemm: &Gemm, shape: Option<Shape>) -> Option<Shape> {
    let Gemm { m, n, k, .. } = *gemm;
    let is_transposed = gemm.b.row_stride == 1 && gemm.b.col_stride != 1;
    let few_rows = m <= 128;
    let some_rows = k >= 128 && (m <= 512 || n * k <= 1 << 18);
    let pays = is_transposed && k <= LONGEST && (few_rows || some_rows);
    shape.filter(|_| m > 1 && (pays || gemm.symmetric))
}

/// How a product is cut into tasks. No element depends on it: its sum runs over k in order, wherever it is formed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    packed: Packed,
    /// Columns that are packed, and rows that they are multiplied with, of a task.
    across: usize,
    down: usize,
    /// Points of the batch of a task.
    batch: usize,
}

impl Cut {
    fn of(gemm: &Gemm, shape: Shape, packed: Packed, batch: usize, threads: usize) -> Cut {
        let Gemm { m, n, k, .. } = *gemm;
        let (across, down) = if packed == Packed::Right { (n, m) } else { (m, n) };
        let one = m * n * k;
        // Rows that are read once for each panel should still lie in the second cache then.
        let near = (NEAR / terms(gemm)).max(8 * shape.rows);
        // Pieces that lie below one another pack the same panel each: no more of them than threads can use.
        let most = PIECES_OF_A_THREAD * threads;
        let pieces = (one / TASK).clamp(1, most.div_ceil(batch));
        let panels = across.div_ceil(2 * shape.lanes);
        let beside = pieces.min(panels);
        let below = pieces.div_ceil(beside).max(down.div_ceil(near));
        Cut {
            packed,
            across: panels.div_ceil(beside) * 2 * shape.lanes,
            down: down.div_ceil(below).next_multiple_of(shape.rows),
            batch: if pieces > 1 { 1 } else { (TASK / one.max(1)).clamp(1, batch.div_ceil(most)) },
        }
    }
}

/// Multiply-adds of a task that is worth handing out: some 10 microseconds.
const TASK: usize = 1 << 20;
/// Pieces of one product for each thread: two, so that one that was late has less to catch up.
const PIECES_OF_A_THREAD: usize = 2;
/// Floats of rows that stay in the second cache.
const NEAR: usize = 1 << 17;

/// # Safety
/// As for `gemm::run`, for a product that [`suits`], or whose `panels` are kept; without those the scratch has [`PANEL`]
/// floats for each thread of the pool.
pub unsafe fn run(
    gemm: &Gemm,
    shape: Shape,
    operands: Operands,
    panels: Option<*const f32>,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    let batch: usize = gemm.batch.iter().map(|axis| axis.count).product();
    let packed = if panels.is_some() { Packed::Right } else { Packed::cheaper(gemm, shape) };
    let cut = Cut::of(gemm, shape, packed, batch, team.threads());
    let panels = Panels(panels);
    let panels = &panels;
    let (across, down) = if cut.packed == Packed::Right { (gemm.n, gemm.m) } else { (gemm.m, gemm.n) };
    let (beside, below) = (across.div_ceil(cut.across), down.div_ceil(cut.down));
    let tasks = beside * below * batch.div_ceil(cut.batch);
    let operands = &operands;
    let task = |worker: usize, task: usize| {
        let (block, group) = (task % (beside * below), task / (beside * below));
        let (x, y) = (block % beside * cut.across, block / beside * cut.down);
        let part = (x..across.min(x + cut.across), y..down.min(y + cut.down));
        for point in group * cut.batch..batch.min((group + 1) * cut.batch) {
            let at = |stride: fn(&GemmBatch) -> usize| at_point(gemm, point, stride);
            let point = Point {
                a: operands.a.wrapping_add(at(|axis| axis.a)),
                b: operands.b.wrapping_add(at(|axis| axis.b)),
                c: operands.c.wrapping_add(at(|axis| axis.c)),
                out: operands.out.wrapping_add(at(|axis| axis.out)),
            };
            // SAFETY: the caller's; tasks have different blocks, and workers their own scratch.
            unsafe {
                match panels.0 {
                    Some(panels) => kept::block_of(gemm, shape, point, part.clone(), panels),
                    None => {
                        let scratch = operands.scratch.add(worker * PANEL);
                        block_of(gemm, shape, cut.packed, point, part.clone(), scratch);
                    }
                }
            };
        }
    };
    if gemm.m * gemm.n * gemm.k * batch < 2 * TASK {
        return team.run(1, &|worker, _| (0..tasks).for_each(|index| task(worker, index)));
    }
    team.run(tasks, &task)
}

/// The starts of the matrices at one point of the batch.
#[derive(Clone, Copy)]
struct Point {
    a: *const f32,
    b: *const f32,
    c: *const f32,
    out: *mut f32,
}

/// Panels that are kept.
struct Panels(Option<*const f32>);

// SAFETY: tasks only read them.
unsafe impl Sync for Panels {}

/// Some packed columns (`across`) times some rows (`down`) at one point, c included. Of a symmetric result that is what
/// lies below the diagonal of these, and its mirror image.
///
/// # Safety
/// As for [`run`]; nobody else uses this block of the result or the `scratch` of [`PANEL`] floats meanwhile.
unsafe fn block_of(
    gemm: &Gemm,
    shape: Shape,
    packed: Packed,
    point: Point,
    (across, down): (Range<usize>, Range<usize>),
    scratch: *mut f32,
) {
    // As if b were packed; else everything is transposed.
    let turned = packed == Packed::Left;
    let strides = |matrix: &Matrix| match turned {
        false => (matrix.row_stride, matrix.col_stride),
        true => (matrix.col_stride, matrix.row_stride),
    };
    let (by_row, by_column) = if turned { (&gemm.b, &gemm.a) } else { (&gemm.a, &gemm.b) };
    let (row_start, column_start) = if turned { (point.b, point.a) } else { (point.a, point.b) };
    let ((row_stride, row_k), (column_k, column_stride)) = (strides(by_row), strides(by_column));
    let (out_row, out_column) = strides(&gemm.out);
    let mut tile = [0.0f32; TILE];
    let most = terms(gemm);
    // What lies above a diagonal is left out by whole tiles; else tiles are of one height, since a low one is slow.
    let step = if gemm.symmetric { shape.rows } else { even(down.len(), shape.rows) };
    for (term, column) in starts(gemm.k, most, &across, 2 * shape.lanes) {
        let (k, is_first, is_last) = (most.min(gemm.k - term), term == 0, term + most >= gemm.k);
        let width = shape.width(across.end - column);
        let count = width.min(across.end - column);
        // The first tile that reaches the diagonal.
        let above =
            if gemm.symmetric { column.saturating_sub(down.start) / shape.rows * shape.rows } else { 0 };
        if down.start + above >= down.end {
            continue;
        }
        let from = Columns {
            start: column_start.wrapping_add(column * column_stride + term * column_k),
            column_stride,
            k_stride: column_k,
            columns: count,
            k,
        };
        // SAFETY: the caller's: the columns are within the block, and a panel of k rows fits the scratch.
        unsafe { pack::pack(from, width, scratch) };
        for row in (down.start + above..down.end).step_by(step) {
            let height = step.min(down.end - row);
            let start = row_start.wrapping_add(row * row_stride + term * row_k);
            let from = Rows { start, row_stride, k_stride: row_k };
            let out = |index: usize| point.out.wrapping_add((row + index) * out_row + column * out_column);
            // How many of a row's columns are computed.
            let count = |index: usize| match gemm.symmetric {
                true => count.min((row + index + 1).saturating_sub(column)),
                false => count,
            };
            if !is_first {
                for (index, sums) in tile.chunks_exact_mut(width).take(height).enumerate() {
                    // SAFETY: the caller's: elements of this row of the block, which an earlier round wrote.
                    unsafe { read(&mut sums[..count(index)], (out(index), out_column)) };
                }
            }
            // SAFETY: the caller's: the rows are within the block.
            unsafe {
                let panel = scratch.cast_const();
                shape.multiply(height, from, (panel, panel), (k, width), (tile.as_mut_ptr(), !is_first));
            }
            for (index, sums) in tile.chunks_exact(width).take(height).enumerate() {
                let addend = gemm.c.as_ref().map(|matrix| {
                    let (c_row, c_column) = strides(matrix);
                    (point.c.wrapping_add((row + index) * c_row + column * c_column), c_column)
                });
                let scale = if is_last { (gemm.alpha, addend.map(|c| (gemm.beta, c))) } else { (1.0, None) };
                // SAFETY: the caller's: elements of this row of the block.
                unsafe { write(&sums[..count(index)], scale, (out(index), out_column)) };
            }
            if gemm.symmetric && is_last {
                let (rows, columns) = (row..row + height, column..column + count(height - 1));
                // SAFETY: the caller's: what lies above the diagonal belongs to the block whose mirror image it is.
                unsafe { mirror::mirror(point.out, (out_row, out_column), rows, columns) };
            }
        }
    }
}

/// The height of as few tiles as rows need, all as high as each other but for the last.
fn even(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1))
}

/// Where the rounds of a block begin: terms of the sum, and within them columns.
fn starts(
    k: usize,
    terms: usize,
    across: &Range<usize>,
    columns: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let across = across.clone();
    (0..k)
        .step_by(terms)
        .flat_map(move |term| across.clone().step_by(columns).map(move |column| (term, column)))
}

/// A row of a tile from where it waits.
///
/// # Safety
/// As many elements as there are sums can be read, with their stride.
unsafe fn read(sums: &mut [f32], (out, stride): (*mut f32, usize)) {
    for (index, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *sum = unsafe { *out.add(index * stride) };
    }
}

/// alpha, and where there is a c its factor, its first element and its stride.
type Scale = (f32, Option<(f32, (*const f32, usize))>);

/// `alpha * sums`, or with c `alpha * sums + beta * c`, along a row of a tile.
///
/// # Safety
/// As many elements as there are sums can be read at c and written at out, with their strides.
unsafe fn write(sums: &[f32], (alpha, c): Scale, (out, stride): (*mut f32, usize)) {
    // SAFETY: the caller's.
    unsafe {
        match c {
            None if stride == 1 => {
                let out = std::slice::from_raw_parts_mut(out, sums.len());
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = alpha * sum);
            }
            None => {
                for (index, sum) in sums.iter().enumerate() {
                    *out.add(index * stride) = alpha * sum;
                }
            }
            Some((beta, (c, c_stride))) => {
                for (index, sum) in sums.iter().enumerate() {
                    *out.add(index * stride) = alpha * sum + beta * *c.add(index * c_stride);
                }
            }
        }
    }
}
