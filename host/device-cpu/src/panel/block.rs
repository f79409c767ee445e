//! The loops around the kernel: some packed columns of a product times some of its rows, at one point of the batch.
//!
//! What is multiplied next lies in the caches by then. A panel of columns and as many terms as the first cache holds are
//! multiplied with a few tiles of rows, then the next panel with the same rows, which meanwhile lie in the second cache, and
//! all the while each tile fetches its share of the rows that follow. Where both operands lie with what a tile reads
//! side by side, nothing is packed: a few terms of all rows and columns are in the caches at once, and sums wait in the result.

use std::ops::Range;

use super::ahead::{LINE, Next};
use super::kernel::{Ahead, Columns, Shape};
use super::product::Product;
use super::{pack, tile};

/// Floats of packed columns of a thread: half of a second cache.
pub const PANEL: usize = 1 << 17;
/// Terms that are multiplied at a time: of two vectors, they fill most of a first cache.
const TERMS: usize = 256;
/// Packed columns where their sums are too long to pack all of them.
const WIDE: usize = 256;
/// Rows that stay in the second cache while they are multiplied with all packed columns.
const ROWS: usize = 48;
/// Terms at a time where nothing is packed.
const FEW_TERMS: usize = 64;
/// Rows of a block then, and sums, which should stay in the second cache.
const TALL: usize = 512;
const NEAR: usize = 1 << 16;
/// Tiles that fetch what follows of a panel: it would come too slowly once it is needed.
const PANEL_TILES: usize = 2;

/// Whether columns are read where they lie: for a few rows packing does not pay, and where rows lie side by side as well, less
/// comes into the caches than packed columns would take.
pub fn lies(rows: usize, row_stride: usize, column_stride: usize) -> bool {
    column_stride == 1 && (rows <= ROWS || row_stride == 1)
}

/// How often a tile of sums over `k` terms is written.
pub fn rounds(k: usize, lies: bool) -> usize {
    k.div_ceil(if lies { FEW_TERMS } else { TERMS })
}

/// Some columns (`across`) times some rows (`down`), c included. Of a symmetric result that is what lies below the
/// diagonal of these, and its mirror image.
///
/// # Safety
/// The operands are those of a valid product; nobody else uses this block of the result or the `scratch` of [`PANEL`]
/// floats meanwhile.
pub unsafe fn block_of(
    shape: Shape,
    product: &Product,
    (across, down): (Range<usize>, Range<usize>),
    scratch: *mut f32,
) {
    let grain = 2 * shape.lanes;
    let k = product.k;
    let lies = lies(down.len(), product.rows.stride, product.columns.stride);
    let (wide, tall, terms) = if lies {
        let tall = TALL.min(down.len());
        ((NEAR / tall).next_multiple_of(grain), tall, FEW_TERMS)
    } else if down.len() <= ROWS && k * grain <= PANEL {
        // For a few rows packing takes longest: a panel is multiplied while it still lies near.
        (grain, down.len(), k)
    } else if k * across.len().next_multiple_of(grain) <= PANEL {
        (across.len(), down.len(), k)
    } else {
        let wide = WIDE.min(across.len());
        (wide, down.len(), PANEL / wide.next_multiple_of(grain) / TERMS * TERMS)
    };
    for columns in cut(&across, wide) {
        for rows in cut(&down, tall) {
            let columns = match product.symmetric {
                true => columns.start..columns.end.min(rows.end),
                false => columns.clone(),
            };
            for terms in cut(&(0..k), terms) {
                // SAFETY: the caller's: this is part of the block, and its panels fit the scratch.
                unsafe { round(shape, product, (columns.clone(), rows.clone(), terms), lies, scratch) };
            }
        }
    }
}

/// A range in pieces of a length, the last as long as is left.
fn cut(range: &Range<usize>, length: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let range = range.clone();
    range.clone().step_by(length).map(move |start| start..range.end.min(start + length))
}

/// Some terms of all sums of a block.
///
/// # Safety
/// As for [`block_of`].
unsafe fn round(
    shape: Shape,
    product: &Product,
    (columns, rows, terms): (Range<usize>, Range<usize>, Range<usize>),
    lies: bool,
    scratch: *mut f32,
) {
    let grain = 2 * shape.lanes;
    let panels = || columns.clone().step_by(grain).map(|first| (first, shape.width(columns.end - first)));
    let is_packed = |first: usize, width: usize| !lies || first + width > columns.end;
    // Panels stand in the order of their columns; where the others lie, the last stands alone.
    let place = |first: usize| if lies { 0 } else { (first - columns.start) * terms.len() };
    for (first, width) in panels().filter(|(first, width)| is_packed(*first, *width)) {
        let from = pack::Columns {
            start: product.columns.at(first, terms.start),
            column_stride: product.columns.stride,
            k_stride: product.columns.k_stride,
            columns: width.min(columns.end - first),
            k: terms.len(),
        };
        // SAFETY: the caller's: the columns are within the block, and its panels fit the scratch.
        unsafe { pack::pack(from, width, scratch.add(place(first))) };
    }
    let height = even(rows.len(), shape.rows);
    let beside = lies && product.rows.stride == 1;
    let some = if beside { rows.len() } else { (ROWS / height).max(1) * height };
    for near in cut(&rows, some) {
        // The first tiles of a panel fetch more of it, the others what comes after these rows.
        let tiles = near.len().div_ceil(height);
        let of_panels = if beside { 0 } else { PANEL_TILES.min(tiles) };
        let visits = panels().count() * terms.len().div_ceil(TERMS);
        let blocks = (&columns, &rows, &terms);
        let next = Next::after(product, &near, blocks, lies, visits * (tiles - of_panels));
        let mut index = 0;
        for (first, width) in panels() {
            let is_packed = is_packed(first, width);
            for part in cut(&terms, TERMS) {
                let from = match is_packed {
                    true => Columns {
                        start: scratch.wrapping_add(place(first) + (part.start - terms.start) * width),
                        k_stride: width,
                    },
                    false => Columns {
                        start: product.columns.at(first, part.start),
                        k_stride: product.columns.k_stride,
                    },
                };
                for (at, tile) in cut(&near, height).enumerate() {
                    let ahead = if at >= of_panels {
                        index += 1;
                        next.share(index - 1)
                    } else if is_packed {
                        let lines = part.len() * width / LINE / of_panels;
                        let start = from.start.wrapping_add(part.len() * width + at * lines * LINE);
                        Ahead { start, stride: LINE, count: lines }
                    } else {
                        let start = product.columns.at(first + width + at * LINE, part.start);
                        Ahead { start, stride: product.columns.k_stride, count: part.len() }
                    };
                    // What lies above a diagonal is another tile's mirror image.
                    if product.symmetric && tile.end <= first {
                        continue;
                    }
                    let count = width.min(columns.end - first);
                    // SAFETY: the caller's: the tile is within the block.
                    unsafe {
                        tile::tile_of(shape, product, (tile, first..first + count), part.clone(), from, ahead)
                    };
                }
            }
        }
    }
}

/// The height of as few tiles as rows need, all as high as each other but for the last.
pub fn even(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1))
}
