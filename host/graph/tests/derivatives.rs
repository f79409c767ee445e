//! Every derivative row against central differences in f64, and the second derivative of the smooth ones.

use graph::interp::{self, Tensor};
use graph::{DType, Graph, NodeId, Op, Ty, grad};

/// Smooth numbers without ties, in (0.2, 1.4) shifted by `shift`.
fn fill(ty: &Ty, seed: f64, shift: f64) -> Tensor {
    let value = |i: usize| 0.8 + 0.6 * (seed + 0.7 * i as f64 + 0.013 * (i * i) as f64).sin() + shift;
    Tensor { ty: ty.clone(), data: (0..ty.elements()).map(value).collect() }
}

/// Sum of y * fixed weights, so that every element of y matters differently.
fn weigh(graph: &mut Graph, y: NodeId) -> NodeId {
    let dims = graph.dims(y).to_vec();
    let count = dims.iter().product::<usize>();
    let flat = graph.emit(Op::Reshape, &[y], &[count as i64], &[]);
    let index = graph.emit(Op::Iota, &[], &[0, DType::F32 as i64, count as i64], &[]);
    let angle = graph.emit(Op::Sin, &[index], &[], &[]);
    let product = graph.emit(Op::Mul, &[flat, angle], &[], &[]);
    let sum = graph.emit(Op::Sum, &[product], &[0], &[]);
    graph.emit(Op::Reshape, &[sum], &[], &[])
}

struct Case {
    name: String,
    operands: Vec<Vec<usize>>,
    shift: f64,
    smooth: bool,
    build: Build,
}

type Build = Box<dyn Fn(&mut Graph, &[NodeId]) -> NodeId>;

fn case(
    name: &str,
    operands: &[&[usize]],
    build: impl Fn(&mut Graph, &[NodeId]) -> NodeId + 'static,
) -> Case {
    let operands = operands.iter().map(|dims| dims.to_vec()).collect();
    Case { name: name.into(), operands, shift: 0.0, smooth: true, build: Box::new(build) }
}

fn op(op: Op, operands: &[&[usize]], ints: &[i64], floats: &[f64]) -> Case {
    let (ints, floats) = (ints.to_vec(), floats.to_vec());
    case(op.row().name, operands, move |graph, x| graph.emit(op, x, &ints, &floats))
}

fn cases() -> Vec<Case> {
    let m: &[usize] = &[2, 3];
    let mut cases: Vec<Case> = Vec::new();
    for unary in
        [Op::Neg, Op::Recip, Op::Sqrt, Op::Exp, Op::Log, Op::Sin, Op::Cos, Op::Tanh, Op::Erf, Op::Copy]
    {
        cases.push(op(unary, &[m], &[], &[]));
    }
    for binary in [Op::Add, Op::Sub, Op::Mul, Op::Div] {
        cases.push(op(binary, &[m, m], &[], &[]));
    }
    for kinked in [Op::Max, Op::Min] {
        cases.push(Case { smooth: false, ..op(kinked, &[m, m], &[], &[]) });
    }
    cases.push(Case { smooth: false, ..op(Op::ReduceMax, &[m], &[1], &[]) });
    cases.push(case("Rem", &[m, m], |graph, x| {
        // Quotients of several whole parts, none within a step of a jump.
        let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
        let three = graph.constant(3.0, DType::F32, &[2, 3]);
        let large = graph.emit(Op::Add, &[square, three], &[], &[]);
        graph.emit(Op::Rem, &[large, x[1]], &[], &[])
    }));
    cases.push(case("Select", &[m, m, m], |graph, x| {
        let less = graph.emit(Op::Lt, &[x[0], x[1]], &[], &[]);
        let square = graph.emit(Op::Mul, &[x[1], x[1]], &[], &[]);
        graph.emit(Op::Select, &[less, square, x[2]], &[], &[])
    }));
    cases.push(case("Rand", &[m], |graph, x| {
        let [key, counter] = [7.0, 1.0].map(|value| graph.constant(value, DType::U32, &[2, 3]));
        let bits = graph.emit(Op::Bitcast, &[x[0]], &[DType::U32 as i64], &[]);
        let zero = graph.constant(0.0, DType::U32, &[2, 3]);
        let index = graph.emit(Op::And, &[bits, zero], &[], &[]);
        let words = graph.emit(Op::Rand, &[index, key, key, counter], &[], &[]);
        let numbers = graph.emit(Op::Cast, &[words], &[DType::F32 as i64], &[]);
        let scale = graph.constant(0.5f64.powi(32), DType::F32, &[2, 3]);
        let uniform = graph.emit(Op::Mul, &[numbers, scale], &[], &[]);
        let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
        graph.emit(Op::Mul, &[square, uniform], &[], &[])
    }));
    cases.push(op(Op::Reshape, &[m], &[3, 2], &[]));
    cases.push(op(Op::Permute, &[&[2, 3, 4]], &[2, 0, 1], &[]));
    cases.push(op(Op::Broadcast, &[&[2, 1]], &[2, 5], &[]));
    cases.push(op(Op::Slice, &[&[4, 3]], &[1, 2, 0, 3], &[]));
    cases.push(op(Op::Pad, &[m], &[1, 0, 0, 2], &[0.5]));
    cases.push(op(Op::Concat, &[m, &[2, 2]], &[1], &[]));
    cases.push(op(Op::Sum, &[&[2, 3, 4]], &[0, 2], &[]));
    cases.push(case("Gather", &[&[4, 3]], |graph, x| {
        let ids = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 6], &[]);
        let half = graph.constant(2.0, DType::I32, &[6]);
        let ids = graph.emit(Op::Div, &[ids, half], &[], &[]);
        graph.emit(Op::Gather, &[x[0], ids], &[], &[])
    }));
    cases.push(case("ScatterAdd", &[&[5, 3]], |graph, x| {
        let ids = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 5], &[]);
        let two = graph.constant(2.0, DType::I32, &[5]);
        let ids = graph.emit(Op::Div, &[ids, two], &[], &[]);
        graph.emit(Op::ScatterAdd, &[x[0], ids], &[4], &[])
    }));
    cases.push(case("ArgMax", &[m], |graph, x| {
        let place = graph.emit(Op::ArgMax, &[x[0]], &[1], &[]);
        let number = graph.emit(Op::Cast, &[place], &[DType::F32 as i64], &[]);
        let repeated = graph.emit(Op::Broadcast, &[number], &[2, 3], &[]);
        let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
        graph.emit(Op::Mul, &[square, repeated], &[], &[])
    }));
    for reverse in [0, 1] {
        cases.push(case("CumSum", &[&[2, 5, 3]], move |graph, x| {
            let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
            graph.emit(Op::CumSum, &[square], &[1, reverse], &[])
        }));
    }
    for start in [-1.0, 1.0, 9.0] {
        cases.push(case("DynSlice", &[&[2, 5, 3]], move |graph, x| {
            let start = graph.constant(start, DType::I32, &[]);
            graph.emit(Op::DynSlice, &[x[0], start], &[1, 2], &[])
        }));
        cases.push(case("DynUpdateSlice", &[&[2, 5, 3], &[2, 2, 3]], move |graph, x| {
            let start = graph.constant(start, DType::I32, &[]);
            let y = graph.emit(Op::DynUpdateSlice, &[x[0], x[1], start], &[1], &[]);
            graph.emit(Op::Mul, &[y, y], &[], &[])
        }));
    }
    cases.push(op(Op::Dot, &[&[2, 3], &[4, 3]], &[0, 1, 1, 1], &[0.7]));
    cases.push(op(Op::Dot, &[&[3, 2, 4], &[4, 2, 5]], &[1, 1, 1, 1, 2, 0], &[1.3]));
    cases.push(op(Op::Dot, &[&[2, 3, 4], &[4, 5, 3]], &[0, 2, 1, 2, 2, 0], &[1.0]));
    cases.push(op(Op::Dot, &[&[2, 3], &[4, 3], &[2, 4]], &[0, 1, 1, 1], &[0.7, -1.5]));
    cases.push(op(Op::Dot, &[&[3, 2, 4], &[4, 2, 5], &[2, 3, 5]], &[1, 1, 1, 1, 2, 0], &[1.3, 0.5]));
    cases.push(op(Op::Softmax, &[m], &[], &[]));
    cases.push(op(Op::LayerNorm, &[m, &[3], &[3]], &[], &[1e-5]));
    cases.push(op(Op::LayerNorm, &[m, &[3]], &[], &[1e-5]));
    cases.push(op(Op::RmsNorm, &[m, &[3]], &[], &[1e-6]));
    cases.push(case("Rope", &[&[1, 2, 3, 4]], |graph, x| {
        let positions = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 3], &[]);
        graph.emit(Op::Rope, &[x[0], positions], &[], &[100.0])
    }));
    cases.push(op(Op::Attention, &[&[1, 4, 3, 2], &[1, 2, 3, 2], &[1, 2, 3, 2]], &[], &[0.7]));
    let (queries, keys, values): (&[usize], &[usize], &[usize]) =
        (&[2, 2, 3, 2], &[2, 1, 5, 2], &[2, 1, 5, 3]);
    cases.push(op(Op::Attention, &[queries, keys, values], &[1, 2, 1], &[0.7]));
    cases.push(op(Op::Attention, &[queries, &[2, 1, 2, 2], &[2, 1, 2, 3]], &[], &[0.7]));
    cases.push(case("Attention with optional operands", &[queries, keys, values], |graph, x| {
        let counted = |graph: &mut Graph, axis: i64, dims: [i64; 2]| {
            graph.emit(Op::Iota, &[], &[axis, DType::I32 as i64, dims[0], dims[1]], &[])
        };
        let per_sequence = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 2], &[]);
        let (of_queries, of_keys) = (counted(graph, 0, [2, 3]), counted(graph, 0, [2, 5]));
        // The first sequence holds no key, so its queries see nothing.
        let operands = [x[0], x[1], x[2], per_sequence, per_sequence, of_queries, of_keys];
        graph.emit(Op::Attention, &operands, &[1, 0, 0, 15], &[0.7])
    }));
    // The same node as several operands gets its cotangent once.
    cases.push(case("Attention of one tensor", &[&[1, 2, 3, 2]], |graph, x| {
        graph.emit(Op::Attention, &[x[0], x[0], x[0]], &[], &[0.7])
    }));
    let rows: &[usize] = &[1, 2, 5, 3];
    let numbers: &[usize] = &[1, 2, 5];
    let shapes = [rows, rows, &[1, 2, 5, 2], numbers, numbers, &[1, 2, 2, 3]];
    for (op, delta) in [(Op::GatedDeltaRule, true), (Op::LinearAttention, false)] {
        cases.push(case(op.row().name, &shapes, move |graph, x| {
            let log_alpha = graph.emit(Op::Neg, &[x[3]], &[], &[]);
            let beta = delta.then_some(x[4]);
            let operands: Vec<NodeId> =
                [x[0], x[1], x[2], log_alpha].into_iter().chain(beta).chain([x[5]]).collect();
            let both = graph.emit(op, &operands, &[4], &[]);
            let [o, last] = [0, 1].map(|index| graph.emit(Op::Result, &[both], &[index], &[]));
            let flat = |graph: &mut Graph, id: NodeId| {
                let count = graph.ty(id).elements() as i64;
                graph.emit(Op::Reshape, &[id], &[count], &[])
            };
            let parts = [flat(graph, o), flat(graph, last)];
            graph.emit(Op::Concat, &parts, &[0], &[])
        }));
    }
    cases.push(case("LinearCrossEntropy", &[&[2, 3], &[5, 3]], |graph, x| {
        let targets = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 2], &[]);
        graph.emit(Op::LinearCrossEntropy, &[x[0], x[1], targets], &[], &[])
    }));
    cases.push(case("CrossEntropy", &[&[2, 4, 3]], |graph, x| {
        // Targets -1 and 3 are outside 0..3.
        let [row, column] =
            [0, 1].map(|axis| graph.emit(Op::Iota, &[], &[axis, DType::I32 as i64, 2, 4], &[]));
        let targets = graph.emit(Op::Sub, &[column, row], &[], &[]);
        graph.emit(Op::CrossEntropy, &[x[0], targets], &[], &[])
    }));
    for tokens in [5, 2] {
        cases.push(op(Op::CausalConv, &[&[2, tokens, 3], &[3, 4], &[2, 3, 3]], &[], &[]));
    }
    cases
}

/// Loss and its gradient for a case; with `second`, those of a weighing of the gradient.
fn program(case: &Case, second: bool) -> Graph {
    let mut graph = Graph::default();
    let inputs: Vec<NodeId> = case
        .operands
        .iter()
        .enumerate()
        .map(|(i, dims)| graph.input(&format!("x{i}"), Ty::new(DType::F32, dims)))
        .collect();
    let y = (case.build)(&mut graph, &inputs);
    let mut loss = weigh(&mut graph, y);
    if second {
        let zero = graph.constant(0.0, DType::F32, &[]);
        loss = grad(&mut graph, loss, &inputs).into_iter().flatten().fold(zero, |sum, ct| {
            let part = weigh(&mut graph, ct);
            graph.emit(Op::Add, &[sum, part], &[], &[])
        });
    }
    let gradients = grad(&mut graph, loss, &inputs);
    graph.output("loss", loss);
    for (i, (ct, input)) in gradients.into_iter().zip(&inputs).enumerate() {
        let ct = ct.unwrap_or_else(|| {
            let dims = graph.dims(*input).to_vec();
            graph.constant(0.0, DType::F32, &dims)
        });
        graph.output(&format!("grad_x{i}"), ct);
    }
    assert!(graph.errors.is_empty(), "{}: {}", case.name, graph.errors[0]);
    graph::verify(&graph).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    graph
}

fn check(case: &Case, second: bool) {
    let graph = program(case, second);
    let mut inputs: Vec<Tensor> = graph
        .inputs
        .iter()
        .enumerate()
        .map(|(i, decl)| fill(&decl.ty, 1.0 + 2.3 * i as f64, case.shift))
        .collect();
    let exact = interp::run(&graph, &inputs, &mut []);
    let step = 1e-5;
    for operand in 0..inputs.len() {
        for element in 0..inputs[operand].data.len() {
            let at = inputs[operand].data[element];
            let mut loss = |value: f64| {
                inputs[operand].data[element] = value;
                interp::run(&graph, &inputs, &mut [])[0].data[0]
            };
            let numeric = (loss(at + step) - loss(at - step)) / (2.0 * step);
            inputs[operand].data[element] = at;
            let analytic = exact[1 + operand].data[element];
            let error = (numeric - analytic).abs() / (1.0 + analytic.abs());
            assert!(
                error < 2e-8,
                "{} second={second}: d/dx{operand}[{element}] is {analytic}, differences say {numeric}",
                case.name
            );
        }
    }
}

#[test]
fn first_derivatives_agree_with_differences() {
    cases().iter().for_each(|case| check(case, false));
}

#[test]
fn second_derivatives_agree_with_differences() {
    cases().iter().filter(|case| case.smooth).for_each(|case| check(case, true));
}

#[test]
fn text_round_trips() {
    for case in cases() {
        let graph = program(&case, false);
        let text = graph.to_string();
        let again = graph::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(again.to_string(), text, "{}", case.name);
    }
}

#[test]
fn a_wrong_emit_names_scope_operands_and_dims() {
    let mut graph = Graph::default();
    graph.push_scope("layers.3");
    graph.push_scope("attn");
    let x = graph.input("x", Ty::new(DType::F32, &[8, 256, 768]));
    let w = graph.input("wq", Ty::new(DType::F32, &[512, 768]));
    let y = graph.emit(Op::Dot, &[x, w], &[0, 1, 2, 0], &[1.0]);
    assert_eq!(y, NodeId::POISON);
    assert_eq!(graph.emit(Op::Neg, &[y], &[], &[]), NodeId::POISON);
    assert_eq!(graph.errors.len(), 1);
    assert_eq!(
        graph.errors[0].to_string(),
        "layers.3.attn: Dot contracts x f32[8, 256, 768] dim 2 (768) with wq f32[512, 768] dim 0 (512)"
    );
}

#[test]
fn a_wrong_start_or_axis_comes_with_a_hint() {
    let mut graph = Graph::default();
    let x = graph.input("x", Ty::new(DType::F32, &[4, 6]));
    let start = graph.input("start", Ty::scalar(DType::I32));
    graph.emit(Op::DynSlice, &[x, start], &[1, 7], &[]);
    graph.emit(Op::DynSlice, &[x, x], &[1, 2], &[]);
    graph.emit(Op::DynSlice, &[x, start], &[2, 1], &[]);
    graph.emit(Op::DynUpdateSlice, &[x, x, start], &[0, 1], &[]);
    let narrow = graph.emit(Op::Slice, &[x], &[0, 4, 0, 2], &[]);
    graph.emit(Op::DynUpdateSlice, &[x, narrow, start], &[0], &[]);
    let long = graph.input("long", Ty::new(DType::F32, &[(1 << 24) + 1]));
    graph.emit(Op::ArgMax, &[long], &[0], &[]);
    graph.emit(Op::CumSum, &[x], &[0, 2], &[]);
    graph.emit(Op::CumSum, &[start], &[0, 0], &[]);
    let messages = [
        "takes 7 indices of axis 1 of x f32[4, 6]",
        "starts at an i32[], got x f32[4, 6]",
        "has no axis 2 in x f32[4, 6]",
        "wants the attributes \"axis\", got [0, 1]",
        "cannot write Slice%2 f32[4, 2] into x f32[4, 6] along axis 0",
        "finds a place among at most 16777216, got axis 0 of long f32[16777217]",
        "runs forward or in reverse, got direction 2",
        "has no axis 0 in start i32[]",
    ];
    assert_eq!(graph.errors.iter().map(|error| &error.message[..]).collect::<Vec<_>>(), messages);
    assert!([0, 1, 4, 5, 6].iter().all(|error: &usize| !graph.errors[*error].hint.is_empty()));
}

#[test]
fn what_a_dot_adds_must_fit_and_be_scaled() {
    let mut graph = Graph::default();
    let [x, c] =
        [[2, 3], [2, 2]].map(|dims| graph.input(&format!("x{}", dims[1]), Ty::new(DType::F32, &dims)));
    let axes = [0, 1, 1, 1];
    graph.emit(Op::Dot, &[x, x, c], &axes, &[1.0]);
    graph.emit(Op::Dot, &[x, x], &axes, &[1.0, 1.0]);
    graph.emit(Op::Dot, &[x, x, x], &axes, &[1.0, 1.0]);
    let messages = [
        "takes 3 operands with 1 factors",
        "takes 2 operands with 2 factors",
        "adds x3 f32[2, 3] to a result of f32[2, 2]",
    ];
    assert_eq!(graph.errors.iter().map(|error| &error.message[..]).collect::<Vec<_>>(), messages);
    assert!(graph.errors.iter().all(|error| !error.hint.is_empty()));
    assert_ne!(graph.emit(Op::Dot, &[x, x, c], &axes, &[1.0, 1.0]), NodeId::POISON);
}

#[test]
fn parse_errors_name_the_line() {
    let error = graph::parse("input x f32[2]\n%0 = Nope() [0] {} : f32[2] @").unwrap_err();
    assert!(error.starts_with("line 2: unknown op \"Nope\""), "{error}");
}

#[test]
fn a_gradient_is_found_for_a_movement_in_the_middle_of_a_chain() {
    let mut graph = Graph::default();
    let x = graph.input("x", Ty::new(DType::F32, &[6]));
    let middle = graph.emit(Op::Reshape, &[x], &[2, 3], &[]);
    let end = graph.emit(Op::Reshape, &[middle], &[3, 2], &[]);
    let loss = weigh(&mut graph, end);
    assert!(grad(&mut graph, loss, &[middle])[0].is_some());
}

#[test]
fn wrong_losses_and_convolutions_say_what_is_needed() {
    let refused = |op: Op, operands: &[(DType, &[usize])], ints: &[i64]| {
        let mut graph = Graph::default();
        let ids: Vec<NodeId> = operands
            .iter()
            .enumerate()
            .map(|(i, (dtype, dims))| graph.input(&format!("x{i}"), Ty::new(*dtype, dims)))
            .collect();
        assert_eq!(graph.emit(op, &ids, ints, &[]), NodeId::POISON);
        graph.errors.remove(0).to_string()
    };
    let (float, int) = (DType::F32, DType::I32);
    let expect = |message: String, part: &str| assert!(message.contains(part), "{part:?} not in {message}");
    let loss = Op::CrossEntropy;
    expect(refused(loss, &[(float, &[2, 9]), (float, &[2])], &[]), "needs i32, got x1 f32[2]");
    expect(refused(loss, &[(float, &[2, 9]), (int, &[3])], &[]), "needs logits[..., V] and targets[...]");
    expect(refused(loss, &[(float, &[2, 9]), (int, &[2])], &[1]), "takes no integer attributes, got [1]");
    let conv = |weight: &[usize], tail: &[usize]| {
        refused(Op::CausalConv, &[(float, &[2, 5, 3]), (float, weight), (float, tail)], &[])
    };
    expect(conv(&[3, 3], &[2, 3, 3]), "needs weight[C, K], here [3, 4]");
    expect(conv(&[3, 4], &[1, 3, 3]), "needs x[B, T, C] and tail[B, K - 1, C]");
}
