//! Matrix products: the `gemm` crate on one thread per task, over blocks whose size depends on the shape alone.
//!
//! A block of rows is computed by one call, and the crate packs the right operand anew in each, so blocks are as
//! large as two things allow: enough tasks for all threads, and no more than about a millisecond each.

use gemm::Parallelism;
use plan::{Gemm, Matrix};

use crate::pool::{Pool, TaskPanicked};

/// Multiply-adds of a task that is worth handing out: some 20 microseconds.
const SMALL_TASK: usize = 1 << 21;
/// Multiply-adds of a task that need not be cut further.
const LARGE_TASK: usize = 1 << 27;
/// Rows and columns of a block are multiples of this.
const BLOCK_GRAIN: usize = 32;

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    rows: usize,
    columns: usize,
    batch: usize,
}

impl Cut {
    fn of(gemm: &Gemm, batch: usize) -> Cut {
        let one = gemm.m * gemm.n * gemm.k;
        if batch > 1 && one < LARGE_TASK {
            let points = (SMALL_TASK / one.max(1)).clamp(1, batch.div_ceil(8));
            return Cut { rows: gemm.m, columns: gemm.n, batch: points };
        }
        let pieces = (one / SMALL_TASK).clamp(1, 8).max(one / LARGE_TASK);
        let split = |extent: usize| extent.div_ceil(pieces).next_multiple_of(BLOCK_GRAIN).min(extent);
        match gemm.m >= gemm.n {
            true => Cut { rows: split(gemm.m), columns: gemm.n, batch: 1 },
            false => Cut { rows: gemm.m, columns: split(gemm.n), batch: 1 },
        }
    }
}

/// The start of each matrix.
#[derive(Clone, Copy)]
pub struct Operands {
    pub a: *const f32,
    pub b: *const f32,
    pub out: *mut f32,
}

// SAFETY: tasks read a and b and write disjoint blocks of out.
unsafe impl Sync for Operands {}

/// # Safety
/// The operands are the slots of a product that passed `Plan::validate`; nobody else uses them meanwhile.
pub unsafe fn run(gemm: &Gemm, operands: Operands, pool: &mut Pool) -> Result<(), TaskPanicked> {
    let batch = gemm.batch.iter().map(|axis| axis.count).product();
    let cut = Cut::of(gemm, batch);
    let (row_blocks, column_blocks) = (gemm.m.div_ceil(cut.rows), gemm.n.div_ceil(cut.columns));
    let operands = &operands;
    let task = |_: usize, task: usize| {
        let (block, group) = (task % (row_blocks * column_blocks), task / (row_blocks * column_blocks));
        let row = block / column_blocks * cut.rows;
        let column = block % column_blocks * cut.columns;
        let size = (cut.rows.min(gemm.m - row), cut.columns.min(gemm.n - column));
        for point in group * cut.batch..batch.min((group + 1) * cut.batch) {
            // SAFETY: the caller's; the block and the point lie in the product.
            unsafe { multiply(gemm, operands, point, (row, column), size) };
        }
    };
    let tasks = row_blocks * column_blocks * batch.div_ceil(cut.batch);
    if gemm.m * gemm.n * gemm.k * batch < SMALL_TASK {
        return pool.run(1, &|worker, _| (0..tasks).for_each(|index| task(worker, index)));
    }
    pool.run(tasks, &task)
}

/// One block of one point of the batch.
unsafe fn multiply(
    gemm: &Gemm,
    operands: &Operands,
    mut point: usize,
    (row, column): (usize, usize),
    (rows, columns): (usize, usize),
) {
    let start =
        |matrix: &Matrix, row: usize, column: usize| row * matrix.row_stride + column * matrix.col_stride;
    let mut a = start(&gemm.a, row, 0);
    let mut b = start(&gemm.b, 0, column);
    let mut out = start(&gemm.out, row, column);
    for axis in gemm.batch.iter().rev() {
        let index = point % axis.count;
        point /= axis.count;
        a += index * axis.a;
        b += index * axis.b;
        out += index * axis.out;
    }
    // SAFETY: the caller's; validate bounds the last element of each matrix over the whole batch.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            gemm.k,
            operands.out.add(out),
            gemm.out.col_stride as isize,
            gemm.out.row_stride as isize,
            false,
            operands.a.add(a),
            gemm.a.col_stride as isize,
            gemm.a.row_stride as isize,
            operands.b.add(b),
            gemm.b.col_stride as isize,
            gemm.b.row_stride as isize,
            0.0,
            gemm.alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
