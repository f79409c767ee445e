//! Every derivative row against central differences in f64, and the second derivative of the smooth ones.

mod cases;

use graph::interp::{self, Tensor};
use graph::{DType, Graph, NodeId, Op, Ty, grad};

use cases::{Case, cases};

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
    let graph = graph::compact(&graph);
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

/// Ops whose cotangent is none by definition, that hold no tensor, or that other cases stand for.
const WITHOUT_CASE: &[Op] = &[
    Op::Input,
    Op::State,
    Op::Const,
    Op::Iota,
    Op::Write,
    Op::Output,
    Op::StopGrad,
    Op::Floor,
    Op::Cast,
    Op::Bitcast,
    Op::Lt,
    Op::Eq,
    Op::And,
    Op::Or,
    Op::Xor,
    Op::Shl,
    Op::Shr,
    Op::Rand,
    Op::ArgMax,
];

#[test]
fn every_op_with_a_derivative_has_a_case() {
    let graphs: Vec<Graph> = cases().iter().map(|case| program(case, false)).collect();
    let holds = |graph: &Graph, op: Op| graph.nodes.iter().any(|node| node.op == op);
    let in_bodies = |graph: &Graph, op| graph.bodies.iter().any(|body| holds(body, op));
    let covered = |op: &Op| graphs.iter().any(|graph| holds(graph, *op) || in_bodies(graph, *op));
    let missing: Vec<&Op> = Op::ALL.iter().filter(|op| !WITHOUT_CASE.contains(op) && !covered(op)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
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
