//! Matrices in scratch memory, and the passes over their rows that stand between products.

use crate::lanes::{LANES, Lanes};
use crate::product::{Left, Out, Right, pack};

/// Rows of whole lanes, one after another `row` floats apart.
#[derive(Clone, Copy)]
pub struct Block {
    pub ptr: *mut f32,
    pub row: usize,
}

/// Hands out consecutive parts of scratch memory, or only counts what they take.
pub struct Space(pub *mut f32);

impl Space {
    pub fn take(&mut self, floats: usize) -> *mut f32 {
        let start = self.0;
        // Parts begin where a group of lanes does.
        self.0 = start.wrapping_add(floats.next_multiple_of(LANES));
        start
    }

    pub fn block(&mut self, rows: usize, row: usize) -> Block {
        Block { ptr: self.take(rows * row), row }
    }

    /// Floats that `lay` takes.
    pub fn count<R>(lay: impl FnOnce(&mut Space) -> R) -> usize {
        let mut space = Space(std::ptr::null_mut());
        lay(&mut space);
        space.0 as usize / size_of::<f32>()
    }
}

impl Block {
    pub fn at(self, row: usize, column: usize) -> Block {
        Block { ptr: self.ptr.wrapping_add(row * self.row + column), ..self }
    }

    pub fn left(self) -> Left {
        Left { ptr: self.ptr, row: self.row, column: 1 }
    }

    /// Its transpose.
    pub fn turned(self) -> Left {
        Left { ptr: self.ptr, row: 1, column: self.row }
    }

    pub fn right(self) -> Right {
        Right { ptr: self.ptr, row: self.row }
    }

    pub fn out(self) -> Out {
        Out { ptr: self.ptr, row: self.row }
    }

    /// # Safety
    /// The rows lie in the block.
    #[inline(always)]
    pub unsafe fn clear(self, rows: std::ops::Range<usize>) {
        // SAFETY: the caller's.
        unsafe {
            let start = self.at(rows.start, 0).ptr;
            std::slice::from_raw_parts_mut(start, rows.len() * self.row).fill(0.0);
        }
    }

    /// Takes `rows` rows of `width` numbers, with zeros up to the end of the last row and up to whole lanes of rows.
    ///
    /// # Safety
    /// The source is readable, and the block has as many rows and columns.
    #[inline(always)]
    pub unsafe fn fill<L: Lanes>(self, from: Left, rows: usize, width: usize) {
        // SAFETY: the caller's.
        unsafe {
            pack::<L>(from, rows, width, self.ptr);
            self.clear(rows..rows.next_multiple_of(LANES));
        }
    }

    /// The way back.
    ///
    /// # Safety
    /// The target is writable.
    #[inline(always)]
    pub unsafe fn write<L: Lanes>(self, to: Left, rows: usize, width: usize) {
        let whole = if to.column == 1 { width / LANES * LANES } else { 0 };
        // SAFETY: the caller's.
        unsafe {
            for i in 0..rows {
                let (from, to_row) = (self.at(i, 0).ptr, to.ptr.cast_mut().add(i * to.row));
                for d in (0..whole).step_by(LANES) {
                    L::load(from.add(d)).store(to_row.add(d));
                }
                for d in whole..width {
                    *to_row.add(d * to.column) = *from.add(d);
                }
            }
        }
    }

    /// Row i times `factors[i]`, to the rows of `to`, which has rows as long.
    ///
    /// # Safety
    /// Both have so many rows, and there are as many factors.
    #[inline(always)]
    pub unsafe fn scale<L: Lanes>(self, rows: usize, factors: *const f32, to: Block) {
        // SAFETY: the caller's.
        unsafe {
            for i in 0..rows {
                let factor = L::splat(*factors.add(i));
                let (from, to) = (self.at(i, 0).ptr, to.at(i, 0).ptr);
                for d in (0..self.row).step_by(LANES) {
                    L::load(from.add(d)).mul(factor).store(to.add(d));
                }
            }
        }
    }

    /// All of it times one factor.
    ///
    /// # Safety
    /// Both have so many rows.
    #[inline(always)]
    pub unsafe fn scale_all<L: Lanes>(self, rows: usize, factor: f32, to: Block) {
        // SAFETY: the caller's.
        unsafe {
            let factor = L::splat(factor);
            for at in (0..rows * self.row).step_by(LANES) {
                L::load(self.ptr.add(at)).mul(factor).store(to.ptr.add(at));
            }
        }
    }

    /// The transpose of `rows` by `columns` groups of lanes, to `to`.
    ///
    /// # Safety
    /// Both have the rows and columns.
    #[inline(always)]
    pub unsafe fn turn<L: Lanes>(self, [rows, columns]: [usize; 2], to: Block) {
        // SAFETY: the caller's.
        unsafe {
            for i in (0..rows * LANES).step_by(LANES) {
                for j in (0..columns * LANES).step_by(LANES) {
                    let mut square = [L::splat(0.0); LANES];
                    for (row, values) in square.iter_mut().enumerate() {
                        *values = L::load(self.at(i + row, j).ptr);
                    }
                    for (column, values) in L::transpose(square).into_iter().enumerate() {
                        values.store(to.at(j + column, i).ptr);
                    }
                }
            }
        }
    }
}

/// The sum of each of the sixteen rows of lanes from `rows` on.
///
/// # Safety
/// The rows are readable; the instruction set of `L` is there.
#[inline(always)]
pub unsafe fn row_sums<L: Lanes>(rows: *const f32) -> L {
    // SAFETY: the caller's.
    unsafe {
        let mut square = [L::splat(0.0); LANES];
        for (row, values) in square.iter_mut().enumerate() {
            *values = L::load(rows.add(row * LANES));
        }
        let mut sums = L::transpose(square);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] = sums[i].add(sums[i + half]);
            }
            half /= 2;
        }
        sums[0]
    }
}
