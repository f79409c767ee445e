//! What a tile kernel becomes at load: short lists of steps over registers of a tile's size.
//!
//! Each value of the kernel is a [`View`]: a pointer with a step per row and a mask per column. That one form holds a
//! register of the tile, one number per row or column, a constant, and an operand read in place, so every step has
//! one inner loop. Numbers that do not vary by column are kept as 16 equal lanes.

use ops::{DType, Op};

use super::shape::{Address, Shape};

/// Logical lanes of a reduction and of every inner loop.
pub const LANES: usize = 16;
/// Parts in which what a tile reads and writes is prefetched: more at once than some tens of lines would block the machine.
pub const PREFETCH_PARTS: usize = 8;
/// Rows of a block of a column reduction; part of the plan's contract.
pub const BLOCK_ROWS: usize = 256;
/// Rows longer than this are reduced block by block; part of the plan's contract.
pub const LONG_ROW: usize = 65_536;
/// Columns of such a block; part of the plan's contract.
pub const LONG_BLOCK: usize = 8192;

/// Along which axes of a tile a value varies; says how large its register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Uniform,
    /// The same in each row.
    Column,
    /// The same in each column.
    Row,
    Element,
}

impl Class {
    pub fn new(by_row: bool, by_column: bool) -> Class {
        match (by_row, by_column) {
            (false, false) => Class::Uniform,
            (false, true) => Class::Column,
            (true, false) => Class::Row,
            (true, true) => Class::Element,
        }
    }

    pub fn by_row(self) -> bool {
        matches!(self, Class::Row | Class::Element)
    }

    pub fn by_column(self) -> bool {
        matches!(self, Class::Column | Class::Element)
    }

    pub fn join(self, other: Class) -> Class {
        Class::new(self.by_row() || other.by_row(), self.by_column() || other.by_column())
    }
}

/// One step. Values and addresses are indices into the program's lists.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Load {
        out: usize,
        binding: usize,
        address: usize,
        class: Class,
        in_place: bool,
    },
    Gather {
        out: usize,
        binding: usize,
        address: usize,
        class: Class,
        index: usize,
        stride: i64,
        limit: usize,
    },
    Iota {
        out: usize,
        address: usize,
        class: Class,
        dtype: DType,
    },
    /// `dtype` is that of the first argument, or for Select of the second; `to` that of the result.
    Apply {
        out: usize,
        op: Op,
        args: [usize; 4],
        dtype: DType,
        to: DType,
        class: Class,
    },
    /// Random words of the elements at an address along which columns follow each other; `args` are the key and the
    /// second counter word.
    RandomWords {
        out: usize,
        address: usize,
        args: [usize; 3],
        class: Class,
    },
    /// Folds the tile's columns into 16 lanes per row.
    Accumulate {
        out: usize,
        arg: usize,
        fold: Fold,
    },
    /// Folds 16 lanes into one number per row, in place.
    FoldLanes {
        out: usize,
        fold: Fold,
    },
    /// Folds the tile's rows into one number per column.
    AccumulateRows {
        out: usize,
        arg: usize,
        fold: Fold,
    },
    Store {
        binding: usize,
        address: usize,
        value: usize,
    },
    /// Asks for a part of what a load will find in place in the next tile.
    Prefetch {
        value: usize,
        part: usize,
    },
    /// Asks for a part of what this tile will store.
    PrefetchStore {
        binding: usize,
        address: usize,
        part: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    Sum,
    /// Of a NaN and a number, the number.
    Max,
}

impl Fold {
    pub fn identity(self) -> f32 {
        match self {
            Fold::Sum => 0.0,
            Fold::Max => f32::NEG_INFINITY,
        }
    }

    #[inline(always)]
    pub fn apply(self, total: f32, x: f32) -> f32 {
        match self {
            Fold::Sum => total + x,
            Fold::Max if x > total => x,
            Fold::Max => total,
        }
    }
}

/// How the tiles are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Tiles are independent: Map, and RowReduce with whole rows in a tile.
    Tiles,
    /// RowReduce whose elements are not used again: a row passes chunk by chunk.
    Stream,
    /// As Stream, in blocks of LONG_BLOCK columns and a second stage.
    Long,
    /// ColReduce: blocks of BLOCK_ROWS rows and a second stage.
    Columns,
}

/// A value at run time: lane `l` of column group `g` of row `r` is `ptr[r * row_step + (16 * g & mask) + l]`.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub ptr: *mut u32,
    pub row_step: isize,
    /// All ones, or 0 where all columns share one group.
    pub mask: usize,
}

/// Where a value's view starts out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Unused,
    Constant(usize),
    /// Offset in a worker's scratch, in elements.
    Scratch {
        offset: usize,
        class: Class,
    },
}

pub struct Program {
    pub shape: Shape,
    pub addresses: Vec<Address>,
    pub walk: Walk,
    /// Rows and columns of a tile, and elements from one row of a register to the next.
    pub tile_rows: usize,
    pub tile_columns: usize,
    pub pitch: usize,
    /// Run once per task; once per run of tiles over the same columns.
    pub once: Vec<Step>,
    /// Run once per tile, or per group of rows that passes chunk by chunk.
    pub rows: Vec<Step>,
    /// Run for each tile.
    pub body: Vec<Step>,
    /// Ends the reductions of a streamed row.
    pub folds: Vec<Step>,
    /// What is computed from finished reductions; empty for Walk::Tiles.
    pub finish: Vec<Step>,
    pub reductions: Vec<(usize, Fold)>,
    pub places: Vec<Place>,
    pub constants: Vec<[u32; LANES]>,
    /// Elements of scratch one worker needs.
    pub scratch: usize,
    /// Elements of block results between the stages of a two-stage walk.
    pub partials: usize,
}

/// The tile being computed.
pub struct Tile<'a> {
    pub program: &'a Program,
    pub bindings: &'a [*mut u32],
    /// One per value of the kernel.
    pub views: &'a mut [View],
    /// The worker's registers.
    pub registers: *mut u32,
    pub plane: usize,
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    /// Reductions start with this tile.
    pub first: bool,
}

impl Tile<'_> {
    /// The view of a value's own register or constant.
    pub fn home(&self, value: usize) -> View {
        let program = self.program;
        match program.places[value] {
            Place::Unused => View { ptr: std::ptr::null_mut(), row_step: 0, mask: 0 },
            // Constants are only read.
            Place::Constant(index) => {
                View { ptr: program.constants[index].as_ptr().cast_mut(), row_step: 0, mask: 0 }
            }
            Place::Scratch { offset, class } => {
                let (row_step, mask) = match class {
                    Class::Uniform => (0, 0),
                    Class::Column => (0, usize::MAX),
                    Class::Row => (LANES as isize, 0),
                    Class::Element => (program.pitch as isize, usize::MAX),
                };
                View { ptr: self.registers.wrapping_add(offset), row_step, mask }
            }
        }
    }

    /// Rows and groups of 16 columns that a value of this class has.
    pub fn extent(&self, class: Class) -> (usize, usize) {
        let rows = if class.by_row() { self.rows } else { 1 };
        let groups = if class.by_column() { self.columns.div_ceil(LANES) } else { 1 };
        (rows, groups)
    }
}
