//! Operands that many products of a plan share, packed once in a replay.
//!
//! A memory that is read chunk by chunk multiplies the same weights with a few rows again and again. Packed anew each time,
//! they cost half as much as the product; kept in panels, a product only reads.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use plan::{Gemm, LaunchOp, Matrix, Plan, Region};

use super::block::even;
use super::kernel::{Ahead, Columns, Rows, Shape, Sums, TILE};
use super::pack;
use super::product::Product;
use super::tile::write;
use crate::pool::{Pool, TaskPanicked};

/// Most rows of a product that reads kept panels: with more of them, packing is cheap beside it.
const FEW_ROWS: usize = 128;
/// Products that pay for packing once, and for the memory.
const FEWEST_READERS: usize = 3;

/// Terms that are multiplied at a time, with all rows of some tiles: so much of a panel lies in the first cache.
const TERMS: usize = 256;
/// Tiles of one column of them.
const TILES: usize = 12;

/// What a plan keeps.
#[derive(Default)]
pub struct Kept {
    /// For each launch, what it reads, as an index.
    read_by: Vec<Option<usize>>,
    /// Where each begins, in floats.
    starts: Vec<usize>,
    /// Whether it has been packed in this replay.
    ready: Vec<Cell<bool>>,
    /// Floats of all.
    floats: usize,
}

/// The right operand of some products, unchanged from the first of them to the last.
struct Stretch {
    matrix: Matrix,
    extents: (usize, usize),
    readers: Vec<usize>,
}

impl Kept {
    /// What pays to keep.
    pub fn of(plan: &Plan, shape: Option<Shape>) -> Kept {
        let mut kept = Kept { read_by: vec![None; plan.launches.len()], ..Kept::default() };
        let Some(shape) = shape else { return kept };
        for stretch in stretches(plan).into_iter().filter(|stretch| stretch.readers.len() >= FEWEST_READERS) {
            stretch.readers.iter().for_each(|reader| kept.read_by[*reader] = Some(kept.starts.len()));
            kept.starts.push(kept.floats);
            let (k, n) = stretch.extents;
            kept.floats += k * n.next_multiple_of(2 * shape.lanes);
        }
        kept.ready = vec![Cell::new(false); kept.starts.len()];
        kept
    }

    /// Floats of memory that the plan needs.
    pub fn floats(&self) -> usize {
        self.floats
    }

    /// Forgets what was packed: to be called when a replay starts.
    pub fn forget(&self) {
        self.ready.iter().for_each(|ready| ready.set(false));
    }

    /// Whether a launch is a product that reads kept panels.
    pub fn is_read_by(&self, launch: usize) -> bool {
        self.read_by[launch].is_some()
    }

    /// Packs what a launch reads, if that has not been done in this replay.
    ///
    /// # Safety
    /// As for [`super::run`]; `memory` has [`Kept::floats`] floats, which nobody else uses.
    pub unsafe fn prepare(
        &self,
        launch: usize,
        (gemm, shape): (&Gemm, Option<Shape>),
        b: *const f32,
        memory: *mut f32,
        pool: &mut Pool,
    ) -> Result<(), TaskPanicked> {
        let (Some(index), Some(shape)) = (self.read_by[launch], shape) else { return Ok(()) };
        if self.ready[index].replace(true) {
            return Ok(());
        }
        // SAFETY: the caller's; the panels of one operand are its own.
        unsafe { pack_all(gemm, shape, b, memory.add(self.starts[index]), pool) }
    }

    /// The panels that a launch reads, in `memory`; None where it reads none.
    pub fn panels(&self, launch: usize, memory: *mut f32) -> Option<*const f32> {
        self.read_by[launch].map(|index| memory.wrapping_add(self.starts[index]).cast_const())
    }
}

/// Right operands of products of few rows, cut where somebody writes to them.
fn stretches(plan: &Plan) -> Vec<Stretch> {
    type Key = (Region, usize, usize, usize, usize, usize);
    let mut open: HashMap<Key, Stretch> = HashMap::new();
    let mut closed = Vec::new();
    for (index, launch) in plan.launches.iter().enumerate() {
        if let LaunchOp::Gemm(gemm) = &launch.op
            && gemm.batch.is_empty()
            && (2..=FEW_ROWS).contains(&gemm.m)
            && !gemm.symmetric
        {
            let Matrix { slot, row_stride, col_stride } = gemm.b;
            let key = (slot.region, slot.offset, row_stride, col_stride, gemm.k, gemm.n);
            let new = || Stretch { matrix: gemm.b, extents: (gemm.k, gemm.n), readers: Vec::new() };
            open.entry(key).or_insert_with(new).readers.push(index);
        }
        for written in launch.written(&plan.kernels) {
            closed.extend(
                open.extract_if(|_, stretch| stretch.matrix.slot.overlaps(&written)).map(|(_, found)| found),
            );
        }
    }
    closed.extend(open.into_values());
    // In the order of the plan, whatever the map's.
    closed.sort_by_key(|stretch| stretch.readers[0]);
    closed
}

/// Packs the right operand, panel by panel.
///
/// # Safety
/// As for [`Kept::prepare`].
unsafe fn pack_all(
    gemm: &Gemm,
    shape: Shape,
    b: *const f32,
    panels: *mut f32,
    pool: &mut Pool,
) -> Result<(), TaskPanicked> {
    struct Between(*const f32, *mut f32);
    // SAFETY: tasks read b and write different panels.
    unsafe impl Sync for Between {}
    let between = Between(b, panels);
    let between = &between;
    let wide = 2 * shape.lanes;
    pool.run(gemm.n.div_ceil(wide), &|_, task| {
        let columns: Range<usize> = task * wide..gemm.n.min((task + 1) * wide);
        let width = shape.width(columns.len());
        let from = pack::Columns {
            start: between.0.wrapping_add(columns.start * gemm.b.col_stride),
            column_stride: gemm.b.col_stride,
            k_stride: gemm.b.row_stride,
            columns: columns.len(),
            k: gemm.k,
        };
        // SAFETY: the caller's; panels stand in the order of their columns, `k` floats for each column.
        unsafe { pack::pack(from, width, between.1.add(columns.start * gemm.k)) };
    })
}

/// Some columns (`across`) times some rows (`down`) of a product, c included.
///
/// # Safety
/// As for [`super::run`]: `panels` are those of b; nobody else uses this block of the result meanwhile.
pub unsafe fn block_of(
    shape: Shape,
    product: &Product,
    (across, down): (Range<usize>, Range<usize>),
    panels: *const f32,
) {
    let mut tiles = [[0.0f32; TILE]; TILES];
    let height = even(down.len(), shape.rows);
    for column in across.clone().step_by(2 * shape.lanes) {
        let width = shape.width(across.end - column);
        let count = width.min(across.end - column);
        // Each column has k floats, and only the last panel may be narrower.
        let panel = panels.wrapping_add(column * product.k);
        for first in down.clone().step_by(TILES * height) {
            let rows = first..down.end.min(first + TILES * height);
            let used = rows.len().div_ceil(height);
            for term in (0..product.k).step_by(TERMS) {
                let terms = TERMS.min(product.k - term);
                let part = panel.wrapping_add(term * width);
                for (index, tile) in tiles[..used].iter_mut().enumerate() {
                    let row = rows.start + index * height;
                    let start = product.rows.at(row, term);
                    let from =
                        Rows { start, row_stride: product.rows.stride, k_stride: product.rows.k_stride };
                    // The first two tiles fetch the next part, half each: it would come too slowly once it is needed.
                    let ahead = match index {
                        0 | 1 => Ahead {
                            start: part.wrapping_add(terms * width + index * terms * shape.lanes),
                            stride: shape.lanes,
                            count: terms,
                        },
                        // Meanwhile half of this one is pushed out of the first cache.
                        _ => Ahead { start: part, stride: shape.lanes, count: terms },
                    };
                    let high = height.min(rows.end - row);
                    let sums =
                        Sums { start: tile.as_mut_ptr(), row_stride: width, adds: term > 0, end: None };
                    let columns = Columns { start: part, k_stride: width };
                    // SAFETY: the caller's: the rows and the terms are within the block.
                    unsafe { shape.multiply(high, from, columns, (terms, width), sums, ahead) };
                }
            }
            for row in rows.clone() {
                let index = row - rows.start;
                let sums = &tiles[index / height][index % height * width..][..count];
                let addend = product.c.map(|(beta, c, [row_stride, column_stride])| {
                    (beta, c.wrapping_add(row * row_stride + column * column_stride), column_stride)
                });
                let out = (product.out_at(row, column), product.out.1[1]);
                // SAFETY: the caller's: `count` elements of this row of the block.
                unsafe { write(sums, (product.alpha, addend), out) };
            }
        }
    }
}
