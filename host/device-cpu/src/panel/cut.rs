//! How a product is cut into tasks. No element depends on it: its sum runs over k in order, wherever it is formed.

use plan::Gemm;

use super::Packed;
use super::block::lies;
use super::kernel::Shape;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Columns that are packed, and rows that they are multiplied with, of a task.
    pub across: usize,
    pub down: usize,
    /// Points of the batch of a task.
    pub batch: usize,
}

/// Multiply-adds of a task that is worth handing out: some 10 microseconds.
const TASK: usize = 1 << 20;
/// Pieces of one product for each thread: two, so that one that was late has less to catch up, and more of them where each is
/// as large as this.
const PIECES_OF_A_THREAD: usize = 2;
const LARGE: usize = 1 << 25;
const MOST_OF_A_THREAD: usize = 8;
/// What it costs to fetch a number of a row, or to pack one of a column, in multiply-adds.
const FETCH: usize = 8;
const PACK: usize = 12;

impl Cut {
    /// Of a product's sums over `k` terms at `batch` points.
    pub fn of(gemm: &Gemm, shape: Shape, packed: Packed, (k, batch): (usize, usize), threads: usize) -> Cut {
        let Gemm { m, n, .. } = *gemm;
        let (across, down, strides) = match packed {
            Packed::Right => (n, m, (gemm.a.row_stride, gemm.b.col_stride)),
            Packed::Left => (m, n, (gemm.b.col_stride, gemm.a.row_stride)),
        };
        let one = m * n * k;
        let few = PIECES_OF_A_THREAD * threads;
        let most = (one.saturating_mul(batch) / LARGE).clamp(few, MOST_OF_A_THREAD * threads);
        let pieces = (one / TASK).clamp(1, most.div_ceil(batch));
        let grain = 2 * shape.lanes;
        let of = |beside: usize| {
            let below = pieces.div_ceil(beside);
            let piece = |extent: usize, pieces: usize, grain: usize| {
                extent.div_ceil(grain).div_ceil(pieces).max(1) * grain
            };
            (piece(across, beside, grain), piece(down, below, shape.rows))
        };
        // The least that the busiest thread has to do.
        let cost = |(columns, rows): (usize, usize)| {
            let tasks = across.div_ceil(columns) * down.div_ceil(rows) * batch;
            let packing = if lies(rows, strides.0, strides.1) { FETCH } else { PACK };
            tasks.div_ceil(threads) * (rows * columns + FETCH * rows + packing * columns)
        };
        let (across, down) = (1..=pieces.min(across.div_ceil(grain)))
            .map(of)
            .min_by_key(|piece| cost(*piece))
            .unwrap_or((across, down));
        let batch = if pieces > 1 { 1 } else { (TASK / one.max(1)).clamp(1, batch.div_ceil(few)) };
        Cut { across, down, batch }
    }
}
