//! Random graphs on the CPU device against the interpreter, with every optional pass on and off.

use host_tests::programs::random_graph;
use host_tests::replay::{interpreted, on_cpu};

const GRAPHS: u64 = 600;

/// f32 sums of some hundred terms of size one, through a few ops.
const TOLERANCE: f64 = 2e-4;

#[test]
fn random_graphs_agree_with_the_interpreter() {
    for seed in 0..GRAPHS {
        let graph = random_graph(seed);
        let expected = interpreted(&graph, seed);
        let actual = on_cpu(&graph, seed, &[], 2);
        assert_eq!(expected.len(), actual.len(), "seed {seed}");
        for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
            let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
            for (element, (want, got)) in expected.iter().zip(actual).enumerate() {
                let error = (want - f64::from(*got)).abs() / scale;
                assert!(
                    error < TOLERANCE,
                    "seed {seed}, result {index}[{element}]: {got} for {want}\n{graph}"
                );
            }
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
