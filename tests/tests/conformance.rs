//! Random graphs on the CPU device against the interpreter, with every optional pass on and off.

use graph::{Graph, NodeId, Op};
use host_tests::programs::random_graph;
use host_tests::replay::{interpreted, on_cpu};

const GRAPHS: u64 = 600;

/// f32 sums of some hundred terms of size one, through a few ops.
const TOLERANCE: f64 = 2e-4;

#[test]
fn random_graphs_agree_with_the_interpreter() {
    for seed in 0..GRAPHS {
        let graph = random_graph(seed);
        agree(&graph, seed);
    }
}

fn agree(graph: &Graph, seed: u64) {
    let expected = interpreted(graph, seed);
    let actual = on_cpu(graph, seed, &[], 2);
    assert_eq!(expected.len(), actual.len(), "seed {seed}");
    for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
        let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        for (element, (want, got)) in expected.iter().zip(actual).enumerate() {
            let error = (want - f64::from(*got)).abs() / scale;
            assert!(error < TOLERANCE, "seed {seed}, result {index}[{element}]: {got} for {want}\n{graph}");
        }
    }
}

#[test]
fn no_pass_changes_a_bit() {
    for seed in 0..GRAPHS {
        let graph = random_graph(seed);
        let bits = |disabled: &[&str], threads| -> Vec<Vec<u32>> {
            let results = on_cpu(&graph, seed, disabled, threads);
            results.into_iter().map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
        };
        let all = bits(&[], 1);
        for disabled in [&["fuse"][..], &["remat"], &["simplify", "remat", "fuse"]] {
            assert_eq!(all, bits(disabled, 1), "seed {seed} without {disabled:?}\n{graph}");
        }
        assert_eq!(all, bits(&[], 2), "seed {seed} with two threads");
    }
}

/// `sine` leads by a long chain to `scaled`, which is computed together with `early`; that leads to `last`. Were `sine`
/// and `last` computed together, they would wait for themselves, though `early` itself waits for nothing.
#[test]
fn clusters_never_wait_for_themselves() {
    let mut graph = Graph::default();
    let mut emit = |op: Op, inputs: &[NodeId], ints: &[i64]| {
        graph.emit(op, inputs, ints, &[1.0][..usize::from(op == Op::Dot)])
    };
    let index = emit(Op::Iota, &[], &[0, 0, 5]);
    let sine = emit(Op::Sin, &[index], &[]);
    let copy = emit(Op::Copy, &[sine], &[]);
    let both = emit(Op::Concat, &[sine, copy], &[0]);
    let mut chain = both;
    for op in [Op::Tanh, Op::Exp, Op::Cos] {
        chain = emit(op, &[chain], &[]);
    }
    let twice = emit(Op::Concat, &[chain, chain], &[0]);
    let peak = emit(Op::ReduceMax, &[twice], &[0]);
    let peak = emit(Op::Broadcast, &[peak], &[5]);
    let early = emit(Op::Erf, &[index], &[]);
    let scaled = emit(Op::Mul, &[early, peak], &[]);
    let rows = emit(Op::Iota, &[], &[0, 0, 5, 5]);
    let product = emit(Op::Dot, &[early, rows], &[0, 1, 0, 0]);
    let last = emit(Op::Sub, &[product, sine], &[]);
    graph.output("scaled", scaled);
    graph.output("last", last);
    agree(&graph, 0);
}
