//! A product as the loops of this folder see it: addresses and strides, whichever operand gives the vectors.

/// Rows or columns of an operand: index i of term l at `start + i * stride + l * k_stride`.
#[derive(Clone, Copy)]
pub struct Side {
    pub start: *const f32,
    pub stride: usize,
    pub k_stride: usize,
}

impl Side {
    pub fn at(&self, index: usize, term: usize) -> *const f32 {
        self.start.wrapping_add(index * self.stride + term * self.k_stride)
    }
}

/// A product at one point of the batch. Of `out` and `c` the first stride is that between rows.
#[derive(Clone, Copy)]
pub struct Product {
    pub k: usize,
    pub alpha: f32,
    pub rows: Side,
    pub columns: Side,
    pub out: (*mut f32, [usize; 2]),
    /// beta and c.
    pub c: Option<(f32, *const f32, [usize; 2])>,
    pub symmetric: bool,
}

impl Product {
    pub fn out_at(&self, row: usize, column: usize) -> *mut f32 {
        let (start, [row_stride, column_stride]) = self.out;
        start.wrapping_add(row * row_stride + column * column_stride)
    }
}
