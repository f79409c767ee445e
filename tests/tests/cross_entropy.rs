//! Cross-entropy of a head as launches: nothing of tokens times vocabulary in the arena, one pass where the losses are not
//! needed first, and the same values inside regions as in the interpreter.

use compiler::{Options, compile};
use device_cpu::Cpu;
use device_wgpu::Wgpu;
use graph::{Builder, DType, Graph, NodeId, Op, ScanOptions, Ty, grad};
use host_tests::devices::{small_kernels, wgpu, wgpu_small_kernels};
use host_tests::replay::{Replay, inputs, interpreted, prepared};
use plan::{CrossEntropy, Device, DeviceCaps, LaunchOp, Plan, StateLayout};

/// What a graph's total loss is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Total {
    /// Their mean under weights.
    Weighted,
    /// The sum of their squares: a cotangent that depends on the losses.
    Squared,
}

/// Losses of x[2, tokens / 2, width] with the cotangents of x and w, flat, in one bank with those of a bias.
fn program(tokens: usize, width: usize, vocabulary: usize, total: Total) -> Graph {
    let mut graph = Graph::default();
    let half = [2, tokens / 2];
    let x = graph.input("x", Ty::new(DType::F32, &[2, tokens / 2, width]));
    let w = graph.input("w", Ty::new(DType::F32, &[vocabulary, width]));
    let bias = graph.input("bias", Ty::new(DType::F32, &[width]));
    let weights = graph.input("weights", Ty::new(DType::F32, &half));
    let targets = graph.input("targets", Ty::new(DType::I32, &half));
    let (loss, losses) = Builder::with(&mut graph, |b| {
        let moved = b.var(x) + b.var(bias).like(b.var(x));
        let losses = b.var(b.emit(Op::LinearCrossEntropy, &[moved.id, w, targets], &[], &[]));
        let terms = match total {
            Total::Weighted => losses * b.var(weights),
            Total::Squared => losses * losses,
        };
        (terms.sum(&[0, 1]).scale(1.0 / tokens as f64).reshape(&[]).id, losses.id)
    });
    let cts: Vec<NodeId> = grad(&mut graph, loss, &[w, bias, x]).into_iter().flatten().collect();
    graph.output("loss", loss);
    graph.output("losses", losses);
    let bank = Builder::with(&mut graph, |b| {
        let flat = |id: NodeId| b.var(id).reshape(&[b.ty(id).elements()]).id;
        b.emit(Op::Concat, &[flat(cts[0]), flat(cts[1])], &[0], &[])
    });
    graph.output("bank", bank);
    graph.output("ct_x", cts[2]);
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    graph
}

fn compiled(graph: &Graph, caps: &DeviceCaps) -> Plan {
    let plan = compile("cross-entropy", graph, &StateLayout::default(), caps, Options::default());
    plan.unwrap_or_else(|error| panic!("{error}"))
}

fn launches(plan: &Plan) -> Vec<&CrossEntropy> {
    let all = plan.launches.iter().filter_map(|launch| match &launch.op {
        LaunchOp::CrossEntropy(launch) => Some(&**launch),
        _ => None,
    });
    all.collect()
}

/// Compares every output with the interpreter's.
fn agrees(graph: &Graph, seed: u64, what: &str) {
    agrees_on(graph, seed, what, &small_kernels(), Box::new(Cpu::new(2)));
}

fn agrees_on(graph: &Graph, seed: u64, what: &str, caps: &DeviceCaps, device: Box<dyn Device>) {
    let want = interpreted(graph, seed);
    let set = prepared(graph, caps, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut replay = Replay::loaded(graph, device, set).unwrap_or_else(|error| panic!("{what}: {error}"));
    let got = replay.run(&inputs(graph, seed).0).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (want, got) in want.iter().flatten().zip(got.iter().flat_map(|tensor| &tensor.data)) {
        assert!((want - got).abs() < 2e-4 * (1.0 + want.abs()), "{what}, seed {seed}: {got} for {want}");
    }
}

#[test]
fn no_tensor_of_tokens_times_vocabulary_lies_in_the_arena() {
    let (tokens, width, vocabulary) = (1024, 64, 4096);
    for total in [Total::Weighted, Total::Squared] {
        let plan = compiled(&program(tokens, width, vocabulary, total), &Cpu::caps());
        // x and w, their cotangents, x with its bias, and little else.
        let operands = 4 * (3 * tokens * width + 2 * vocabulary * width);
        assert!(plan.arena_bytes < operands + 4 * 16 * tokens, "{total:?}: {} bytes", plan.arena_bytes);
    }
}

#[test]
fn losses_and_cotangents_are_one_launch_unless_the_losses_are_needed_first() {
    let graph = program(256, 16, 4096, Total::Weighted);
    let plan = compiled(&graph, &Cpu::caps());
    let [one] = launches(&plan)[..] else { panic!("{plan}") };
    assert!(one.loss.is_some(), "{plan}");
    let grad = one.grad.expect("the launch gives cotangents");
    // The cotangent of w lies where the bank begins.
    let bank = plan.outputs.iter().find(|io| io.name == "bank").expect("it is declared").slot;
    assert_eq!(grad.ct_w.map(|slot| (slot.region, slot.offset)), Some((bank.region, bank.offset)), "{plan}");
    assert!(grad.ct_x.is_some(), "{plan}");

    let plan = compiled(&program(256, 16, 4096, Total::Squared), &Cpu::caps());
    let [first, second] = launches(&plan)[..] else { panic!("{plan}") };
    assert!(first.loss.is_some() && first.grad.is_none() && second.loss.is_none(), "{plan}");

    let few = compiled(&program(2048, 16, 65, Total::Weighted), &Cpu::caps());
    assert!(launches(&few).is_empty(), "a small vocabulary stays decomposed: {few}");
}

#[test]
fn both_forms_give_what_the_interpreter_says() {
    for total in [Total::Weighted, Total::Squared] {
        for (tokens, width, vocabulary) in [(2, 1, 2), (34, 7, 5), (130, 20, 211)] {
            agrees(&program(tokens, width, vocabulary, total), 3, &format!("{total:?} {tokens}"));
        }
    }
}

/// Smaller logits than those of a chunk are tensors there; larger ones are never whole.
#[test]
fn a_graphics_device_takes_large_heads_alone() {
    let (width, vocabulary) = (64, 1 << 14);
    assert!(
        launches(&compiled(&program(1022, width, vocabulary, Total::Weighted), &Wgpu::caps())).is_empty()
    );
    let plan = compiled(&program(1024, width, vocabulary, Total::Weighted), &Wgpu::caps());
    assert_eq!(launches(&plan).len(), 1, "{plan}");
    assert!(plan.arena_bytes < 4 * 1024 * vocabulary / 4, "{} bytes", plan.arena_bytes);
}

#[test]
fn a_graphics_device_gives_the_same() {
    let caps = wgpu_small_kernels();
    for total in [Total::Weighted, Total::Squared] {
        for (tokens, width, vocabulary) in [(2, 1, 2), (130, 20, 211)] {
            let Some(device) = wgpu() else { return };
            let graph = program(tokens, width, vocabulary, total);
            assert!(!launches(&compiled(&graph, &caps)).is_empty(), "it has a kernel of its own");
            agrees_on(&graph, 3, &format!("{total:?} {tokens} on wgpu"), &caps, device);
        }
    }
}

/// Two losses of which each one's cotangent is made of the other: one of them can join its derivative, not both.
#[test]
fn losses_that_wait_for_each_other_do_not_both_join() {
    let mut graph = Graph::default();
    let [x, y] = ["x", "y"].map(|name| graph.input(name, Ty::new(DType::F32, &[6, 4])));
    let w = graph.input("w", Ty::new(DType::F32, &[9, 4]));
    let targets = graph.input("targets", Ty::new(DType::I32, &[6]));
    let [a, b] = [x, y].map(|x| graph.emit(Op::LinearCrossEntropy, &[x, w, targets], &[], &[]));
    let product = graph.emit(Op::Mul, &[a, b], &[], &[]);
    let sum = graph.emit(Op::Sum, &[product], &[0], &[]);
    let loss = graph.emit(Op::Reshape, &[sum], &[], &[]);
    graph.output("loss", loss);
    for (name, ct) in ["ct_x", "ct_y", "ct_w"].into_iter().zip(grad(&mut graph, loss, &[x, y, w])) {
        graph.output(name, ct.expect("every operand has a cotangent"));
    }
    assert_eq!(launches(&compiled(&graph, &small_kernels())).len(), 3);
    agrees(&graph, 1, "product of losses");
}

/// Losses of slices inside a loop, whose gradient is taken inside, and under a condition, with first and second
/// derivatives.
fn in_regions(recompute: bool, second: bool) -> Graph {
    let mut graph = Graph::default();
    let x = graph.input("x", Ty::new(DType::F32, &[3, 5, 4]));
    let w = graph.input("w", Ty::new(DType::F32, &[7, 4]));
    let targets = graph.input("targets", Ty::new(DType::I32, &[3, 5]));
    let counter = graph.input("counter", Ty::scalar(DType::I32));
    let first = graph.emit(Op::Slice, &[x], &[0, 1, 0, 5, 0, 4], &[]);
    let start = graph.emit(Op::Reshape, &[first], &[5, 4], &[]);
    let of_counter = graph.emit(Op::Slice, &[targets], &[1, 1, 0, 5], &[]);
    let of_counter = graph.emit(Op::Reshape, &[of_counter], &[5], &[]);
    let inside = graph.open_scan(3, &[start], &[x, targets], ScanOptions { reverse: false, recompute });
    let moved = graph.emit(Op::Add, &[inside[1], inside[2]], &[], &[]);
    let losses = graph.emit(Op::LinearCrossEntropy, &[moved, w, inside[3]], &[], &[]);
    let sum = summed(&mut graph, losses);
    let slope = grad(&mut graph, sum, &[moved])[0].expect("it has a cotangent");
    let next = graph.emit(Op::Sub, &[inside[1], slope], &[], &[]);
    let results = graph.close_region(&[next, losses]);
    let inside = graph.open_when(counter, 2, 1, &[results[0]]);
    let losses = graph.emit(Op::LinearCrossEntropy, &[inside[0], w, of_counter], &[], &[]);
    let sum = summed(&mut graph, losses);
    let slope = grad(&mut graph, sum, &[inside[0]])[0].expect("it has a cotangent");
    let new = graph.emit(Op::Add, &[inside[0], slope], &[], &[]);
    let chosen = graph.close_region(&[new])[0];
    let mut parts = [results[1], chosen].map(|x| summed(&mut graph, x));
    if second {
        let sum = graph.emit(Op::Add, &parts, &[], &[]);
        let cts: Vec<NodeId> = grad(&mut graph, sum, &[x, w]).into_iter().flatten().collect();
        parts = [cts[0], cts[1]].map(|ct| summed(&mut graph, ct));
    }
    let total = graph.emit(Op::Add, &parts, &[], &[]);
    graph.output("loss", total);
    for (name, ct) in ["ct_x", "ct_w"].into_iter().zip(grad(&mut graph, total, &[x, w])) {
        graph.output(name, ct.expect("both have a cotangent"));
    }
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    graph::compact(&graph)
}

/// The sum of tanh.
fn summed(graph: &mut Graph, x: NodeId) -> NodeId {
    let bent = graph.emit(Op::Tanh, &[x], &[], &[]);
    let axes: Vec<i64> = (0..graph.dims(x).len() as i64).collect();
    let sum = graph.emit(Op::Sum, &[bent], &axes, &[]);
    graph.emit(Op::Reshape, &[sum], &[], &[])
}

#[test]
fn regions_give_what_the_interpreter_says() {
    for (recompute, second) in [(false, false), (true, false), (false, true), (true, true)] {
        let graph = in_regions(recompute, second);
        // Counters of both kinds: where the condition holds, and where it does not.
        for seed in 0..4 {
            agrees(&graph, seed, &format!("recompute {recompute}, second {second}"));
        }
    }
}
