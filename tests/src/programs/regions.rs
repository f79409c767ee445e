//! Random loops and conditions: bodies are drawn like everything else, and may hold regions themselves.

use graph::{DType, NodeId, Op, ScanOptions, Ty};

use super::Maker;

/// Deepest nesting of regions.
const MAX_DEPTH: usize = 2;
/// Most steps of a loop.
const MAX_STEPS: usize = 5;

impl Maker<'_> {
    /// A Scan that carries x, over slices of another value where one fits. Gives the last carry; the stacked ys become
    /// a value too.
    pub(super) fn looped(&mut self, x: NodeId, dims: &[usize]) -> NodeId {
        if self.depth == MAX_DEPTH {
            return x;
        }
        let sliced = self.values.iter().copied().rev().find(|id| {
            let dims = self.graph.dims(*id);
            dims.len() > 1 && dims[0] <= MAX_STEPS
        });
        let length = sliced.map_or(1 + self.below(3) as usize, |id| self.graph.dims(id)[0]);
        let options = ScanOptions { reverse: self.below(2) == 1, recompute: self.below(2) == 1 };
        let xs: Vec<NodeId> = sliced.into_iter().collect();
        let inside = self.graph.open_scan(length, &[x], &xs, options);
        let known = self.values.len();
        self.steps.push(inside[0]);
        self.values.extend(&inside[1..]);
        self.inner_steps();
        let other = self.same_shape(dims);
        let sum = self.emit(Op::Add, &[inside[1], other], &[], &[]);
        let next = self.emit(Op::Tanh, &[sum], &[], &[]);
        let y = self.values[self.values.len() - 1];
        self.steps.pop();
        self.values.truncate(known);
        let fits = self.graph.ty(y).elements() * length <= 20_000 && self.graph.dims(y).len() < 4;
        let results: Vec<NodeId> = if fits { vec![next, y] } else { vec![next] };
        let results = self.graph.close_region(&results);
        self.values.extend(&results[1..]);
        results[0]
    }

    /// A When that changes x, by the step of an enclosing Scan or by a counter of the host's.
    pub(super) fn sometimes(&mut self, x: NodeId, dims: &[usize]) -> NodeId {
        if self.depth == MAX_DEPTH {
            return x;
        }
        let counter = match self.steps.last().copied() {
            Some(step) if self.below(2) == 0 => step,
            _ => self.graph.input("counter", Ty::scalar(DType::I32)),
        };
        let period = 1 + self.below(3);
        let offset = self.below(period);
        let inside = self.graph.open_when(counter, period as usize, offset as usize, &[x]);
        let known = self.values.len();
        self.values.extend(&inside);
        self.inner_steps();
        let other = self.same_shape(dims);
        let new = self.emit(Op::Sub, &[inside[0], other], &[], &[]);
        let new = self.emit(Op::Tanh, &[new], &[], &[]);
        self.values.truncate(known);
        self.graph.close_region(&[new])[0]
    }

    fn inner_steps(&mut self) {
        self.depth += 1;
        for _ in 0..1 + self.below(3) {
            self.step();
        }
        self.depth -= 1;
    }
}
