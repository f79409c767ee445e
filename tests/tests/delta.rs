//! The gated delta rule as launches: nothing of tokens times tokens in the arena, operands read where they lie, and the
//! same values inside regions as in the interpreter.

use compiler::{Options, compile};
use device_cpu::Cpu;
use graph::{DType, Graph, NodeId, Op, ScanOptions, Ty, grad};
use host_tests::replay::{interpreted, on_cpu};
use plan::{LaunchOp, Plan, StateLayout};

const HEADS: usize = 4;
const WIDTH: usize = 16;

/// The sum of tanh of a delta rule over heads that are split from [1, tokens, heads * width] and merged again, with keys
/// shorter than one and gates in 0..1, and the cotangents of what its operands are made of.
fn program(tokens: usize) -> Graph {
    let mut graph = Graph::default();
    let flat = [1, tokens, HEADS * WIDTH];
    let rows = ["q", "k", "v"].map(|name| graph.input(name, Ty::new(DType::F32, &flat)));
    let gates = ["log_alpha", "beta"].map(|name| graph.input(name, Ty::new(DType::F32, &[1, tokens, HEADS])));
    let quarter = graph.constant(0.25, DType::F32, &flat);
    let short = graph.emit(Op::Mul, &[rows[1], quarter], &[], &[]);
    let [q, k, v] = [rows[0], short, rows[2]].map(|x| {
        let split = [1, tokens, HEADS, WIDTH].map(|dim| dim as i64);
        let heads = graph.emit(Op::Reshape, &[x], &split, &[]);
        graph.emit(Op::Permute, &[heads], &[0, 2, 1, 3], &[])
    });
    let [decay, beta] = gates.map(|x| {
        let square = graph.emit(Op::Mul, &[x, x], &[], &[]);
        graph.emit(Op::Permute, &[square], &[0, 2, 1], &[])
    });
    let log_alpha = graph.emit(Op::Neg, &[decay], &[], &[]);
    let state = graph.constant(0.0, DType::F32, &[1, HEADS, WIDTH, WIDTH]);
    let both = graph.emit(Op::GatedDeltaRule, &[q, k, v, log_alpha, beta, state], &[], &[]);
    let y = graph.emit(Op::Result, &[both], &[0], &[]);
    let merged = graph.emit(Op::Permute, &[y], &[0, 2, 1, 3], &[]);
    let merged = graph.emit(Op::Reshape, &[merged], &flat.map(|dim| dim as i64), &[]);
    let loss = summed(&mut graph, merged);
    graph.output("loss", loss);
    let inputs = [&rows[..], &gates].concat();
    for (index, ct) in grad(&mut graph, loss, &inputs).into_iter().enumerate() {
        graph.output(&format!("ct{index}"), ct.expect("every operand has a cotangent"));
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
    let plan = compile("delta", graph, &StateLayout::default(), &Cpu::caps(), Options::default());
    plan.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn memory_grows_with_the_tokens_alone() {
    let [short, long] = [1024, 4096].map(|tokens| compiled(&program(tokens)).arena_bytes);
    assert!(long <= 4 * short + 4096, "{short} bytes for 1024 tokens, {long} for 4096");
    // Operands, result, its cotangent and theirs, and little else.
    assert!(long < 14 * 4096 * HEADS * WIDTH * 4, "{long} bytes");
    // As many launches for any number of tokens: no chunk is one of its own.
    let longest = compiled(&program(1 << 16));
    assert!(longest.arena_bytes <= 16 * long + 4096, "{} bytes", longest.arena_bytes);
    assert!(longest.launches.len() <= 16, "{}", longest.launches.len());
}

#[test]
fn forward_and_backward_are_a_launch_each_and_heads_are_copied_nowhere() {
    let plan = compiled(&program(128));
    let count = |is: fn(&LaunchOp) -> bool| plan.launches.iter().filter(|launch| is(&launch.op)).count();
    assert_eq!(count(|op| matches!(op, LaunchOp::DeltaRule(_))), 1, "{plan}");
    assert_eq!(count(|op| matches!(op, LaunchOp::DeltaRuleGrad(_))), 1, "{plan}");
    for launch in &plan.launches {
        if let LaunchOp::DeltaRuleGrad(grad) = &launch.op {
            // Neither the last state's cotangent nor one of the first state is asked for.
            assert!(grad.ct_out.is_some() && grad.ct_last.is_none(), "{plan}");
            assert!(grad.cts[..5].iter().all(Option::is_some) && grad.cts[5].is_none(), "{plan}");
        }
    }
    // What is left: zeros for the state, tanh and its derivative, the sum of the loss, and what makes keys and gates.
    assert!(plan.launches.len() <= 16, "{plan}");
}

#[test]
fn long_sequences_run() {
    let graph = program(65_536);
    let [first, second] = [1, 2].map(|threads| on_cpu(&graph, 3, &[], threads));
    assert_eq!(first, second, "threads change bits");
    assert!(first.iter().flatten().all(|x| x.is_finite()));
}

/// A delta rule of slices inside a loop that carries its state, and under a condition, with first and second
/// derivatives.
fn in_regions(recompute: bool, second: bool) -> Graph {
    let mut graph = Graph::default();
    let x = graph.input("x", Ty::new(DType::F32, &[3, 1, 2, 9, 4]));
    let k = graph.input("k", Ty::new(DType::F32, &[1, 2, 9, 4]));
    let gate = graph.input("gate", Ty::new(DType::F32, &[1, 2, 9]));
    let state = graph.input("state", Ty::new(DType::F32, &[1, 2, 4, 4]));
    let counter = graph.input("counter", Ty::scalar(DType::I32));
    let square = graph.emit(Op::Mul, &[gate, gate], &[], &[]);
    let decay = graph.emit(Op::Neg, &[square], &[], &[]);
    let options = ScanOptions { reverse: false, recompute };
    let inside = graph.open_scan(3, &[state], &[x], options);
    let rule = |graph: &mut Graph, q: NodeId, state: NodeId| {
        let both = graph.emit(Op::GatedDeltaRule, &[q, k, q, decay, gate, state], &[4], &[]);
        [0, 1].map(|index| graph.emit(Op::Result, &[both], &[index], &[]))
    };
    let [y, next] = rule(&mut graph, inside[2], inside[1]);
    let results = graph.close_region(&[next, y]);
    let inside = graph.open_when(counter, 2, 1, &[results[0]]);
    let [_, new] = rule(&mut graph, k, inside[0]);
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
    let wrt = [x, k, gate, state];
    for (index, ct) in grad(&mut graph, total, &wrt).into_iter().enumerate() {
        graph.output(&format!("ct{index}"), ct.expect("each has a cotangent"));
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
                assert!(error < 5e-4 * (1.0 + want.abs()), "{got} for {want}: {recompute} {second} {seed}");
            }
        }
    }
}
