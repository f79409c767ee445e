//! Builds one case: operands that reach the op by views, copies and kernels of every kind, the result and what else
//! reads it, and derivatives.
//!
//! Whatever lies between an input and the op moves numbers and rounds none, so that the op is asked about the same
//! numbers on the device and in the interpreter, and its tolerance is its own.

use data::Stream;
use graph::interp::Tensor;
use graph::{DType, Graph, NodeId, Op, Ty, grad};

use super::values::{UNIT, Values};

/// Most elements of an operand whose shape is drawn.
const ELEMENTS: usize = 1500;

pub struct Maker {
    pub seed: u64,
    pub stream: Stream,
    pub graph: Graph,
    pub inputs: Vec<Tensor>,
    pub states: Vec<Tensor>,
    /// Whether derivatives are taken, so that values have to be tame.
    pub differentiates: bool,
    /// Terms of the longest sum that makes one element of the result.
    pub terms: usize,
    /// Inputs of floats.
    wrt: Vec<NodeId>,
}

impl Maker {
    pub fn new(seed: u64, op: Op, differentiates: bool) -> Maker {
        Maker {
            seed,
            stream: Stream::new(seed, op.row().name, 0),
            graph: Graph::default(),
            inputs: Vec::new(),
            states: Vec::new(),
            differentiates,
            terms: 1,
            wrt: Vec::new(),
        }
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.stream.below(n as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn emit(&mut self, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> NodeId {
        self.graph.emit(op, inputs, ints, floats)
    }

    /// Extents around the sizes where tiles and lane groups begin and end; high ranks are rare and small.
    pub fn dims(&mut self, ranks: std::ops::RangeInclusive<usize>) -> Vec<usize> {
        let (low, high) = ranks.into_inner();
        let usual = [low, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, high];
        let rank = self.pick(&usual).clamp(low, high);
        let mut dims = vec![1; rank];
        // The last axes are filled first; the budget is what they leave.
        let mut budget = ELEMENTS;
        for dim in dims.iter_mut().rev() {
            let drawn = self.pick(if rank > 4 { &[1, 2, 3][..] } else { &[1, 2, 3, 5, 15, 16, 17, 33, 257] });
            *dim = drawn.min(budget);
            budget = (budget / *dim).max(1);
        }
        if self.below(3) == 0 {
            dims.reverse();
        }
        dims
    }

    pub fn order(&mut self, rank: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..rank).collect();
        for place in (1..rank).rev() {
            order.swap(place, self.stream.below(place as u64 + 1) as usize);
        }
        order
    }

    fn tensor(&mut self, dtype: DType, dims: &[usize], values: Values) -> Tensor {
        let ty = Ty::new(dtype, dims);
        let data = (0..ty.elements()).map(|_| values.draw(dtype, &mut self.stream)).collect();
        Tensor { ty, data }
    }

    pub fn input(&mut self, dtype: DType, dims: &[usize], values: Values) -> NodeId {
        let tensor = self.tensor(dtype, dims, values);
        let id = self.graph.input(&format!("x{}", self.inputs.len()), tensor.ty.clone());
        self.inputs.push(tensor);
        if dtype.is_float() {
            self.wrt.push(id);
        }
        id
    }

    pub fn state(&mut self, dtype: DType, dims: &[usize], values: Values) -> NodeId {
        let tensor = self.tensor(dtype, dims, values);
        let id = self.graph.state(&format!("s{}", self.states.len()), tensor.ty.clone());
        self.states.push(tensor);
        id
    }

    /// A value by up to four steps from inputs.
    pub fn operand(&mut self, dtype: DType, dims: &[usize], values: Values) -> NodeId {
        let steps = self.below(5);
        self.steps(dtype, dims, values, steps)
    }

    fn steps(&mut self, dtype: DType, dims: &[usize], values: Values, left: usize) -> NodeId {
        let rank = dims.len();
        if left == 0 {
            return self.input(dtype, dims, values);
        }
        let left = left - 1;
        let axis = self.below(rank.max(1));
        match self.below(9) {
            0 if rank > 1 => {
                let axes = self.order(rank);
                let mut inner = vec![0; rank];
                axes.iter().zip(dims).for_each(|(from, dim)| inner[*from] = *dim);
                let x = self.steps(dtype, &inner, values, left);
                self.emit(Op::Permute, &[x], &ints(&axes), &[])
            }
            1 if rank > 0 => {
                let (mut inner, mut ranges) = (dims.to_vec(), Vec::new());
                for dim in &mut inner {
                    let (before, after) =
                        if self.below(2) == 0 { (self.below(3), self.below(3)) } else { (0, 0) };
                    ranges.extend([before, *dim]);
                    *dim += before + after;
                }
                let x = self.steps(dtype, &inner, values, left);
                self.emit(Op::Slice, &[x], &ints(&ranges), &[])
            }
            2 if rank > 0 => {
                let inner: Vec<usize> =
                    dims.iter().map(|dim| if self.below(2) == 0 { 1 } else { *dim }).collect();
                let x = self.steps(dtype, &inner, values, left);
                self.emit(Op::Broadcast, &[x], &ints(dims), &[])
            }
            3 => {
                let total: usize = dims.iter().product();
                let rows = dims.first().copied().unwrap_or(1);
                let inner = [vec![total], vec![total / rows, rows], vec![1, total]][self.below(3)].clone();
                let x = self.steps(dtype, &inner, values, left);
                self.emit(Op::Reshape, &[x], &ints(dims), &[])
            }
            4 => {
                let x = self.steps(dtype, dims, values, left);
                self.emit(Op::Copy, &[x], &[], &[])
            }
            5 => {
                let [x, y] = [0, 1].map(|_| self.steps(dtype, dims, values, left.min(1)));
                let mask = self.input(DType::Bool, dims, Values::Any);
                self.emit(Op::Select, &[mask, x, y], &[], &[])
            }
            6 if rank > 0 && dims[axis] > 1 => {
                let first = 1 + self.below(dims[axis] - 1);
                let parts = [first, dims[axis] - first].map(|extent| {
                    let mut inner = dims.to_vec();
                    inner[axis] = extent;
                    self.steps(dtype, &inner, values, left.min(1))
                });
                self.emit(Op::Concat, &parts, &[axis as i64], &[])
            }
            7 if rank > 0 && dims[axis] > 2 => {
                let mut inner = dims.to_vec();
                inner[axis] -= 2;
                let mut margins = vec![0; 2 * rank];
                (margins[2 * axis], margins[2 * axis + 1]) = (1, 1);
                let fill = values.draw(dtype, &mut self.stream);
                let x = self.steps(dtype, &inner, values, left);
                self.emit(Op::Pad, &[x], &margins, &[fill])
            }
            8 if self.below(2) == 0 => {
                let value = values.draw(dtype, &mut self.stream);
                self.graph.constant(value, dtype, dims)
            }
            _ => self.steps(dtype, dims, values, left),
        }
    }

    /// Outputs the results, for some seeds with kernels that read them again; then gradients of a weighing of them, and
    /// of a weighing of those, as often as `order` says. Returns which order of derivative each output is.
    pub fn finish(&mut self, results: &[NodeId], order: usize) -> Vec<usize> {
        for (index, result) in results.iter().enumerate() {
            self.graph.output(&format!("y{index}"), *result);
            if self.below(3) == 0 {
                let axes = self.order(self.graph.ty(*result).rank());
                let moved = self.emit(Op::Permute, &[*result], &ints(&axes), &[]);
                let again = match self.graph.ty(*result).dtype {
                    DType::F32 => Op::Neg,
                    _ => Op::Copy,
                };
                let again = self.emit(again, &[moved], &[], &[]);
                self.graph.output(&format!("y{index}.again"), again);
            }
        }
        let mut orders = vec![0; self.graph.outputs.len()];
        let wrt = self.wrt.clone();
        let is_float = |id: &NodeId, graph: &Graph| graph.ty(*id).dtype.is_float();
        let mut of: Vec<NodeId> = results.iter().copied().filter(|id| is_float(id, &self.graph)).collect();
        for derivative in 1..=order {
            if of.is_empty() {
                break;
            }
            let loss = self.weigh(&of);
            of = grad(&mut self.graph, loss, &wrt).into_iter().flatten().collect();
            for (index, ct) in of.iter().enumerate() {
                self.graph.output(&format!("ct{derivative}.{index}"), *ct);
            }
            orders.resize(self.graph.outputs.len(), derivative);
        }
        orders
    }

    /// Sum of all elements, each times a number that arrives as an input.
    fn weigh(&mut self, of: &[NodeId]) -> NodeId {
        let mut sum = self.graph.constant(0.0, DType::F32, &[]);
        for x in of {
            let dims = self.graph.dims(*x).to_vec();
            let weights = self.tensor(DType::F32, &dims, UNIT);
            let name = format!("weights{}", self.inputs.len());
            let id = self.graph.input(&name, weights.ty.clone());
            self.inputs.push(weights);
            let product = self.emit(Op::Mul, &[*x, id], &[], &[]);
            let all: Vec<usize> = (0..dims.len()).collect();
            let total = self.emit(Op::Sum, &[product], &ints(&all), &[]);
            let total = self.emit(Op::Reshape, &[total], &[], &[]);
            sum = self.emit(Op::Add, &[sum, total], &[], &[]);
        }
        sum
    }
}

pub fn ints(values: &[usize]) -> Vec<i64> {
    values.iter().map(|value| *value as i64).collect()
}
