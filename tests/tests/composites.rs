//! Composites at random shapes, with first and second derivatives: the CPU device against the interpreter.

use data::Stream;
use graph::{Builder, DType, Graph, NodeId, Op, Ty, gated_delta_rule, grad, linear_attention};
use host_tests::replay::{interpreted, on_cpu};

/// f32 against f64 through two rounds of differentiation, as a part of the largest value of a result.
const TOLERANCE: f64 = 5e-4;

struct Maker {
    stream: Stream,
    graph: Graph,
    inputs: Vec<NodeId>,
}

impl Maker {
    fn new(seed: u64, label: &str) -> Maker {
        Maker { stream: Stream::new(seed, label, 0), graph: Graph::default(), inputs: Vec::new() }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.stream.below(from.len() as u64) as usize]
    }

    /// An input with values in (-1, 1).
    fn input(&mut self, dims: &[usize]) -> NodeId {
        let id = self.graph.input(&format!("x{}", self.inputs.len()), Ty::new(DType::F32, dims));
        self.inputs.push(id);
        id
    }

    /// Integers in -n..n. A power of two, so that f32 and f64 agree on them.
    fn integers(&mut self, dims: &[usize], n: u32) -> NodeId {
        let count = self.graph.inputs.len();
        let values = self.graph.input(&format!("ids{count}"), Ty::new(DType::F32, dims));
        let factor = self.graph.constant(f64::from(n.next_power_of_two()), DType::F32, dims);
        let scaled = self.graph.emit(Op::Mul, &[values, factor], &[], &[]);
        let whole = self.graph.emit(Op::Floor, &[scaled], &[], &[]);
        self.graph.emit(Op::Cast, &[whole], &[DType::I32 as i64], &[])
    }

    /// Outputs the results, the gradients of their squares, and the gradients of the squares of those.
    fn finish(mut self, results: &[NodeId], twice: bool) -> Graph {
        for (index, result) in results.iter().enumerate() {
            self.graph.output(&format!("y{index}"), *result);
        }
        let mut of = results.to_vec();
        for order in 0..1 + usize::from(twice) {
            let loss = squares(&mut self.graph, &of);
            of = grad(&mut self.graph, loss, &self.inputs).into_iter().flatten().collect();
            for (index, ct) in of.iter().enumerate() {
                self.graph.output(&format!("grad{order}.{index}"), *ct);
            }
        }
        assert!(self.graph.errors.is_empty(), "{}", self.graph.errors[0]);
        self.graph
    }
}

/// Sum of all squares.
fn squares(graph: &mut Graph, of: &[NodeId]) -> NodeId {
    let zero = graph.constant(0.0, DType::F32, &[]);
    of.iter().fold(zero, |sum, x| {
        let axes: Vec<i64> = (0..graph.ty(*x).rank() as i64).collect();
        let square = graph.emit(Op::Mul, &[*x, *x], &[], &[]);
        let total = graph.emit(Op::Sum, &[square], &axes, &[]);
        let number = graph.emit(Op::Reshape, &[total], &[], &[]);
        graph.emit(Op::Add, &[sum, number], &[], &[])
    })
}

fn check(seed: u64, graph: &Graph) {
    let expected = interpreted(graph, seed);
    let actual = on_cpu(graph, seed, &[], 2);
    assert_eq!(expected.len(), actual.len(), "seed {seed}");
    for ((decl, expected), actual) in graph.outputs.iter().zip(&expected).zip(&actual) {
        let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        for (element, (want, got)) in expected.iter().zip(actual).enumerate() {
            let error = (want - f64::from(*got)).abs() / scale;
            assert!(error < TOLERANCE, "seed {seed}, {}[{element}]: {got} for {want}\n{graph}", decl.name);
        }
    }
}

#[test]
fn attention_under_every_mask() {
    for seed in 0..60 {
        let mut maker = Maker::new(seed, "attention");
        let (batch, groups) = (maker.pick(&[1, 2, 3]), maker.pick(&[1, 2]));
        let heads = groups * maker.pick(&[1, 2, 3]);
        let (queries, keys) = (maker.pick(&[1, 2, 5, 17]), maker.pick(&[1, 3, 8, 33]));
        let (width, value_width) = (maker.pick(&[2, 5, 16]), maker.pick(&[3, 16]));
        let q = maker.input(&[batch, heads, queries, width]);
        let k = maker.input(&[batch, groups, keys, width]);
        let v = maker.input(&[batch, groups, keys, value_width]);
        let operands = maker.pick(&[0, 0, 1, 2, 3, 12, 15]);
        let mut inputs = vec![q, k, v];
        if operands & 1 != 0 {
            inputs.push(maker.integers(&[batch], 8));
        }
        if operands & 2 != 0 {
            inputs.push(maker.integers(&[batch], 8));
        }
        if operands & 4 != 0 {
            inputs.push(maker.integers(&[batch, queries], 2));
            inputs.push(maker.integers(&[batch, keys], 2));
        }
        let prefix = maker.stream.below(keys as u64 + 1) as i64;
        let ints = [maker.pick(&[1, 1, 0]), maker.pick(&[0, 1, 4]), maker.pick(&[0, prefix]), operands];
        let y = maker.graph.emit(Op::Attention, &inputs, &ints, &[0.7]);
        check(seed, &maker.finish(&[y], seed % 3 == 0));
    }
}

#[test]
fn cross_entropy_with_ignored_targets() {
    for seed in 0..30 {
        let mut maker = Maker::new(seed, "loss");
        let (tokens, vocab) = (maker.pick(&[1, 3, 20]), maker.pick(&[2, 7, 33, 300]));
        let batch = maker.pick(&[1, 2]);
        // About half of the ids are negative; some are too large.
        let targets = maker.integers(&[batch, tokens], vocab as u32);
        let loss = if seed % 2 == 0 {
            let logits = maker.input(&[batch, tokens, vocab]);
            maker.graph.emit(Op::CrossEntropy, &[logits, targets], &[], &[])
        } else {
            let width = maker.pick(&[1, 5, 16]);
            let (hidden, head) = (maker.input(&[batch, tokens, width]), maker.input(&[vocab, width]));
            maker.graph.emit(Op::LinearCrossEntropy, &[hidden, head, targets], &[], &[])
        };
        check(seed, &maker.finish(&[loss], seed % 3 == 0));
    }
}

#[test]
fn causal_convolutions_long_and_short() {
    for seed in 0..30 {
        let mut maker = Maker::new(seed, "conv");
        let (batch, tokens) = (maker.pick(&[1, 2]), maker.pick(&[1, 2, 9, 40]));
        let (channels, taps) = (maker.pick(&[1, 6, 33]), maker.pick(&[2, 3, 4]));
        let x = maker.input(&[batch, tokens, channels]);
        let weight = maker.input(&[channels, taps]);
        let tail = maker.input(&[batch, taps - 1, channels]);
        let y = maker.graph.emit(Op::CausalConv, &[x, weight, tail], &[], &[]);
        check(seed, &maker.finish(&[y], seed % 3 == 0));
    }
}

#[test]
fn linear_recurrences_in_chunks() {
    for seed in 0..40 {
        let mut maker = Maker::new(seed, "delta");
        let (batch, heads) = (maker.pick(&[1, 2]), maker.pick(&[1, 3]));
        let (tokens, chunk) = (maker.pick(&[1, 3, 8, 20, 70]), maker.pick(&[4, 16, 64]));
        let (width, size) = (maker.pick(&[4, 16]), maker.pick(&[1, 5, 16]));
        let decay = maker.pick(&[0.0, 0.2, 11.5]);
        let q = maker.input(&[batch, heads, tokens, width]);
        let k = maker.input(&[batch, heads, tokens, width]);
        let v = maker.input(&[batch, heads, tokens, size]);
        let gate = maker.input(&[batch, heads, tokens]);
        let state = maker.input(&[batch, heads, size, width]);
        let rate = (seed % 2 == 0).then(|| maker.input(&[batch, heads, tokens]));
        let results = Builder::with(&mut maker.graph, |b| {
            let [q, k, v, gate, state] = [q, k, v, gate, state].map(|id| b.var(id));
            let norm = (k * k).sum(&[3]).plus(1e-6).unary(Op::Sqrt);
            let k = k / norm.like(k);
            let log_alpha = gate.plus(-1.0).scale(0.5 * decay);
            let (out, last) = match rate {
                Some(rate) => {
                    let beta = b.var(rate).plus(1.0).scale(0.95);
                    gated_delta_rule(q, k, v, log_alpha, beta, state, chunk)
                }
                None => linear_attention(q, k, v, log_alpha, state, chunk),
            };
            [out.id, last.id]
        });
        check(seed, &maker.finish(&results, seed % 5 == 0));
    }
}
