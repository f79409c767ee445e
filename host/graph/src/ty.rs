//! Tensor types.

use std::fmt;

use ops::DType;

/// Element type and extents. Stored on every node, checked by inference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ty {
    pub dtype: DType,
    pub dims: Vec<usize>,
}

impl Ty {
    pub fn new(dtype: DType, dims: &[usize]) -> Ty {
        Ty { dtype, dims: dims.to_vec() }
    }

    /// Whether a tensor may have these extents: each from 1 up, and few enough axes and elements.
    pub fn is_supported(dims: &[usize]) -> bool {
        crate::infer::supported(dims).is_ok()
    }

    pub fn scalar(dtype: DType) -> Ty {
        Ty::new(dtype, &[])
    }

    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.dims[axis];
        }
        strides
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.dims)
    }
}
