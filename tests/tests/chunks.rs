//! What reading chunk by chunk leaves behind, as launches: memories that grow are not moved when they do, the two halves
//! of a tensor come together without a sum, and a weight's gradient is one product over all chunks.

use compiler::{Options, compile};
use device_cpu::Cpu;
use graph::{DType, Graph, NodeId, Op, Ty, grad};
use host_tests::replay::{interpreted, on_cpu};
use plan::{LaunchOp, Plan, StateLayout};

const CHUNKS: usize = 5;

fn compiled(graph: &Graph) -> Plan {
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    let plan = compile("chunks", graph, &StateLayout::default(), &Cpu::caps(), Options::default());
    plan.unwrap_or_else(|error| panic!("{error}"))
}

fn gives_what_the_interpreter_says(graph: &Graph) {
    let (want, got) = (interpreted(graph, 3), on_cpu(graph, 3, &[], 2));
    for (want, got) in want.iter().flatten().zip(got.iter().flatten()) {
        assert!((want - f64::from(*got)).abs() < 1e-4 * (1.0 + want.abs()), "{got} for {want}");
    }
}

fn input(graph: &mut Graph, name: &str, dims: &[usize]) -> NodeId {
    graph.input(name, Ty::new(DType::F32, dims))
}

fn total(graph: &mut Graph, x: NodeId) -> NodeId {
    let axes: Vec<i64> = (0..graph.dims(x).len() as i64).collect();
    let sum = graph.emit(Op::Sum, &[x], &axes, &[]);
    graph.emit(Op::Reshape, &[sum], &[], &[])
}

/// Each chunk's keys [2, 4, 8], which follow from what was kept before, are kept beside the earlier ones and read by the
/// next chunk.
fn growing() -> Graph {
    let mut graph = Graph::default();
    let mut kept = input(&mut graph, "start", &[2, 4, 8]);
    for chunk in 0..CHUNKS {
        let x = input(&mut graph, &format!("x{chunk}"), &[2, 3, 8]);
        let rows = graph.dims(kept)[1] as i64;
        // [2, 3, 8] x [2, rows, 8] over 8, and back.
        let scores = graph.emit(Op::Dot, &[x, kept], &[1, 1, 0, 0, 2, 2], &[1.0]);
        let read = graph.emit(Op::Dot, &[scores, kept], &[1, 1, 0, 0, 2, 1], &[1.0 / rows as f64]);
        let new = graph.emit(Op::Tanh, &[read], &[], &[]);
        kept = graph.emit(Op::Concat, &[kept, new], &[1], &[]);
    }
    let total = total(&mut graph, kept);
    graph.output("total", total);
    graph
}

#[test]
fn what_grows_is_not_moved() {
    let graph = growing();
    let plan = compiled(&graph);
    // A chunk is two products and a tanh; what there was at the start is copied once, and the total is a sum.
    let tiles = plan.launches.iter().filter(|launch| matches!(launch.op, LaunchOp::Tile { .. })).count();
    assert!(tiles <= CHUNKS + 3, "{tiles} tile kernels for {CHUNKS} chunks: {plan}");
    let bytes: usize = 2 * (4 + 3 * CHUNKS) * 8 * 4;
    let each = plan.launches.iter().flat_map(|launch| launch.written(&plan.kernels));
    let written: usize = each.map(|slot| slot.bytes).sum();
    assert!(written < 6 * bytes, "{written} bytes are written where {bytes} are kept in the end");
    gives_what_the_interpreter_says(&graph);
}

#[test]
fn a_weight_has_one_product_for_all_chunks() {
    let mut graph = Graph::default();
    let weight = input(&mut graph, "weight", &[24, 16]);
    let mut losses = Vec::new();
    for chunk in 0..CHUNKS {
        let x = input(&mut graph, &format!("x{chunk}"), &[2, 3, 16]);
        let y = graph.emit(Op::Dot, &[x, weight], &[0, 1, 2, 1], &[1.0]);
        let bent = graph.emit(Op::Tanh, &[y], &[], &[]);
        losses.push(total(&mut graph, bent));
    }
    let loss =
        losses.into_iter().reduce(|a, b| graph.emit(Op::Add, &[a, b], &[], &[])).expect("there are chunks");
    let ct = grad(&mut graph, loss, &[weight])[0].expect("the weight is used");
    graph.output("ct", ct);
    let plan = compiled(&graph);
    let long: Vec<_> = plan
        .launches
        .iter()
        .filter_map(|launch| match &launch.op {
            LaunchOp::Gemm(gemm) if gemm.m * gemm.n == 24 * 16 => Some(gemm.k),
            _ => None,
        })
        .collect();
    assert_eq!(long, [2 * 3 * CHUNKS], "{plan}");
    gives_what_the_interpreter_says(&graph);
}

#[test]
fn rope_halves_become_one_concat() {
    let mut graph = Graph::default();
    let x = input(&mut graph, "x", &[6, 8]);
    let half = |graph: &mut Graph, start| graph.emit(Op::Slice, &[x], &[0, 6, start, 4], &[]);
    let (a, b) = (half(&mut graph, 0), half(&mut graph, 4));
    let product = graph.emit(Op::Mul, &[a, b], &[], &[]);
    let loss = total(&mut graph, product);
    let ct = grad(&mut graph, loss, &[x])[0].expect("x is used");
    graph.output("ct", ct);
    let plan = compiled(&graph);
    // Each half of the cotangent is written to its place; nothing is filled with zeros and added.
    assert!(plan.launches.len() <= 2, "{plan}");
    gives_what_the_interpreter_says(&graph);
}
