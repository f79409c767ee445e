//! What is fetched while something else is multiplied.
//!
//! A product of a small operand with a large one passes over the large one once, and waits for memory a third of its time unless what comes
//! next is on its way by then. Each tile fetches a share of it.

use std::ops::Range;

use super::kernel::Ahead;
use super::product::{Product, Side};

/// Floats that are fetched at a time.
pub const LINE: usize = 16;

/// What is to be fetched while some rows are multiplied: by the first tiles the one, by the others the other.
#[derive(Clone, Copy)]
pub struct Next {
    rows: Shares,
    columns: Shares,
    first: usize,
}

/// Memory that is to be fetched: runs of `width` floats.
#[derive(Clone, Copy)]
struct Span {
    start: *const f32,
    width: usize,
    runs: usize,
    stride: usize,
}

/// A span in shares of some tiles: the first begins at the start, each other so many floats after the one before.
#[derive(Clone, Copy)]
struct Shares {
    ahead: Ahead,
    step: usize,
    count: usize,
}

impl Next {
    /// What follows the rows `near`, in shares of so many tiles: as many of the block, or else its first with the terms that
    /// follow.
    pub fn after(
        product: &Product,
        near: &Range<usize>,
        (columns, rows, terms): (&Range<usize>, &Range<usize>, &Range<usize>),
        lies: bool,
        tiles: usize,
    ) -> Next {
        let later = terms.end..product.k.min(terms.end + terms.len());
        let nothing = Shares { ahead: Ahead::NOTHING, step: 0, count: 0 };
        if near.end < rows.end {
            let rows = span(&product.rows, near.end..rows.end.min(near.end + near.len()), terms.clone());
            return Next { rows: rows.shares(tiles), columns: nothing, first: tiles };
        }
        if later.is_empty() {
            return Next { rows: nothing, columns: nothing, first: tiles };
        }
        let rows = span(&product.rows, rows.start..rows.end.min(rows.start + near.len()), later.clone());
        if !lies {
            return Next { rows: rows.shares(tiles), columns: nothing, first: tiles };
        }
        let columns = span(&product.columns, columns.clone(), later);
        let first = (tiles * rows.floats()).div_ceil(rows.floats() + columns.floats());
        Next { rows: rows.shares(first), columns: columns.shares(tiles - first), first }
    }

    /// The share of a tile.
    pub fn share(&self, tile: usize) -> Ahead {
        match tile < self.first {
            true => self.rows.of(tile),
            false => self.columns.of(tile - self.first),
        }
    }
}

/// Where some rows or columns of some terms lie.
fn span(side: &Side, indices: Range<usize>, terms: Range<usize>) -> Span {
    let start = side.at(indices.start, terms.start);
    match side.stride == 1 {
        true => Span { start, width: indices.len(), runs: terms.len(), stride: side.k_stride },
        false => Span { start, width: terms.len(), runs: indices.len(), stride: side.stride },
    }
}

impl Span {
    fn floats(&self) -> usize {
        self.width * self.runs
    }

    fn shares(&self, tiles: usize) -> Shares {
        if self.stride == self.width {
            // One run after another.
            let lines = self.floats().div_ceil(LINE);
            let count = lines.div_ceil(tiles.max(1));
            let ahead = Ahead { start: self.start, stride: LINE, count };
            return Shares { ahead, step: count * LINE, count: lines.div_ceil(count) };
        }
        let ahead = Ahead { start: self.start, stride: self.stride, count: self.runs };
        Shares { ahead, step: LINE, count: self.width.div_ceil(LINE) }
    }
}

impl Shares {
    fn of(&self, index: usize) -> Ahead {
        match index < self.count {
            true => Ahead { start: self.ahead.start.wrapping_add(index * self.step), ..self.ahead },
            false => Ahead::NOTHING,
        }
    }
}
