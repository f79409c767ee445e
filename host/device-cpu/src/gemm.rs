//! Matrix products: the `gemm` crate, or our own panels, on one thread per task, over blocks whose size depends on the
//! shape alone.
//!
//! A call of the crate packs both operands anew, so a cut that repeats an operand costs: tall products are cut by rows
//! into large blocks, weight gradients (a small result of a long sum) by the sum, with the parts added in order
//! afterwards. Where packing costs as much as multiplying, panels pack one operand only (`panel`).

use gemm::Parallelism;
use plan::{Gemm, GemmBatch, Matrix};

use crate::panel::{self, Shape};
use crate::pool::TaskPanicked;
use crate::team::Team;

/// Multiply-adds of a task that is worth handing out: some 20 microseconds.
const SMALL_TASK: usize = 1 << 21;
/// Rows or columns of a block for which packing the other operand is cheap.
const BLOCK: usize = 512;
/// Most pieces of one product: enough for as many threads.
const PIECES: usize = 16;
/// Rows and columns of a block are multiples of this.
const BLOCK_GRAIN: usize = 32;
/// Terms of a sum from which on it may be cut, and the largest result for which that is done.
const LONG_SUM: usize = 4096;
const SMALL_RESULT: usize = 1 << 18;
/// Terms of a part of such a sum.
const PART: usize = 2048;

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    rows: usize,
    columns: usize,
    terms: usize,
    batch: usize,
}

impl Cut {
    fn of(gemm: &Gemm) -> Cut {
        let Gemm { m, n, k, .. } = *gemm;
        let one = m * n * k;
        let whole = Cut { rows: m, columns: n, terms: k, batch: 1 };
        let batch = points(gemm);
        if batch > 1 && one < PIECES * SMALL_TASK {
            return Cut { batch: (SMALL_TASK / one.max(1)).clamp(1, batch.div_ceil(PIECES)), ..whole };
        }
        let terms = terms_of_a_part(gemm);
        if terms < k {
            return Cut { terms, ..whole };
        }
        let split = |extent: usize| {
            // Halves of that size still gain more than what waiting for each other costs.
            let pieces = (2 * one / SMALL_TASK).clamp(1, (extent / BLOCK).clamp(2, PIECES));
            extent.div_ceil(pieces).next_multiple_of(BLOCK_GRAIN).min(extent)
        };
        match m >= n {
            true => Cut { rows: split(m), ..whole },
            false => Cut { columns: split(n), ..whole },
        }
    }
}

/// Terms of a part of the sums: all of them, unless they are cut to make a result's work enough for many threads.
pub fn terms_of_a_part(gemm: &Gemm) -> usize {
    let Gemm { m, n, k, .. } = *gemm;
    let is_long = k >= LONG_SUM && m * n <= SMALL_RESULT && m * n * k >= 2 * SMALL_TASK;
    match is_long && points(gemm) == 1 && !gemm.symmetric {
        true => PART.max(k.div_ceil(PIECES)),
        false => k,
    }
}

/// Points of the batch.
fn points(gemm: &Gemm) -> usize {
    gemm.batch.iter().map(|axis| axis.count).product()
}

/// Floats of scratch a product needs: for the parts of its sums, or for the panels of all threads.
pub fn scratch(gemm: &Gemm, shape: Option<Shape>, threads: usize) -> usize {
    let parts = gemm.k.div_ceil(terms_of_a_part(gemm));
    let results = if parts > 1 { parts * gemm.m * gemm.n } else { 0 };
    let panels = if panel::suits(gemm, shape).is_some() { threads * panel::PANEL } else { 0 };
    results + panels
}

/// The start of each matrix, and of the scratch. `c` is used only where the product has one.
#[derive(Clone, Copy)]
pub struct Operands {
    pub a: *const f32,
    pub b: *const f32,
    pub c: *const f32,
    pub out: *mut f32,
    pub scratch: *mut f32,
}

// SAFETY: tasks read a, b and c and write disjoint blocks of out and of the scratch.
unsafe impl Sync for Operands {}

/// # Safety
/// The operands are the slots of a product that passed `Plan::validate`, with [`scratch`] floats beside, and `panels` are
/// those that the plan keeps of b, if it does; nobody else uses them meanwhile.
pub unsafe fn run(
    gemm: &Gemm,
    shape: Option<Shape>,
    operands: Operands,
    panels: Option<*const f32>,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    if let Some(shape) = panel::suits(gemm, shape).or(shape.filter(|_| panels.is_some())) {
        // SAFETY: the caller's.
        return unsafe { panel::run(gemm, shape, operands, panels, team) };
    }
    let cut = Cut::of(gemm);
    let batch = points(gemm);
    let parts = gemm.k.div_ceil(cut.terms);
    let (row_blocks, column_blocks) = (gemm.m.div_ceil(cut.rows), gemm.n.div_ceil(cut.columns));
    let blocks = row_blocks * column_blocks * parts;
    let operands = &operands;
    let task = |_: usize, task: usize| {
        let (block, group) = (task % blocks, task / blocks);
        let (part, block) = (block % parts, block / parts);
        let (row, column, term) =
            (block / column_blocks * cut.rows, block % column_blocks * cut.columns, part * cut.terms);
        let block = Block {
            rows: row..gemm.m.min(row + cut.rows),
            columns: column..gemm.n.min(column + cut.columns),
            terms: term..gemm.k.min(term + cut.terms),
        };
        for point in group * cut.batch..batch.min((group + 1) * cut.batch) {
            // SAFETY: the caller's; the block and the point lie in the product, and a part in the scratch.
            unsafe {
                let out = if parts > 1 {
                    (operands.scratch.add(part * gemm.m * gemm.n), [gemm.n, 1])
                } else {
                    let start = at_point(gemm, point, |axis| axis.out);
                    (operands.out.add(start), [gemm.out.row_stride, gemm.out.col_stride])
                };
                // The parts of a cut sum are added to c at the end.
                let c = gemm.c.filter(|_| parts == 1);
                if let Some(c) = c {
                    add_start(gemm, operands, &c, point, &block);
                }
                multiply(gemm, operands, point, &block, out, c.is_some());
            }
        }
    };
    let tasks = blocks * batch.div_ceil(cut.batch);
    if gemm.m * gemm.n * gemm.k * batch < SMALL_TASK {
        return team.run(1, &|worker, _| (0..tasks).for_each(|index| task(worker, index)));
    }
    team.run(tasks, &task)?;
    // SAFETY: the caller's, and the tasks above wrote every part.
    if parts > 1 { unsafe { add_parts(gemm, operands, parts, team) } } else { Ok(()) }
}

/// Adds the parts of sums that were cut.
///
/// # Safety
/// As for [`run`]; the scratch begins with `parts` dense results.
pub unsafe fn add_parts(
    gemm: &Gemm,
    operands: &Operands,
    parts: usize,
    team: &mut Team<'_>,
) -> Result<(), TaskPanicked> {
    // SAFETY: the caller's; tasks have different rows.
    team.run(gemm.m.div_ceil(BLOCK_GRAIN), &|_, task| unsafe {
        let rows = task * BLOCK_GRAIN..gemm.m.min((task + 1) * BLOCK_GRAIN);
        add_rows(gemm, operands, rows, parts);
    })
}

struct Block {
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    terms: std::ops::Range<usize>,
}

/// Where a matrix begins at a point of the batch.
pub fn at_point(gemm: &Gemm, mut point: usize, stride: impl Fn(&GemmBatch) -> usize) -> usize {
    let mut start = 0;
    for axis in gemm.batch.iter().rev() {
        start += point % axis.count * stride(axis);
        point /= axis.count;
    }
    start
}

/// beta * c, on one block of the result at one point of the batch.
unsafe fn add_start(gemm: &Gemm, operands: &Operands, c: &Matrix, point: usize, block: &Block) {
    let from = at_point(gemm, point, |axis| axis.c);
    let to = at_point(gemm, point, |axis| axis.out);
    for row in block.rows.clone() {
        for column in block.columns.clone() {
            // SAFETY: the caller's; validate bounds the last element of each matrix over the whole batch.
            unsafe {
                let value = *operands.c.add(from + row * c.row_stride + column * c.col_stride);
                *operands.out.add(to + row * gemm.out.row_stride + column * gemm.out.col_stride) =
                    gemm.beta * value;
            }
        }
    }
}

/// One block of one point of the batch, into a matrix of the result's extents, or added to what is there.
unsafe fn multiply(
    gemm: &Gemm,
    operands: &Operands,
    point: usize,
    block: &Block,
    (out, [out_row, out_column]): (*mut f32, [usize; 2]),
    adds: bool,
) {
    let start =
        |matrix: &Matrix, row: usize, column: usize| row * matrix.row_stride + column * matrix.col_stride;
    let (row, column, term) = (block.rows.start, block.columns.start, block.terms.start);
    let a = at_point(gemm, point, |axis| axis.a) + start(&gemm.a, row, term);
    let b = at_point(gemm, point, |axis| axis.b) + start(&gemm.b, term, column);
    // SAFETY: the caller's; validate bounds the last element of each matrix over the whole batch.
    unsafe {
        gemm::gemm(
            block.rows.len(),
            block.columns.len(),
            block.terms.len(),
            out.add(row * out_row + column * out_column),
            out_column as isize,
            out_row as isize,
            adds,
            operands.a.add(a),
            gemm.a.col_stride as isize,
            gemm.a.row_stride as isize,
            operands.b.add(b),
            gemm.b.col_stride as isize,
            gemm.b.row_stride as isize,
            if adds { 1.0 } else { 0.0 },
            gemm.alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Adds the parts of some rows, in order, and beta * c, and writes them to their place.
unsafe fn add_rows(gemm: &Gemm, operands: &Operands, rows: std::ops::Range<usize>, parts: usize) {
    let count = rows.len() * gemm.n;
    // SAFETY: the caller's: `parts` dense matrices of the result's extents, of which only this task has these rows.
    unsafe {
        let part_at = |part: usize| operands.scratch.add(part * gemm.m * gemm.n + rows.start * gemm.n);
        let total = std::slice::from_raw_parts_mut(part_at(0), count);
        for part in 1..parts {
            let part = std::slice::from_raw_parts(part_at(part), count);
            total.iter_mut().zip(part).for_each(|(total, x)| *total += x);
        }
        if let Some(c) = gemm.c {
            for (row, values) in rows.clone().zip(total.chunks_exact_mut(gemm.n)) {
                let c_row = operands.c.add(row * c.row_stride);
                for (column, value) in values.iter_mut().enumerate() {
                    *value += gemm.beta * *c_row.add(column * c.col_stride);
                }
            }
        }
        for (row, values) in rows.zip(total.chunks_exact(gemm.n)) {
            let out = operands.out.add(row * gemm.out.row_stride);
            for (column, value) in values.iter().enumerate() {
                *out.add(column * gemm.out.col_stride) = *value;
            }
        }
    }
}
