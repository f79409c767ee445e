//! Optional passes on and off, and the CPU against the interpreter.

use super::{AFFORDABLE, elements};
use crate::programs::chosen_graph;
use crate::replay::{interpreted, on_cpu, rounded};

/// f32 sums of some hundred terms of size one, through a few ops.
const TOLERANCE: f64 = 2e-4;

/// How much worse than an interpreter that rounds every value to f32 a device may be: it also rounds inside of ops.
const LENIENCE: f64 = 100.0;

/// Reads the bytes as the choices of a random graph. No optional pass may change a bit of its results, which must be
/// as close to the interpreter's as f32 allows.
pub fn passes(bytes: &[u8]) {
    let graph = chosen_graph(bytes, 0);
    if elements(&graph) > AFFORDABLE {
        return;
    }
    let all = on_cpu(&graph, 0, &[], 1);
    for disabled in [&["fuse"][..], &["remat"], &["simplify", "remat", "fuse"]] {
        assert_eq!(bits(&all), bits(&on_cpu(&graph, 0, disabled, 1)), "without {disabled:?}\n{graph}");
    }
    let expected = interpreted(&graph, 0);
    assert_eq!(expected.len(), all.len());
    for (index, ((expected, rounded), actual)) in
        expected.iter().zip(rounded(&graph, 0)).zip(&all).enumerate()
    {
        let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        let apart = |a: &f64, b: f64| if *a == b { 0.0 } else { (a - b).abs() / scale };
        let condition = expected.iter().zip(&rounded).map(|(a, b)| apart(a, *b)).fold(0.0, worse);
        let worst = expected.iter().zip(actual).map(|(a, b)| apart(a, f64::from(*b))).fold(0.0, worse);
        // Beyond the range of f32 there is nothing to compare.
        let comparable = condition.is_finite() && scale < 1e30;
        assert!(
            !comparable || worst <= TOLERANCE + LENIENCE * condition,
            "result {index} differs by {worst:e}\n{graph}"
        );
    }
}

/// The larger one, where NaN counts as infinite.
fn worse(a: f64, b: f64) -> f64 {
    a.max(if b.is_nan() { f64::INFINITY } else { b })
}

/// All NaNs are one: which of two operands a NaN comes from is not promised.
fn bits(results: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let bits = |x: &f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
    results.iter().map(|values| values.iter().map(bits).collect()).collect()
}
