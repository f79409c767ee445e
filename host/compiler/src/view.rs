//! Strided views of a buffer: what movements become.

use graph::attributes::{pairs, usizes};
use graph::{Graph, Node, Op};

/// Element `offset + sum of strides[i] * index[i]` of a buffer. A stride of 0 repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub offset: usize,
    pub strides: Vec<usize>,
}

impl View {
    /// Row-major over `dims`.
    pub fn contiguous(dims: &[usize]) -> View {
        let mut strides = vec![1; dims.len()];
        for axis in (1..dims.len()).rev() {
            strides[axis - 1] = strides[axis] * dims[axis];
        }
        View { offset: 0, strides }
    }

    /// How a kernel lays its own result out: row-major, but heads of tokens `[B, H, T, D]` as `[B, T, H, D]`, so that
    /// merging them copies nothing.
    pub fn of_kernel(graph: &Graph, node: &Node) -> View {
        let dims = &node.ty.dims;
        let has_heads = match node.op {
            Op::Attention => true,
            // The state of a delta rule, and its cotangent, are matrices.
            Op::Result => match (graph.node(node.inputs[0]).op, node.ints[0]) {
                (Op::GatedDeltaRule, index) => index == 0,
                (_, index) => index < 3,
            },
            _ => false,
        };
        if has_heads && dims.len() == 4 {
            return View::contiguous(&[dims[0], dims[2], dims[1], dims[3]]).permute(&[0, 2, 1, 3]);
        }
        View::contiguous(dims)
    }

    /// Whether the elements over `dims` lie one after another; axes of size 1 do not count.
    pub fn is_contiguous(&self, dims: &[usize]) -> bool {
        let plain = View::contiguous(dims).strides;
        (0..dims.len()).all(|axis| dims[axis] == 1 || self.strides[axis] == plain[axis])
    }

    /// What a movement makes of this view of its operand: None where strides cannot say it.
    pub fn moved(&self, graph: &Graph, movement: &Node) -> Option<View> {
        let (from, to) = (graph.dims(movement.inputs[0]), &movement.ty.dims);
        match movement.op {
            Op::Reshape => self.reshape(from, to),
            Op::Permute => Some(self.permute(&usizes(&movement.ints))),
            Op::Broadcast => Some(self.broadcast(from, to)),
            _ => Some(self.slice(&pairs(&movement.ints).iter().map(|range| range.0).collect::<Vec<_>>())),
        }
    }

    pub fn permute(&self, axes: &[usize]) -> View {
        View { offset: self.offset, strides: axes.iter().map(|axis| self.strides[*axis]).collect() }
    }

    /// Axes of size 1 that grow get stride 0.
    pub fn broadcast(&self, from: &[usize], to: &[usize]) -> View {
        let strides = (0..from.len()).map(|axis| if from[axis] == to[axis] { self.strides[axis] } else { 0 });
        View { offset: self.offset, strides: strides.collect() }
    }

    pub fn slice(&self, starts: &[usize]) -> View {
        let shift: usize = starts.iter().zip(&self.strides).map(|(start, stride)| start * stride).sum();
        View { offset: self.offset + shift, strides: self.strides.clone() }
    }

    /// The same elements under other extents, if strides can say it.
    ///
    /// Both shapes are cut into groups of equal size from the front; within a group the old axes must collapse into
    /// one, which the new axes then split.
    pub fn reshape(&self, from: &[usize], to: &[usize]) -> Option<View> {
        let mut strides = Vec::with_capacity(to.len());
        let (mut old, mut new) = (0, 0);
        while new < to.len() {
            if to[new] == 1 {
                strides.push(0);
                new += 1;
                continue;
            }
            while from[old] == 1 {
                old += 1;
            }
            let (old_start, new_start) = (old, new);
            let (mut old_size, mut new_size) = (from[old], to[new]);
            while old_size != new_size {
                if old_size < new_size {
                    old += 1;
                    old_size *= from[old];
                } else {
                    new += 1;
                    new_size *= to[new];
                }
            }
            let inner = self.collapse(from, old_start..old + 1)?;
            let split = View::contiguous(&to[new_start..=new]).strides;
            strides.extend(split.iter().map(|stride| stride * inner));
            (old, new) = (old + 1, new + 1);
        }
        Some(View { offset: self.offset, strides })
    }

    /// The single stride with which a run of axes is walked in row-major order, if there is one. A run of extent 1
    /// has stride 0.
    pub fn collapse(&self, dims: &[usize], axes: impl DoubleEndedIterator<Item = usize>) -> Option<usize> {
        let mut inner: Option<(usize, usize)> = None;
        for axis in axes.rev().filter(|axis| dims[*axis] > 1) {
            inner = match inner {
                None => Some((self.strides[axis], dims[axis])),
                Some((stride, extent)) if self.strides[axis] == stride * extent => {
                    Some((stride, extent * dims[axis]))
                }
                Some(_) => return None,
            };
        }
        Some(inner.map_or(0, |(stride, _)| stride))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_splits_and_joins_where_strides_allow() {
        let plain = View::contiguous(&[4, 6]);
        assert_eq!(plain.reshape(&[4, 6], &[24]).unwrap().strides, [1]);
        assert_eq!(plain.reshape(&[4, 6], &[2, 2, 1, 6]).unwrap().strides, [12, 6, 0, 1]);
        let turned = plain.permute(&[1, 0]);
        assert_eq!(turned.reshape(&[6, 4], &[3, 2, 4]).unwrap().strides, [2, 1, 6]);
        assert_eq!(turned.reshape(&[6, 4], &[24]), None);
    }

    #[test]
    fn a_slice_of_columns_is_not_contiguous_but_one_of_rows_is() {
        let plain = View::contiguous(&[4, 6]);
        assert!(plain.slice(&[1, 0]).is_contiguous(&[2, 6]));
        assert!(!plain.slice(&[0, 1]).is_contiguous(&[4, 2]));
        assert!(plain.slice(&[0, 1]).is_contiguous(&[1, 2]));
    }
}
