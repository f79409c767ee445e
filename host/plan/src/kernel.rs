//! The tile kernel: a fused cluster of element-wise work and reductions, as data that three printers can read.

use ops::{DType, Op};

/// Index of a [`Value`] in its kernel.
pub type ValueId = usize;

/// A loop nest over `dims`, a DAG of scalar operations at each point, and stores.
///
/// A device evaluates `values` in order for every point of the index space and then performs `stores`. How it tiles
/// the space is its own business; what it may not change is the order of a reduction (see [`Template`]).
#[derive(Clone, Debug, PartialEq)]
pub struct TileKernel {
    /// Extents of the index space, outermost first; never empty, no extent is 0.
    pub dims: Vec<usize>,
    pub template: Template,
    pub bindings: Vec<Binding>,
    pub values: Vec<Value>,
    pub stores: Vec<Store>,
}

/// How the index space is walked, and in what order sums are formed.
///
/// Reductions use 16 logical lanes whatever the hardware: in a row of C elements, lane `l` folds elements
/// `l, l + 16, l + 32, ...` in that order, and the lanes are then folded pairwise: `l` with `l + 8`, `l + 4`,
/// `l + 2`, `l + 1`. Absent lanes hold the identity (0 for Sum, -inf for ReduceMax). So AVX2, AVX-512 and a GPU's
/// printer can give the same bits. A row of more than 65,536 elements (a global norm) is cut into blocks of 8192; each
/// is reduced by lanes and the results are folded in order, so that the blocks of one row can run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// No reduction. All axes are parallel.
    Map,
    /// The last `reduced` axes, in row-major order, form a row. `Reduce` values hold one number per row. Values that
    /// depend on a `Reduce` may be elements again (softmax, norms), over any number of rounds.
    RowReduce { reduced: usize },
    /// Axes are `outer`, then `reduced`, then the rest (at least one). Each `Reduce` folds over the reduced axes; its
    /// result has one number per (outer, inner) point and is only ever stored. The reduced extent N is cut into
    /// blocks of 256 rows of the row-major order; rows of a block are folded in order, blocks are folded in order.
    ColReduce { outer: usize, reduced: usize },
}

/// A memory operand. Several loads may read one binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    pub dtype: DType,
    /// Some store writes it. A binding that is both read and written is updated in place: every load of it has the
    /// same `at` as the store, so each element is read before it is written, by the same point.
    pub written: bool,
}

/// One scalar of the DAG.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub expr: Expr,
    pub dtype: DType,
    pub domain: Domain,
}

/// How often a value changes over the index space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// Once per kernel.
    Uniform,
    /// Once per row (RowReduce), or the result of a `Reduce` (ColReduce). Never occurs in a Map.
    Row,
    /// At every point.
    Element,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Element `at(index)` of a binding, or a gathered one.
    Load { binding: usize, at: Affine, gather: Option<Gather> },
    /// The 32 bits of a constant of the value's dtype (a bool is 0 or 1).
    Const(u32),
    /// `at(index)` as an integer (of the value's dtype, i32 or u32) or as f32.
    Iota(Affine),
    /// An element-wise op of the table; one to four arguments. `Cast` and `Bitcast` go from the argument's dtype to
    /// the value's.
    Apply { op: Op, args: Vec<ValueId> },
    /// `Sum` or `ReduceMax` (f32) of an element value over the template's reduced axes.
    Reduce { op: Op, arg: ValueId },
}

/// `offset + sum of strides[i] * index[i]`, in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Affine {
    pub offset: i64,
    pub strides: Vec<i64>,
}

/// Adds `stride * clamp(index, 0, limit - 1)` to a load's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// An i32 value.
    pub index: ValueId,
    pub stride: i64,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    pub binding: usize,
    pub at: Affine,
    pub value: ValueId,
}

impl TileKernel {
    /// How many numbers one reduction folds; 1 for a Map.
    pub fn reduced_len(&self) -> usize {
        let rank = self.dims.len();
        match self.template {
            Template::Map => 1,
            Template::RowReduce { reduced } => self.dims[rank - reduced..].iter().product(),
            Template::ColReduce { outer, reduced } => self.dims[outer..outer + reduced].iter().product(),
        }
    }

    /// Points of the index space.
    pub fn points(&self) -> usize {
        self.dims.iter().product()
    }
}

impl Affine {
    pub fn new(offset: i64, strides: Vec<i64>) -> Affine {
        Affine { offset, strides }
    }

    /// Smallest and largest value over a box of extents `dims`.
    pub fn range(&self, dims: &[usize]) -> (i64, i64) {
        let reach = |pick: fn(i64, i64) -> i64| -> i64 {
            self.strides.iter().zip(dims).map(|(stride, dim)| pick(0, stride * (*dim as i64 - 1))).sum()
        };
        (self.offset + reach(i64::min), self.offset + reach(i64::max))
    }
}
