//! What the façade makes of the field's functions, by their formulas in f64: values, and first and second derivatives,
//! also where a formula has a corner or would overflow.

use std::cell::RefCell;
use std::panic::Location;

use graph::interp::{self, Tensor as Values};
use graph::{DType, Graph, NodeId, Op, Ty, grad};
use plugin_api::{Attend, Builder, Cx, Init, Mask, Role, Tensor, attention, attention_with, causal_conv};

/// Traces into a graph; parameters are inputs in order of appearance.
#[derive(Default)]
struct Tracer(RefCell<Graph>);

impl Tracer {
    fn input(&self, name: &str, dims: &[usize], dtype: DType) -> u32 {
        self.0.borrow_mut().input(name, Ty::new(dtype, dims)).0
    }
}

impl Builder for Tracer {
    fn emit(&self, op: Op, inputs: &[u32], ints: &[i64], floats: &[f64], _: &Location<'_>) -> u32 {
        let inputs: Vec<NodeId> = inputs.iter().map(|id| NodeId(*id)).collect();
        self.0.borrow_mut().emit(op, &inputs, ints, floats).0
    }

    fn info(&self, id: u32) -> Option<(DType, Vec<usize>)> {
        let graph = self.0.borrow();
        (id != NodeId::POISON.0).then(|| (graph.ty(NodeId(id)).dtype, graph.dims(NodeId(id)).to_vec()))
    }

    fn push_scope(&self, name: &str) {
        self.0.borrow_mut().push_scope(name);
    }

    fn pop_scope(&self) {
        self.0.borrow_mut().pop_scope();
    }

    fn parameter(&self, name: &str, dims: &[usize], _: Role, _: Init, _: &Location<'_>) -> u32 {
        self.input(name, dims, DType::F32)
    }

    fn grad(&self, loss: u32, wrt: &[u32], _: &Location<'_>) -> Vec<u32> {
        let wrt: Vec<NodeId> = wrt.iter().map(|id| NodeId(*id)).collect();
        let mut graph = self.0.borrow_mut();
        let cotangents = grad(&mut graph, NodeId(loss), &wrt);
        cotangents.into_iter().map(|id| id.expect("a path leads to each").0).collect()
    }

    fn fail(&self, message: &str, _: &Location<'_>) {
        self.0.borrow_mut().fail(None, message, "");
    }

    fn component(&self, _: u8, _: &str, _: &str, _: &[u32], _: &Location<'_>) -> u32 {
        NodeId::POISON.0
    }

    fn scalar(&self, _: u16, _: f64, _: &Location<'_>) -> u32 {
        NodeId::POISON.0
    }

    fn optimizer_state(&self, _: &str, _: &[usize], _: &Location<'_>) -> u32 {
        NodeId::POISON.0
    }

    fn write(&self, _: u32, _: u32, _: &Location<'_>) {}

    fn report(&self, _: &str, _: u32, _: &Location<'_>) {}

    fn training(&self) -> bool {
        true
    }

    fn vocab(&self) -> usize {
        17
    }

    fn region_begin(&self, _: Op, _: &[u32], _: &[i64], _: &Location<'_>) -> Vec<u32> {
        Vec::new()
    }

    fn region_end(&self, _: &[u32], _: &Location<'_>) -> Vec<u32> {
        Vec::new()
    }

    fn random(&self, _: &[usize], _: &Location<'_>) -> u32 {
        NodeId::POISON.0
    }
}

/// Runs a traced program on inputs given with their dims; returns its outputs.
fn run(
    inputs: &[(&[usize], Vec<f64>)],
    dtypes: &[DType],
    program: impl for<'c> Fn(&'c Cx<'c>, &[Tensor<'c>]) -> Vec<Tensor<'c>>,
) -> Vec<Vec<f64>> {
    let tracer = Tracer::default();
    let dtype = |index: usize| dtypes.get(index).copied().unwrap_or(DType::F32);
    let ids: Vec<u32> = inputs
        .iter()
        .enumerate()
        .map(|(index, (dims, _))| tracer.input(&format!("x{index}"), dims, dtype(index)))
        .collect();
    let results: Vec<NodeId> = {
        let cx = Cx::new(&tracer);
        trace(&cx, &ids, &program)
    };
    let mut graph = tracer.0.into_inner();
    results.iter().enumerate().for_each(|(index, id)| graph.output(&format!("y{index}"), *id));
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    let values: Vec<Values> = graph
        .inputs
        .iter()
        .zip(inputs)
        .map(|(decl, (_, data))| Values { ty: decl.ty.clone(), data: data.clone() })
        .collect();
    interp::run(&graph, &values, &mut []).into_iter().map(|tensor| tensor.data).collect()
}

fn trace<'c>(
    cx: &'c Cx<'c>,
    ids: &[u32],
    program: &impl Fn(&'c Cx<'c>, &[Tensor<'c>]) -> Vec<Tensor<'c>>,
) -> Vec<NodeId> {
    let tensors: Vec<Tensor<'c>> = ids.iter().map(|id| cx.tensor(*id)).collect();
    program(cx, &tensors).into_iter().map(|tensor| NodeId(tensor.id())).collect()
}

fn close(what: &str, expected: &[f64], actual: &[f64]) {
    assert_eq!(expected.len(), actual.len(), "{what}");
    for (index, (want, got)) in expected.iter().zip(actual).enumerate() {
        assert!((want - got).abs() <= 1e-10 * (1.0 + want.abs()), "{what} [{index}]: {got} for {want}");
    }
}

/// Value, first and second derivative at a number.
type Formula = fn(f64) -> [f64; 3];
type Function = for<'c> fn(Tensor<'c>) -> Tensor<'c>;

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn elementwise_functions_and_their_derivatives() {
    let sigmoid: Formula = |x| {
        let s = logistic(x);
        [s, s * (1.0 - s), s * (1.0 - s) * (1.0 - 2.0 * s)]
    };
    let silu: Formula = |x| {
        let s = logistic(x);
        let slope = s * (1.0 - s);
        [x * s, s + x * slope, slope * (2.0 + x * (1.0 - 2.0 * s))]
    };
    let softplus: Formula = |x| {
        let s = logistic(x);
        [x.max(0.0) + (-x.abs()).exp().ln_1p(), s, s * (1.0 - s)]
    };
    let relu_squared: Formula = |x| match x > 0.0 {
        true => [x * x, 2.0 * x, 2.0],
        false => [0.0; 3],
    };
    let softcap: Formula = |x| {
        let t = (x / 15.0).tanh();
        [15.0 * t, 1.0 - t * t, -2.0 * t * (1.0 - t * t) / 15.0]
    };
    let gelu_tanh: Formula = |x| {
        let c = (2.0 / std::f64::consts::PI).sqrt();
        let (inner, slope, bend) =
            (c * (x + 0.044715 * x.powi(3)), c * (1.0 + 0.134145 * x * x), c * 0.26829 * x);
        let t = inner.tanh();
        let (first, second) = ((1.0 - t * t) * slope, (1.0 - t * t) * (bend - 2.0 * t * slope * slope));
        [0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * first, first + 0.5 * x * second]
    };
    let table: [(&str, Function, Formula); 6] = [
        ("sigmoid", |x| x.sigmoid(), sigmoid),
        ("silu", |x| x.silu(), silu),
        ("softplus", |x| x.softplus(), softplus),
        ("relu_squared", |x| x.relu_squared(), relu_squared),
        ("softcap", |x| x.softcap(15.0), softcap),
        ("gelu_tanh", |x| x.gelu_tanh(), gelu_tanh),
    ];
    let points = vec![-800.0, -40.0, -6.0, -1.0, -0.001, 0.0, 0.001, 0.5, 3.0, 12.0, 40.0, 800.0];
    for (name, function, formula) in table {
        let results = run(&[(&[points.len()], points.clone())], &[], |cx, x| {
            let y = function(x[0]);
            let first = cx.grad(y.total(), &[x[0]])[0];
            vec![y, first, cx.grad(first.total(), &[x[0]])[0]]
        });
        for (order, result) in results.iter().enumerate() {
            let expected: Vec<f64> = points.iter().map(|x| formula(*x)[order]).collect();
            close(&format!("{name}, derivative {order}"), &expected, result);
        }
    }
}

#[test]
fn rows_are_normalised_without_overflow() {
    let rows = vec![800.0, 801.0, -3.0, -800.0, -800.0, -799.5, 0.0, 0.0, 0.0, 3e-7, -4e-7, 0.0];
    let results = run(&[(&[4, 3], rows.clone())], &[], |cx, x| {
        let x = x[0];
        let sums = x.logsumexp();
        let bounded = x.l2_normalize(1e-6);
        let slope = cx.grad((bounded * x.stop_grad()).total(), &[x])[0];
        vec![sums, cx.grad(sums.total(), &[x])[0], bounded, slope, x.l2_normalize_rsqrt(1e-6)]
    });
    for (row, x) in rows.chunks(3).enumerate() {
        let of = |result: usize| &results[result][3 * row..][..3];
        let peak = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = x.iter().map(|x| (x - peak).exp()).sum();
        close("logsumexp", &[peak + total.ln()], &results[0][row..=row]);
        let softmax: Vec<f64> = x.iter().map(|x| (x - peak).exp() / total).collect();
        close("softmax", &softmax, of(1));
        let squares: f64 = x.iter().map(|x| x * x).sum();
        let scaled = |norm: f64| x.iter().map(|x| x / norm).collect::<Vec<f64>>();
        close("l2_normalize", &scaled(squares.sqrt().max(1e-6)), of(2));
        // The cotangent is x itself: it is orthogonal to what the norm lets through, and only below the bound seen.
        let slope = if squares < 1e-12 { scaled(1e-6) } else { vec![0.0; 3] };
        close("slope of l2_normalize", &slope, of(3));
        close("l2_normalize_rsqrt", &scaled((squares + 1e-6).sqrt()), of(4));
    }
}

#[test]
fn layers_say_what_their_ops_say() {
    let wave = |count: usize| (0..count).map(|i| (1.3 * i as f64).sin()).collect::<Vec<f64>>();
    let (tokens, width) = (5, 4);
    let dims: [&[usize]; 2] = [&[1, 2, tokens, width], &[1, tokens]];
    let inputs = [(dims[0], wave(40)), (dims[1], vec![0.0, 0.0, 1.0, 1.0, 1.0])];
    let results = run(&inputs, &[DType::F32, DType::I32], |_, x| {
        let (q, ids) = (x[0], x[1]);
        vec![
            attention(q, q, q),
            attention_with(q, q, q, Mask::Causal),
            attention_with(q, q, q, Mask::Sliding(tokens)),
            attention_with(q, q, q, Mask::Sliding(1)),
            q,
            attention_with(q, q, q, Attend::new(Mask::Full).segments(ids, ids)).slice(2, 0, 2),
            attention_with(q.slice(2, 0, 2), q.slice(2, 0, 2), q.slice(2, 0, 2), Mask::Full),
            attention_with(q.slice(2, 4, 1), q, q, Attend::new(Mask::Causal).scale(0.5)),
            attention(q, q, q).slice(2, 4, 1),
            q.silu() * (q + 1.0),
            q.swiglu(q + 1.0),
        ]
    });
    for (a, b) in [(0, 1), (0, 2), (3, 4), (5, 6), (7, 8), (9, 10)] {
        close(&format!("{a} and {b}"), &results[a], &results[b]);
    }
}

#[test]
fn a_convolution_in_pieces_is_one_convolution() {
    let (tokens, channels, taps) = (7, 2, 4);
    let x: Vec<f64> = (0..tokens * channels).map(|i| (0.9 * i as f64).cos()).collect();
    let weight: Vec<f64> = (0..channels * taps).map(|i| 0.5 - 0.2 * i as f64).collect();
    let inputs: [(&[usize], Vec<f64>); 2] =
        [(&[1, tokens, channels], x.clone()), (&[channels, taps], weight.clone())];
    let results = run(&inputs, &[], |cx, x| {
        let (x, weight) = (x[0], x[1]);
        let start = cx.constant(0.0, DType::F32, &[1, taps - 1, channels]);
        let (whole, end) = causal_conv(x, weight, start);
        // Two tokens are fewer than the tail holds.
        let (first, tail) = causal_conv(x.slice(1, 0, 2), weight, start);
        let (second, tail) = causal_conv(x.slice(1, 2, 5), weight, tail);
        vec![whole, first, second, end, tail]
    });
    let at = |t: usize, c: usize, j: usize| {
        (t + j).checked_sub(taps - 1).map_or(0.0, |t| x[t * channels + c]) * weight[c * taps + j]
    };
    let expected: Vec<f64> =
        (0..tokens * channels).map(|i| (0..taps).map(|j| at(i / channels, i % channels, j)).sum()).collect();
    close("whole", &expected, &results[0]);
    close("pieces", &expected, &[&results[1][..], &results[2]].concat());
    close("tail", &x[4 * channels..], &results[3]);
    close("tail of pieces", &x[4 * channels..], &results[4]);
}

#[test]
fn layers_name_their_parameters() {
    let tracer = Tracer::default();
    let id = tracer.input("x", &[2, 5, 4], DType::F32);
    {
        let cx = Cx::new(&tracer);
        shapes_of_layers(&cx, id);
    }
    let graph = tracer.0.into_inner();
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    let parameters: Vec<String> =
        graph.inputs.iter().map(|decl| format!("{} {:?}", decl.name, decl.ty.dims)).collect();
    let expected =
        ["x [2, 5, 4]", "mlp.gate [6, 4]", "mlp.up [6, 4]", "mlp.down [4, 6]", "conv [4, 3]", "head [9, 4]"];
    assert_eq!(parameters, expected);
}

fn shapes_of_layers<'c>(cx: &'c Cx<'c>, id: u32) {
    let x = cx.tensor(id);
    assert_eq!(cx.swiglu("mlp", x, 6, 0.5).dims(), [2, 5, 4]);
    let (y, tail) = cx.causal_conv("conv", x, 3, None);
    assert_eq!((y.dims(), tail.dims()), (vec![2, 5, 4], vec![2, 2, 4]));
    let logits = cx.linear("head", x, 9);
    let targets = cx.constant(1.0, DType::I32, &[2, 5]);
    assert_eq!(cx.cross_entropy(logits, targets).dims(), [2, 5]);
}
