//! The chunk forms of the gated delta rule and of linear attention: values against the recurrence written out in f64,
//! derivatives against those of a loop over tokens.

use graph::attributes::DotAxes;
use graph::interp::{self, Tensor};
use graph::{Builder, DType, Graph, NodeId, Op, Ty, Var, gated_delta_rule, grad, linear_attention};

#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Whether there is a beta: the delta rule, else linear attention.
    delta: bool,
    /// B, H, T, K, V
    sizes: [usize; 5],
    chunk: usize,
    /// Log decays lie in -decay..0.
    decay: f64,
}

impl Setting {
    fn shapes(&self) -> [Vec<usize>; 6] {
        let [batch, heads, tokens, width, values] = self.sizes;
        let rows = |last: usize| vec![batch, heads, tokens, last];
        let numbers = vec![batch, heads, tokens];
        [rows(width), rows(width), rows(values), numbers.clone(), numbers, vec![batch, heads, values, width]]
    }

    /// q, k (unit rows), v, log_alpha, beta in 0..1.9, state.
    fn values(&self) -> [Vec<f64>; 6] {
        let mut index = 0.0f64;
        let mut next = || {
            index += 1.0;
            (0.77 * index + 0.003 * index * index).sin()
        };
        let mut values = self.shapes().map(|dims| (0..dims.iter().product()).map(|_| next()).collect());
        let keys: &mut Vec<f64> = &mut values[1];
        for row in keys.chunks_mut(self.sizes[3]) {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        values[3].iter_mut().for_each(|x| *x = -self.decay * 0.5 * (1.0 + *x));
        values[4].iter_mut().for_each(|x| *x = 0.95 * (1.0 + *x));
        values
    }

    /// o and the last state, token by token.
    fn recurrence(&self) -> [Vec<f64>; 2] {
        let [batch, heads, tokens, width, size] = self.sizes;
        let [q, k, v, log_alpha, beta, mut state] = self.values();
        let mut out = Vec::new();
        for (head, state) in (0..batch * heads).zip(state.chunks_mut(size * width)) {
            for t in head * tokens..(head + 1) * tokens {
                let (query, key) = (&q[t * width..][..width], &k[t * width..][..width]);
                let alpha = log_alpha[t].exp();
                for (row, value) in state.chunks_mut(width).zip(&v[t * size..]) {
                    let held: f64 = row.iter().zip(key).map(|(s, k)| s * k).sum();
                    let written = if self.delta { beta[t] * (value - alpha * held) } else { *value };
                    row.iter_mut().zip(key).for_each(|(s, k)| *s = alpha * *s + written * k);
                    out.push(row.iter().zip(query).map(|(s, q)| s * q).sum());
                }
            }
        }
        [out, state]
    }

    fn in_chunks<'b>(&self, x: &[Var<'b>]) -> (Var<'b>, Var<'b>) {
        match self.delta {
            true => gated_delta_rule(x[0], x[1], x[2], x[3], x[4], x[5], self.chunk),
            false => linear_attention(x[0], x[1], x[2], x[3], x[5], self.chunk),
        }
    }

    fn by_token<'b>(&self, x: &[Var<'b>]) -> (Var<'b>, Var<'b>) {
        let [batch, heads, tokens, width, size] = self.sizes;
        let token = |x: Var<'b>, t: usize, dims: [usize; 4]| {
            let mut ranges: Vec<(usize, usize)> = x.dims().iter().map(|dim| (0, *dim)).collect();
            ranges[2] = (t, 1);
            x.slice(&ranges).reshape(&dims)
        };
        let matrix = [batch, heads, size, width];
        let product = |state: Var<'b>, row: Var<'b>| {
            let batch = (vec![0, 1], vec![0, 1]);
            let axes = DotAxes { batch, contract: (vec![3], vec![3]), free: (vec![2], vec![2]) };
            state.dot(row, &axes, 1.0)
        };
        let mut state = x[5];
        let mut out = Vec::new();
        for t in 0..tokens {
            let [query, key] = [x[0], x[1]].map(|x| token(x, t, [batch, heads, 1, width]));
            let value = token(x[2], t, [batch, heads, size, 1]);
            let [alpha, beta] =
                [x[3].unary(Op::Exp), x[4]].map(|x| token(x, t, [batch, heads, 1, 1]).broadcast(&matrix));
            let kept = alpha * state;
            let write = match self.delta {
                true => beta * (value - product(kept, key)).broadcast(&matrix),
                false => value.broadcast(&matrix),
            };
            state = kept + write * key.broadcast(&matrix);
            out.push(product(state, query).reshape(&[batch, heads, 1, size]));
        }
        (x[0].builder().concat(&out, 2), state)
    }

    /// o, the last state, and derivatives by all operands: of a sum of both with fixed weights, and, with `second`,
    /// of the squares of those derivatives.
    fn run(&self, chunked: bool, second: bool) -> Vec<Tensor> {
        let mut graph = Graph::default();
        let shapes = self.shapes();
        let inputs: Vec<NodeId> = shapes
            .iter()
            .enumerate()
            .map(|(i, dims)| graph.input(&format!("x{i}"), Ty::new(DType::F32, dims)))
            .collect();
        let (out, state) = Builder::with(&mut graph, |b| {
            let x: Vec<Var<'_>> = inputs.iter().map(|id| b.var(*id)).collect();
            let (out, state) = if chunked { self.in_chunks(&x) } else { self.by_token(&x) };
            (out.id, state.id)
        });
        let mut results = vec![out, state];
        let used: Vec<NodeId> = (0..6).filter(|i| self.delta || *i != 4).map(|i| inputs[i]).collect();
        let mut of = vec![out, state];
        for order in 0..1 + usize::from(second) {
            let loss = Builder::with(&mut graph, |b| {
                let parts = of.iter().map(|id| weighed(b.var(*id), order == 1));
                parts.reduce(|sum, part| sum + part).map(|sum| sum.id)
            });
            of = grad(&mut graph, loss.unwrap(), &used).into_iter().flatten().collect();
            assert_eq!(of.len(), used.len());
            results.extend(&of);
        }
        results.iter().enumerate().for_each(|(i, id)| graph.output(&format!("y{i}"), *id));
        assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
        let values: Vec<Tensor> = shapes
            .iter()
            .zip(self.values())
            .map(|(dims, data)| Tensor { ty: Ty::new(DType::F32, dims), data })
            .collect();
        interp::run(&graph, &values, &mut [])
    }

    fn check(&self, second: bool) {
        let chunked = self.run(true, second);
        for (expected, actual) in self.recurrence().iter().zip(&chunked) {
            compare(self, "recurrence", expected, &actual.data);
        }
        for (index, (expected, actual)) in self.run(false, second).iter().zip(&chunked).enumerate() {
            assert_eq!(expected.ty, actual.ty);
            compare(self, &format!("result {index} of the loop"), &expected.data, &actual.data);
        }
    }
}

fn weighed(x: Var<'_>, square: bool) -> Var<'_> {
    let flat = x.reshape(&[x.dims().iter().product()]);
    let weights = x.builder().iota(0, DType::F32, &flat.dims()).unary(Op::Sin);
    let terms = if square { flat * flat } else { flat * weights };
    terms.sum(&[0]).reshape(&[])
}

fn compare(setting: &Setting, what: &str, expected: &[f64], actual: &[f64]) {
    assert_eq!(expected.len(), actual.len());
    for (index, (want, got)) in expected.iter().zip(actual).enumerate() {
        let error = (want - got).abs() / (1.0 + want.abs());
        assert!(error < 1e-9, "{setting:?}, {what} [{index}]: {got} for {want}");
    }
}

#[test]
fn chunks_equal_the_recurrence() {
    for delta in [true, false] {
        for (tokens, chunk) in [(1, 64), (2, 2), (3, 64), (8, 8), (9, 4), (70, 16), (70, 64)] {
            for decay in [0.0, 0.5, 11.5] {
                let sizes = [2, 1 + tokens % 2, tokens, 4, 3];
                Setting { delta, sizes, chunk, decay }.check(false);
            }
        }
    }
}

#[test]
fn second_derivatives_equal_those_of_the_recurrence() {
    for delta in [true, false] {
        for (tokens, chunk, decay) in [(3, 4, 0.5), (9, 4, 11.5), (17, 8, 0.5)] {
            Setting { delta, sizes: [1, 2, tokens, 3, 2], chunk, decay }.check(true);
        }
    }
}

#[test]
fn no_exponent_is_positive() {
    let setting = Setting { delta: true, sizes: [1, 1, 70, 4, 3], chunk: 64, decay: 11.5 };
    let mut graph = Graph::default();
    let inputs: Vec<NodeId> = setting
        .shapes()
        .iter()
        .enumerate()
        .map(|(i, dims)| graph.input(&format!("x{i}"), Ty::new(DType::F32, dims)))
        .collect();
    let exponents = Builder::with(&mut graph, |b| {
        let x: Vec<Var<'_>> = inputs.iter().map(|id| b.var(*id)).collect();
        let (out, state) = setting.in_chunks(&x);
        (weighed(out, false) + weighed(state, false)).id
    });
    grad(&mut graph, exponents, &inputs);
    let of_exponentials: Vec<NodeId> =
        graph.ids().filter(|id| graph.node(*id).op == Op::Exp).map(|id| graph.node(id).inputs[0]).collect();
    assert!(!of_exponentials.is_empty());
    of_exponentials.iter().enumerate().for_each(|(i, id)| graph.output(&format!("exponent{i}"), *id));
    let shapes = setting.shapes();
    let values: Vec<Tensor> = shapes
        .iter()
        .zip(setting.values())
        .map(|(dims, data)| Tensor { ty: Ty::new(DType::F32, dims), data })
        .collect();
    for exponent in interp::run(&graph, &values, &mut []) {
        // Up to the rounding of differences of sums of some hundreds.
        assert!(exponent.data.iter().all(|x| *x <= 1e-10));
    }
}
