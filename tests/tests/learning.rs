//! A model with loops, conditions, inner gradients and dropout (`fixtures/learner`), trained through the real host.

use host_tests::{Run, Sandbox};

/// Trains for a few steps, with the backbone called inside the loop.
fn train(sandbox: &Sandbox, out: &str, arguments: &[&str]) -> Run {
    let sizes = [
        "--set=window=24",
        "--set=batch=3",
        "--set=warmup=2",
        "--set=eval_windows=4",
        "--set=sample.tokens=2",
        "--set=attention.full.heads=2",
    ];
    let words = [&["run", "--plugin=learner", "--steps=5", "--out", out][..], &sizes, arguments].concat();
    sandbox.host_with("learner", &words).succeeded();
    Run::at(sandbox.path(out))
}

#[test]
fn every_policy_gives_the_same_bits() {
    let sandbox = Sandbox::new();
    let [save, recompute, every] = ["save", "recompute", "every"]
        .map(|policy| train(&sandbox, policy, &[&format!("--set=model.learner.policy={policy}")]));
    assert_eq!(save.trace().len(), 5);
    for other in [recompute, every] {
        assert_eq!(save.trace(), other.trace());
        assert_eq!(save.json("summary.json")["val_loss"], other.json("summary.json")["val_loss"]);
    }
}

#[test]
fn the_cpu_agrees_with_the_interpreter() {
    let sandbox = Sandbox::new();
    for policy in ["save", "every"] {
        let chosen = &format!("--set=model.learner.policy={policy}")[..];
        let cpu = train(&sandbox, &format!("{policy}-cpu"), &[chosen]).losses();
        let oracle = train(&sandbox, &format!("{policy}-oracle"), &[chosen, "--device=interpreter"]).losses();
        for (step, (cpu, oracle)) in cpu.iter().zip(&oracle).enumerate() {
            assert!((cpu - oracle).abs() < 1e-5, "step {}: {cpu} and {oracle}", step + 1);
        }
    }
}

#[test]
fn each_micro_batch_draws_anew() {
    let sandbox = Sandbox::new();
    let with = |out: &str, arguments: &[&str]| train(&sandbox, out, arguments).trace();
    let (dropped, again) = (with("dropped", &[]), with("again", &[]));
    assert_eq!(dropped, again);
    let kept = with("kept", &["--set=dropout=0.0"]);
    assert_ne!(dropped[0], kept[0], "dropout changes the first loss");
    let halves = ["--set=accumulate=2", "--set=batch=2"];
    assert_eq!(with("halves", &halves), with("halves-again", &halves));
}
