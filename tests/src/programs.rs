//! Random graphs, correct by construction: each step draws an op and operands that fit.

mod regions;

use data::Stream;
use graph::{DType, Graph, NodeId, Op, Ty, grad};

/// A graph over inputs `x0..`, with outputs of several nodes and, for half the seeds, of gradients and a State write.
pub fn random_graph(seed: u64) -> Graph {
    chosen_graph(&[], seed)
}

/// As `random_graph`, but each choice takes a byte while there are any: for a fuzzer, which sees what a byte changes.
pub fn chosen_graph(choices: &[u8], seed: u64) -> Graph {
    let stream = Stream::new(seed, "graph", 0);
    let graph = Graph::default();
    let mut maker = Maker { choices, stream, graph, values: Vec::new(), steps: Vec::new(), depth: 0 };
    let count = 2 + maker.below(2);
    for index in 0..count {
        let dims = maker.dims();
        let input = maker.graph.input(&format!("x{index}"), Ty::new(DType::F32, &dims));
        maker.values.push(input);
    }
    for _ in 0..6 + maker.below(14) {
        maker.step();
    }
    maker.finish(seed)
}

struct Maker<'c> {
    choices: &'c [u8],
    stream: Stream,
    graph: Graph,
    /// f32 values so far.
    values: Vec<NodeId>,
    /// Indices of the steps of the Scans that are open.
    steps: Vec<NodeId>,
    /// Regions that are open.
    depth: usize,
}

impl Maker<'_> {
    fn below(&mut self, n: u64) -> u64 {
        match self.choices.split_first() {
            Some((choice, rest)) => {
                self.choices = rest;
                u64::from(*choice) % n
            }
            None => self.stream.below(n),
        }
    }

    /// Ranks 1 to 4; sizes that are 1, odd, small or a little over a lane group.
    fn dims(&mut self) -> Vec<usize> {
        let sizes = [1, 1, 2, 3, 5, 8, 17, 33];
        (0..1 + self.below(4)).map(|_| sizes[self.below(8) as usize]).collect()
    }

    fn pick(&mut self) -> NodeId {
        // Recent values more often, so that chains grow.
        let (n, recent) = (self.values.len() as u64, self.below(2) == 0);
        let index = if recent { n - 1 - self.below(n.min(3)) } else { self.below(n) };
        self.values[index as usize]
    }

    fn emit(&mut self, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> NodeId {
        self.graph.emit(op, inputs, ints, floats)
    }

    fn repeat(&mut self, x: NodeId, dims: &[usize]) -> NodeId {
        let ints: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
        self.emit(Op::Broadcast, &[x], &ints, &[])
    }

    fn step(&mut self) {
        let x = self.pick();
        let dims = self.graph.dims(x).to_vec();
        let rank = dims.len();
        let axis = self.below(rank as u64) as usize;
        let new = match self.below(24) {
            0 | 1 => {
                let ops = [Op::Neg, Op::Tanh, Op::Sin, Op::Cos, Op::Erf, Op::Copy];
                let op = ops[self.below(6) as usize];
                self.emit(op, &[x], &[], &[])
            }
            2 => {
                let bounded = self.emit(Op::Tanh, &[x], &[], &[]);
                self.emit(Op::Exp, &[bounded], &[], &[])
            }
            3..6 => {
                let other = self.same_shape(&dims);
                let ops = [Op::Add, Op::Sub, Op::Mul, Op::Max, Op::Min];
                let op = ops[self.below(5) as usize];
                self.emit(op, &[x, other], &[], &[])
            }
            6 => {
                let other = self.same_shape(&dims);
                let less = self.emit(Op::Lt, &[x, other], &[], &[]);
                self.emit(Op::Select, &[less, other, x], &[], &[])
            }
            7 | 8 => {
                // Fold an axis and use the result beside the elements, as norms do.
                let op = if self.below(3) == 0 { Op::ReduceMax } else { Op::Sum };
                let folded = self.emit(op, &[x], &[axis as i64], &[]);
                if self.below(3) == 0 {
                    folded
                } else {
                    let scale =
                        self.graph.constant(0.1, DType::F32, self.graph.dims(folded).to_vec().as_slice());
                    let small = self.emit(Op::Mul, &[folded, scale], &[], &[]);
                    let repeated = self.repeat(small, &dims);
                    self.emit(Op::Sub, &[x, repeated], &[], &[])
                }
            }
            9 => {
                let axes: Vec<i64> = (0..rank as i64).rev().collect();
                self.emit(Op::Permute, &[x], &axes, &[])
            }
            10 => {
                let total: usize = dims.iter().product();
                let first =
                    (1..=dims[0]).rev().find(|d| dims[0].is_multiple_of(*d) && *d < dims[0]).unwrap_or(1);
                self.emit(Op::Reshape, &[x], &[first as i64, (total / first) as i64], &[])
            }
            11 => {
                let mut ranges: Vec<i64> = dims.iter().flat_map(|dim| [0, *dim as i64]).collect();
                let start = self.below(dims[axis] as u64) as i64;
                ranges[2 * axis] = start;
                ranges[2 * axis + 1] = dims[axis] as i64 - start;
                self.emit(Op::Slice, &[x], &ranges, &[])
            }
            12 => {
                let mut margins = vec![0; 2 * rank];
                margins[2 * axis] = self.below(3) as i64;
                margins[2 * axis + 1] = self.below(3) as i64;
                self.emit(Op::Pad, &[x], &margins, &[0.5])
            }
            13 => {
                let other = self.same_shape(&dims);
                self.emit(Op::Concat, &[x, other], &[axis as i64], &[])
            }
            14 => {
                // Contract one axis with the same axis of a value of the same shape.
                let other = self.same_shape(&dims);
                let scaled = self.emit(Op::Tanh, &[other], &[], &[]);
                if 2 * (rank - 1) > 6 {
                    return;
                }
                let axes = [0, 1, axis as i64, axis as i64];
                let product = self.emit(Op::Dot, &[x, scaled], &axes, &[0.3]);
                let result = self.graph.dims(product).to_vec();
                if self.below(2) == 0 || result.is_empty() || self.graph.ty(product).elements() > 20_000 {
                    product
                } else {
                    let added = self.same_shape(&result);
                    let added = if self.below(2) == 0 { self.turned(added) } else { added };
                    self.emit(Op::Dot, &[x, scaled, added], &axes, &[0.3, -0.5])
                }
            }
            15 => {
                let rows = dims[0] as i64;
                let index = self.emit(Op::Iota, &[], &[0, DType::I32 as i64, 5], &[]);
                let gathered = self.emit(Op::Gather, &[x, index], &[], &[]);
                if self.below(2) == 0 {
                    gathered
                } else {
                    self.emit(Op::ScatterAdd, &[gathered, index], &[rows.max(3)], &[])
                }
            }
            16 => self.remainder(x, &dims),
            17 => self.noise(&dims),
            18 => {
                let length = 1 + self.below(dims[axis] as u64) as i64;
                let start = self.position();
                self.emit(Op::DynSlice, &[x, start], &[axis as i64, length], &[])
            }
            19 => self.place(),
            20 => self.running_sum(x, &dims, axis),
            21 => self.looped(x, &dims),
            22 => self.sometimes(x, &dims),
            _ => {
                let mut inner = dims.clone();
                inner[axis] = 1 + self.below(dims[axis] as u64) as usize;
                let (update, start) = (self.same_shape(&inner), self.position());
                self.emit(Op::DynUpdateSlice, &[x, update, start], &[axis as i64], &[])
            }
        };
        let fits =
            new != NodeId::POISON && self.graph.ty(new).elements() <= 20_000 && self.graph.ty(new).rank() > 0;
        if fits {
            self.values.push(new);
        }
    }

    /// Bounded by a divisor between 1.07 and 1.67: rounding then moves no quotient over a whole number, but by a
    /// chance too small to occur.
    fn remainder(&mut self, x: NodeId, dims: &[usize]) -> NodeId {
        let other = self.same_shape(dims);
        let near_zero = self.emit(Op::Tanh, &[other], &[], &[]);
        let divisor = self.affine(near_zero, 0.3, 1.37);
        let bounded = self.emit(Op::Tanh, &[x], &[], &[]);
        let dividend = self.affine(bounded, 5.0, 0.1);
        self.emit(Op::Rem, &[dividend, divisor], &[], &[])
    }

    /// Uniform numbers in [0, 1), exact in f32: the upper 24 bits of a random word for each element.
    fn noise(&mut self, dims: &[usize]) -> NodeId {
        let count = dims.iter().product::<usize>() as i64;
        let shape: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
        let index = self.emit(Op::Iota, &[], &[0, DType::U32 as i64, count], &[]);
        let index = self.emit(Op::Reshape, &[index], &shape, &[]);
        let mut word = |limit: u64| {
            let value = self.below(limit) as f64;
            self.graph.constant(value, DType::U32, dims)
        };
        let [key, stream, counter, zero] = [word(1 << 32), word(1 << 32), word(3), word(1)];
        let words = self.emit(Op::Rand, &[index, key, stream, counter], &[], &[]);
        // The same words again by way of another key: what is loaded, computed or constant differs.
        let other = self.emit(Op::Xor, &[words, stream], &[], &[]);
        let words = self.emit(Op::Rand, &[zero, other, words, counter], &[], &[]);
        let eight = self.graph.constant(8.0, DType::U32, dims);
        let upper = self.emit(Op::Shr, &[words, eight], &[], &[]);
        let numbers = self.emit(Op::Cast, &[upper], &[DType::F32 as i64], &[]);
        self.affine(numbers, 0.5f64.powi(24), 0.0)
    }

    /// An i32[] in -8..=8: known, or made from an input, which no rounding has touched.
    fn position(&mut self) -> NodeId {
        if self.below(3) == 0 {
            let value = self.below(17) as f64 - 8.0;
            return self.graph.constant(value, DType::I32, &[]);
        }
        let input = self.below(2) as usize;
        let x = self.values[input];
        let corner: Vec<i64> = self.graph.dims(x).iter().flat_map(|_| [0, 1]).collect();
        let first = self.emit(Op::Slice, &[x], &corner, &[]);
        let number = self.emit(Op::Reshape, &[first], &[], &[]);
        let wide = self.affine(number, 8.0, 0.0);
        self.emit(Op::Cast, &[wide], &[DType::I32 as i64], &[])
    }

    /// Where the maximum of an input is, as a number: of the input itself, or of few distinct values with many ties.
    fn place(&mut self) -> NodeId {
        let input = self.below(2) as usize;
        let mut x = self.values[input];
        if self.below(2) == 0 {
            let doubled = self.affine(x, 2.0, 0.0);
            x = self.emit(Op::Floor, &[doubled], &[], &[]);
        }
        let axis = self.below(self.graph.ty(x).rank() as u64) as i64;
        let place = self.emit(Op::ArgMax, &[x], &[axis], &[]);
        let number = self.emit(Op::Cast, &[place], &[DType::F32 as i64], &[]);
        self.affine(number, 0.125, 0.0)
    }

    /// Along an axis, or along all elements as one axis: that is long enough for blocks. Terms are bounded, since what
    /// is added up here may be a sum itself.
    fn running_sum(&mut self, x: NodeId, dims: &[usize], axis: usize) -> NodeId {
        let reverse = self.below(2) as i64;
        let bounded = self.emit(Op::Tanh, &[x], &[], &[]);
        if self.below(2) == 0 {
            return self.emit(Op::CumSum, &[bounded], &[axis as i64, reverse], &[]);
        }
        let count = dims.iter().product::<usize>() as i64;
        let shape: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
        let small = self.affine(bounded, 0.015625, 0.0);
        let flat = self.emit(Op::Reshape, &[small], &[count], &[]);
        let sum = self.emit(Op::CumSum, &[flat], &[0, reverse], &[]);
        self.emit(Op::Reshape, &[sum], &shape, &[])
    }

    /// factor * x + term.
    fn affine(&mut self, x: NodeId, factor: f64, term: f64) -> NodeId {
        let dims = self.graph.dims(x).to_vec();
        let factor = self.graph.constant(factor, DType::F32, &dims);
        let term = self.graph.constant(term, DType::F32, &dims);
        let product = self.emit(Op::Mul, &[x, factor], &[], &[]);
        self.emit(Op::Add, &[product, term], &[], &[])
    }

    /// The same value by way of two permutations with a copy between: its axes lie in memory in the opposite order.
    fn turned(&mut self, x: NodeId) -> NodeId {
        let axes: Vec<i64> = (0..self.graph.ty(x).rank() as i64).rev().collect();
        let opposite = self.emit(Op::Permute, &[x], &axes, &[]);
        let written = self.emit(Op::Copy, &[opposite], &[], &[]);
        self.emit(Op::Permute, &[written], &axes, &[])
    }

    /// Rows in the opposite order.
    fn reversed(&mut self, x: NodeId) -> NodeId {
        let rows = self.graph.dims(x)[0];
        let index = self.emit(Op::Iota, &[], &[0, DType::I32 as i64, rows as i64], &[]);
        let last = self.graph.constant(rows as f64 - 1.0, DType::I32, &[rows]);
        let index = self.emit(Op::Sub, &[last, index], &[], &[]);
        self.emit(Op::Gather, &[x, index], &[], &[])
    }

    /// A value of this shape: an earlier one, one repeated from a smaller one, or a function of the index.
    fn same_shape(&mut self, dims: &[usize]) -> NodeId {
        let same: Vec<NodeId> =
            self.values.iter().copied().filter(|id| self.graph.dims(*id) == dims).collect();
        let smaller: Vec<NodeId> = self
            .values
            .iter()
            .copied()
            .filter(|id| {
                let own = self.graph.dims(*id);
                own != dims && own.len() == dims.len() && own.iter().zip(dims).all(|(a, b)| a == b || *a == 1)
            })
            .collect();
        match self.below(3) {
            0 if !same.is_empty() => same[self.below(same.len() as u64) as usize],
            1 if !smaller.is_empty() => {
                let x = smaller[self.below(smaller.len() as u64) as usize];
                self.repeat(x, dims)
            }
            _ => {
                let axis = self.below(dims.len() as u64) as i64;
                let mut ints = vec![axis, DType::F32 as i64];
                ints.extend(dims.iter().map(|dim| *dim as i64));
                let index = self.emit(Op::Iota, &[], &ints, &[]);
                self.emit(Op::Sin, &[index], &[], &[])
            }
        }
    }

    fn finish(mut self, seed: u64) -> Graph {
        let outputs: Vec<NodeId> = self.values.iter().copied().rev().take(3).collect();
        for (index, id) in outputs.iter().enumerate() {
            self.graph.output(&format!("y{index}"), *id);
        }
        if seed.is_multiple_of(2) {
            let last = outputs[0];
            let all: Vec<i64> = (0..self.graph.ty(last).rank() as i64).collect();
            let square = self.emit(Op::Mul, &[last, last], &[], &[]);
            let sum = self.emit(Op::Sum, &[square], &all, &[]);
            let loss = self.emit(Op::Reshape, &[sum], &[], &[]);
            let inputs: Vec<NodeId> = self.values[..2].to_vec();
            for (index, ct) in grad(&mut self.graph, loss, &inputs).into_iter().enumerate() {
                if let Some(ct) = ct {
                    self.graph.output(&format!("grad{index}"), ct);
                }
            }
            let state = self.graph.state("memory", self.graph.ty(inputs[0]).clone());
            // Half of them read the State elsewhere than they write it.
            let old = if seed.is_multiple_of(4) { self.reversed(state) } else { state };
            let moved = self.emit(Op::Add, &[old, inputs[0]], &[], &[]);
            self.graph.output("before", state);
            self.graph.write(state, moved);
        }
        assert!(self.graph.errors.is_empty(), "seed {seed}: {}", self.graph.errors[0]);
        graph::compact(&self.graph)
    }
}
