//! Evals that panic, ask for nonsense or return none of the numbers they promise, made by `fixtures/hostile`: each is one
//! sentence, and the run folder stays as it was.

use std::collections::BTreeMap;
use std::path::Path;

use host_tests::{Run, SMALL, Sandbox, says};

/// Every file below a folder with its bytes.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(here) = open.pop() {
        for path in std::fs::read_dir(here).expect("it is there").flatten().map(|entry| entry.path()) {
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let bytes = std::fs::read(&path).expect("a file");
                    files.insert(path.display().to_string(), bytes);
                }
            }
        }
    }
    files
}

/// A sandbox with a run of one step.
fn trained() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.train("run", &["--steps=1", "--set=sample.tokens=0"]);
    sandbox
}

#[track_caller]
fn refused(sandbox: &Sandbox, words: &[&str], parts: &[&str]) {
    let before = content(&sandbox.path("run"));
    let words = [&["eval", "run"], words].concat();
    let sentence = sandbox.host_with("hostile", &words).failed();
    says(&sentence, parts);
    assert!(!sentence.contains('\x1b'), "{sentence:?}");
    assert!(content(&sandbox.path("run")) == before, "the run folder has changed: {words:?}");
    assert!(!sandbox.path("run/evals").exists());
}

#[test]
fn a_panic_is_a_sentence() {
    let sandbox = trained();
    refused(
        &sandbox,
        &["--task=panics-in-options"],
        &["panics-in-options", "hostile", "there is no default"],
    );
    refused(&sandbox, &["--task=panics-in-validate"], &["panics-in-validate", "judged", "evals.rs:"]);
    let parts = ["panics-in-run", "panicked: measured 1 texts and then no more", "evals.rs:"];
    refused(&sandbox, &["--task=panics-in-run"], &parts);
    let always = ["--task=panics-in-eval-drop", "--set=panics-in-eval-drop.always=true"];
    refused(&sandbox, &always, &["panics-in-eval-drop", "dropped", "evals.rs:"]);
    // One that comes when the metrics are there takes nothing from them.
    let words = ["eval", "run", "--task=panics-in-eval-drop"];
    says(&sandbox.host_with("hostile", &words).succeeded().stdout, &["all", "100.000"]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let sandbox = trained();
    for (what, parts) in [
        ("above", &["token 2 of the text is 256", "vocabulary has 0 to 255"][..]),
        ("below", &["token 0 of the context is -1"]),
        ("read", &["token 0 of the text is 2147483647"]),
        ("nothing", &["after a context of no tokens"]),
        ("endless", &["generates 18446744073709551615 tokens", "at most 1000000"]),
        ("restore", &["there is no snapshot 7"]),
        ("texts", &["asks for 18446744073709551615 texts"]),
        ("empty", &["it was answered"]),
    ] {
        let set = format!("--set=nonsense.what={what}");
        refused(
            &sandbox,
            &["--task=nonsense", &set],
            &[&["eval nonsense of plugin hostile"], parts].concat(),
        );
    }
    // None of them leaves a trace in the session.
    let table = sandbox.host_with("hostile", &["eval", "run", "--task=nonsense"]).succeeded().stdout;
    says(&table, &["same", "100.000"]);
}

#[test]
fn metrics_that_are_none_are_refused() {
    let sandbox = trained();
    for (what, parts) in [
        ("none", &["gave no metrics"][..]),
        ("nan", &["a metric bad whose value is not a finite number"]),
        ("infinite", &["a metric good whose high is not a finite number"]),
        ("twice", &["two metrics good"]),
        ("nameless", &["name \"\" is none"]),
        ("coloured", &["a metric good whose unit"]),
        ("lines", &["first second [2Jthird"]),
    ] {
        let set = format!("--set=no-metrics.what={what}");
        refused(
            &sandbox,
            &["--task=no-metrics", &set],
            &[&["eval no-metrics of plugin hostile"], parts].concat(),
        );
    }
}

#[test]
fn at_the_end_of_a_run_the_run_is_kept() {
    let sandbox = Sandbox::new();
    let run = |out: &str, evals: &str| {
        let (out, evals) = (format!("--out={out}"), format!("--set=evals=[{evals}]"));
        sandbox.host_with("hostile", &[&["run", "--steps=2", &out, &evals], SMALL].concat())
    };
    let outcome = run("run", "\"panics-in-run\", \"perplexity\", \"no-metrics\"");
    says(&outcome.stdout, &["perplexity", "bits_per_byte", "run folder  run"]);
    says(
        &outcome.failed(),
        &[
            "panics-in-run",
            "measured 1 texts",
            "(1 more failed)",
            "host eval run --task panics-in-run,no-metrics",
        ],
    );
    let kept = Run::at(sandbox.path("run"));
    let summary = kept.json("summary.json");
    assert_eq!(summary["evals"].as_array().map(Vec::len), Some(1), "{summary}");
    assert_eq!(summary["evals"][0]["metrics"], kept.json("evals/perplexity.json")["metrics"]);
    assert_eq!(kept.checkpoints(), ["step-00000002"]);
    let entries = std::fs::read_dir(sandbox.path("run/evals")).expect("it is there").count();
    assert_eq!(entries, 1, "half an eval was written");
    // What can be known before the first step is.
    for evals in ["\"perplexity\", \"panics-in-validate\"", "\"panics-in-options\""] {
        says(&run("other", evals).failed(), &["panics-in-", "hostile"]);
        assert!(!sandbox.path("other").exists());
    }
}
