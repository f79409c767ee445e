//! Attention as launches: nothing of queries times keys in the arena, operands read where they lie, and the same values
//! inside regions as in the interpreter.

use compiler::{Options, compile};
use device_cpu::Cpu;
use graph::{DType, Graph, NodeId, Op, ScanOptions, Ty, grad};
use host_tests::replay::{interpreted, on_cpu};
use plan::{LaunchOp, Plan, StateLayout};

/// The sum of tanh of an attention over heads that are split from [1, tokens, heads * width] and merged again, and the
/// cotangents of queries, keys and values.
fn program(tokens: usize) -> Graph {
    let mut graph = Graph::default();
    let flat = [1, tokens, 64];
    let inputs = ["q", "k", "v"].map(|name| graph.input(name, Ty::new(DType::F32, &flat)));
    let [q, k, v] = inputs.map(|x| {
        let heads = graph.emit(Op::Reshape, &[x], &[1, tokens as i64, 4, 16], &[]);
        graph.emit(Op::Permute, &[heads], &[0, 2, 1, 3], &[])
    });
    let y = graph.emit(Op::Attention, &[q, k, v], &[], &[0.25]);
    let merged = graph.emit(Op::Permute, &[y], &[0, 2, 1, 3], &[]);
    let merged = graph.emit(Op::Reshape, &[merged], &flat.map(|dim| dim as i64), &[]);
    let loss = summed(&mut graph, merged);
    graph.output("loss", loss);
    for (name, ct) in ["ct_q", "ct_k", "ct_v"].into_iter().zip(grad(&mut graph, loss, &inputs)) {
        graph.output(name, ct.expect("every operand has a cotangent"));
    }
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    graph
}

fn summed(graph: &mut Graph, x: NodeId) -> NodeId {
    let bent = graph.emit(Op::Tanh, &[x], &[], &[]);
    let axes: Vec<i64> = (0..graph.dims(x).len() as i64).collect();
    let sum = graph.emit(Op::Sum, &[bent], &axes, &[]);
    graph.emit(Op::Reshape, &[sum], &[], &[])
}

fn compiled(graph: &Graph) -> Plan {
    let plan = compile("attention", graph, &StateLayout::default(), &Cpu::caps(), Options::default());
    plan.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn memory_grows_with_the_tokens_and_not_with_their_square() {
    let [short, long] = [1024, 4096].map(|tokens| compiled(&program(tokens)).arena_bytes);
    assert!(long <= 4 * short + 4096, "{short} bytes for 1024 tokens, {long} for 4096");
    // Operands, result, its cotangent and theirs, a row of statistics, and little else.
    assert!(long < 12 * 4096 * 64 * 4, "{long} bytes");
}

#[test]
fn forward_and_backward_are_a_launch_each_and_heads_are_copied_nowhere() {
    let plan = compiled(&program(128));
    let count = |is: fn(&LaunchOp) -> bool| plan.launches.iter().filter(|launch| is(&launch.op)).count();
    assert_eq!(count(|op| matches!(op, LaunchOp::Attention(_))), 1, "{plan}");
    assert_eq!(count(|op| matches!(op, LaunchOp::AttentionGrad(_))), 1, "{plan}");
    let forward = plan.launches.iter().find_map(|launch| match &launch.op {
        LaunchOp::Attention(attention) => Some(attention),
        _ => None,
    });
    assert!(forward.is_some_and(|forward| forward.out.is_some() && forward.lse.is_some()), "{plan}");
    // What is left: tanh and its derivative, and the sum of the loss.
    assert!(plan.launches.len() <= 5, "{plan}");
}

/// Attention of slices inside a loop, of its own results under a condition, with first and second derivatives.
fn in_regions(recompute: bool, second: bool) -> Graph {
    let mut graph = Graph::default();
    let x = graph.input("x", Ty::new(DType::F32, &[3, 1, 2, 9, 4]));
    let k = graph.input("k", Ty::new(DType::F32, &[1, 1, 9, 4]));
    let counter = graph.input("counter", Ty::scalar(DType::I32));
    let options = ScanOptions { reverse: false, recompute };
    let inside = graph.open_scan(3, &[k], &[x], options);
    let y = graph.emit(Op::Attention, &[inside[2], inside[1], k], &[1, 4], &[0.7]);
    let ends = [0, 1].map(|head| graph.emit(Op::Slice, &[y], &[0, 1, head, 1, 0, 9, 0, 4], &[]));
    let next = graph.emit(Op::Add, &ends, &[], &[]);
    let results = graph.close_region(&[next, y]);
    let inside = graph.open_when(counter, 2, 1, &[results[0]]);
    let new = graph.emit(Op::Attention, &[inside[0], k, inside[0]], &[], &[0.5]);
    let chosen = graph.close_region(&[new])[0];
    let mut loss = [results[1], chosen].map(|x| summed(&mut graph, x));
    for _ in 0..usize::from(second) {
        let [a, b] = loss;
        let sum = graph.emit(Op::Add, &[a, b], &[], &[]);
        let cts: Vec<NodeId> = grad(&mut graph, sum, &[x, k]).into_iter().flatten().collect();
        loss = [cts[0], cts[1]].map(|ct| summed(&mut graph, ct));
    }
    let total = graph.emit(Op::Add, &loss, &[], &[]);
    graph.output("loss", total);
    for (name, ct) in ["ct_x", "ct_k"].into_iter().zip(grad(&mut graph, total, &[x, k])) {
        graph.output(name, ct.expect("both have a cotangent"));
    }
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    graph::compact(&graph)
}

#[test]
fn regions_give_what_the_interpreter_says() {
    for (recompute, second) in [(false, false), (true, false), (false, true), (true, true)] {
        let graph = in_regions(recompute, second);
        // Counters of both kinds: where the condition holds, and where it does not.
        for seed in 0..4 {
            let (want, got) = (interpreted(&graph, seed), on_cpu(&graph, seed, &[], 2));
            for (want, got) in want.iter().flatten().zip(got.iter().flatten()) {
                let error = (want - f64::from(*got)).abs();
                assert!(error < 2e-4 * (1.0 + want.abs()), "{got} for {want}: {recompute} {second} {seed}");
            }
        }
    }
}
