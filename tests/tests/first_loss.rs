//! The first loss of each preset is that of a model that knows nothing: ln V, and a little for the spread of its logits.
//!
//! Logits are `hidden head'`, hidden of unit variance and head N(0, 0.02^2), so they have variance 4e-4 d, which adds
//! half of it to the expected cross-entropy (the mean of a log-normal): ln V + 2e-4 d.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use engine::config::Request;
use engine::plugins::Registry;
use engine::run::{Finished, Prepared, prepare, train};
use host_tests::{Sandbox, host, root};

/// A preset, ready for its first step. The file is read from the tree: presets are staged beside the host, not beside
/// a test.
fn ready<'r>(registry: &'r Registry, preset: &str, sets: &[&str]) -> Prepared<'r> {
    let request = Request {
        files: vec![root().join("configs").join(format!("{preset}.toml"))],
        sets: sets.iter().map(|set| set.to_string()).collect(),
        no_preset: true,
        ..Request::default()
    };
    prepare(&request, registry).unwrap_or_else(|error| panic!("{preset}: {error}"))
}

/// (first loss, ln V + 2e-4 d)
fn first_loss(preset: &str, sets: &[&str], out: &Path) -> (f64, f64) {
    let registry = Registry::of(vec![host().with_file_name("plugins")]);
    let prepared =
        ready(&registry, preset, &[sets, &["train.steps=1", "eval_windows=1", "sample.tokens=0"]].concat());
    let width = prepared.resolved.model.options["d_model"].as_f64().expect("a transformer states its width");
    let expected = (prepared.dataset.vocab_size() as f64).ln() + 2e-4 * width;
    let stop = AtomicBool::new(false);
    match train(prepared, Some(out), &stop, Instant::now(), &mut |_| {}) {
        Ok(Finished::Complete { summary, .. }) => (summary.init_loss.expect("a step was made"), expected),
        Ok(Finished::Stopped { .. }) => panic!("nobody stops it"),
        Err(error) => panic!("{preset}: {error}"),
    }
}

#[test]
fn a_preset_starts_knowing_nothing() {
    let sandbox = Sandbox::new();
    for (preset, sets) in [("tiny", &[][..]), ("craft-1m", &["train.batch=4"])] {
        let (loss, expected) = first_loss(preset, sets, &sandbox.path(preset));
        println!("{preset}: first loss {loss:.4}, expected {expected:.4}");
        assert!((loss - expected).abs() < 0.1, "{preset}: first loss {loss}, expected {expected}");
    }
}

#[test]
fn pilot_is_planned() {
    let start = Instant::now();
    let registry = Registry::of(vec![host().with_file_name("plugins")]);
    let prepared = ready(&registry, "pilot", &[]);
    let parameters = prepared.programs.banks.elements();
    let facts = &prepared.machine.facts;
    println!(
        "pilot: {parameters} parameters, {} launches a micro-batch, arena {} MiB, ready after {:.1} s",
        facts.launches,
        facts.arena_bytes >> 20,
        start.elapsed().as_secs_f64()
    );
    assert!((47_000_000..49_000_000).contains(&parameters), "{parameters}");
}
