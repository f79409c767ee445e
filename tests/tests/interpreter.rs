//! The tiny model on the interpreter, the first device there was: it trains, and the CPU device follows it.

use host_tests::Sandbox;

/// Sizes of the `tiny` preset; the interpreter affords two windows a step.
const TINY: [&str; 9] = [
    "--preset=tiny",
    "--set=d_model=128",
    "--set=layers=4",
    "--set=heads=4",
    "--set=window=128",
    "--set=batch=2",
    "--set=warmup=50",
    "--set=eval_windows=2",
    "--steps=20",
];

#[test]
fn the_cpu_follows_the_interpreter_for_twenty_steps() {
    let sandbox = Sandbox::new();
    let losses = |device: &str| sandbox.train(device, &[&TINY[..], &["--device", device]].concat()).losses();
    let (exact, cpu) = (losses("interpreter"), losses("cpu"));
    assert_eq!(exact.len(), 20);
    let worst = exact.iter().zip(&cpu).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-5, "losses differ by {worst:e}");
    assert!(exact[19] < exact[0] - 1.0, "the loss fell from {} to {} only", exact[0], exact[19]);
    println!("largest difference of a loss: {worst:e}");
}
