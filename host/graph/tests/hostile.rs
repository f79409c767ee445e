//! What fuzzing found: sizes beyond counting, attributes beyond their range, poison where a rule looks at extents,
//! names that are no words. Each is an error or reads back; none is a panic.

use graph::{DType, Graph, NodeId, Op, Ty, expand, grad, parse, verify};

fn f32(graph: &mut Graph, dims: &[usize]) -> NodeId {
    let name = format!("x{}", graph.inputs.len());
    graph.input(&name, Ty::new(DType::F32, dims))
}

/// The error of an emit that must fail.
fn refused(graph: &mut Graph, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> String {
    assert_eq!(graph.emit(op, inputs, ints, floats), NodeId::POISON, "{op} {ints:?}");
    graph.errors.pop().expect("what fails says so").to_string()
}

#[test]
fn extents_whose_product_overflows_are_refused() {
    let mut graph = Graph::default();
    let large = i64::from(u32::MAX);
    let said = refused(&mut graph, Op::Const, &[], &[0, large, large, large], &[1.0]);
    assert!(said.contains("would make a tensor of [4294967295"), "{said}");
    let one = f32(&mut graph, &[1, 1, 1]);
    refused(&mut graph, Op::Broadcast, &[one], &[large, large, large], &[]);
    refused(&mut graph, Op::Reshape, &[one], &[1, 1, 1, 1, 1, 1, 1, 1, 1], &[]);
    refused(&mut graph, Op::ScatterAdd, &[one, one], &[i64::MAX], &[]);
    refused(&mut graph, Op::Pad, &[one], &[i64::MAX, i64::MAX, 0, 0, 0, 0], &[0.0]);
    let long = f32(&mut graph, &[1 << 30]);
    refused(&mut graph, Op::Dot, &[long, long], &[0, 0], &[1.0]);
}

#[test]
fn declarations_of_impossible_size_are_refused() {
    for dims in [&[0][..], &[usize::MAX], &[1 << 31, 1 << 31, 1 << 31], &[1; 9]] {
        let mut graph = Graph::default();
        assert_eq!(graph.input("x", Ty::new(DType::F32, dims)), NodeId::POISON);
        assert_eq!(graph.state("x", Ty::new(DType::F32, dims)), NodeId::POISON);
        assert_eq!(graph.errors.len(), 2, "{dims:?}");
    }
    assert!(parse("input x f32[0]\n%0 = Input() [0] {} : f32[0] @\n").is_err());
}

#[test]
fn counts_of_axes_that_wrap_around_are_malformed() {
    let mut graph = Graph::default();
    let x = f32(&mut graph, &[2]);
    let said = refused(&mut graph, Op::Dot, &[x, x], &[i64::MAX, 1], &[1.0]);
    assert!(said.contains("malformed axes"), "{said}");
}

#[test]
fn an_axis_is_folded_once() {
    let mut graph = Graph::default();
    let x = f32(&mut graph, &[2, 3]);
    let said = refused(&mut graph, Op::Sum, &[x], &[1, 1], &[]);
    assert!(said.contains("names axis 1 of x0 f32[2, 3] twice"), "{said}");
}

/// Inference of a composite accepts only what its decomposition can be made of.
#[test]
fn composites_that_cannot_be_decomposed_are_refused() {
    let mut graph = Graph::default();
    let (q, long) = (f32(&mut graph, &[1, 1, 4, 2]), f32(&mut graph, &[1, 1, 1 << 24, 2]));
    let k = graph.emit(Op::Cast, &[q], &[DType::I32 as i64], &[]);
    refused(&mut graph, Op::Attention, &[q, k, k], &[], &[1.0]);
    refused(&mut graph, Op::Attention, &[long, long, long], &[], &[1.0]);
    let (x, w) = (f32(&mut graph, &[1 << 24, 2]), f32(&mut graph, &[1 << 24, 2]));
    let targets = graph.input("targets", Ty::new(DType::I32, &[1 << 24]));
    refused(&mut graph, Op::LinearCrossEntropy, &[x, w, targets], &[], &[]);
    let w = graph.emit(Op::Cast, &[q], &[DType::I32 as i64], &[]);
    let w = graph.emit(Op::Reshape, &[w], &[4, 2], &[]);
    refused(&mut graph, Op::LinearCrossEntropy, &[x, w, targets], &[], &[]);
    assert!(expand(&graph).errors.is_empty());
}

/// A cotangent that could not be built ends the way back: its rule would look at extents that poison has not.
#[test]
fn a_missing_rule_poisons_what_lies_behind_it() {
    let mut graph = Graph::default();
    let x = f32(&mut graph, &[2, 3]);
    let gain = f32(&mut graph, &[3]);
    let normal = graph.emit(Op::LayerNorm, &[x, gain], &[], &[1e-5]);
    graph.output("y", normal);
    let output = graph.roots()[0];
    let loss = graph.emit(Op::Sum, &[output], &[0, 1], &[]);
    assert_eq!(grad(&mut graph, loss, &[x, gain]), [Some(NodeId::POISON); 2]);
    let said = graph.errors[0].to_string();
    assert!(said.contains("has no derivative rule") && said.contains("x0"), "{said}");
}

#[test]
fn any_name_and_any_number_reads_back() {
    let mut graph = Graph::default();
    graph.push_scope("a\nlayer @ [0] {}\\");
    let x = graph.input("two words\u{85}\r\n", Ty::new(DType::F32, &[2]));
    let floats = [f64::NAN, -f64::NAN, f64::from_bits(0x7ff8_0000_0000_0001), f64::INFINITY, -0.0];
    for value in floats {
        let constant = graph.constant(value, DType::F32, &[2]);
        graph.emit(Op::Max, &[x, constant], &[], &[]);
    }
    graph.output(" ", x);
    let again = parse(&graph.to_string()).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    assert_eq!(again.to_string(), graph.to_string());
    assert_eq!(again.inputs, graph.inputs);
    assert_eq!(again.outputs, graph.outputs);
    assert_eq!(again.scopes[1], graph.scopes[1]);
    verify(&again).unwrap();
    assert!(parse("input a\\ f32[]").is_err() && parse("input \\u{110000} f32[]").is_err());
}
