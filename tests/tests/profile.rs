//! `host profile`: its sums add up, its JSON can be read, and launches that a guard skips are not counted.

use host_tests::{SMALL, Sandbox, says};
use serde_json::Value;

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn sum(rows: &Value, key: &str) -> f64 {
    rows.as_array().expect("rows").iter().map(|row| number(row, key)).sum()
}

fn profile(sandbox: &Sandbox, words: &[&str]) -> Value {
    let arguments = [&["profile", "--json"][..], SMALL, words].concat();
    serde_json::from_str(&sandbox.host(&arguments).succeeded().stdout).expect("JSON")
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-6 * a.abs().max(b.abs()), "{a} is not {b}");
}

#[test]
fn every_grouping_adds_up_to_the_launches() {
    let sandbox = Sandbox::new();
    for accumulate in ["--set=accumulate=1", "--set=accumulate=3"] {
        let profile = profile(&sandbox, &["--replays=3", accumulate]);
        for key in ["launches", "seconds", "flops", "bytes", "bound_seconds"] {
            let whole = sum(&profile["launches"], key);
            for group in ["kinds", "layers", "kernels"] {
                near(sum(&profile[group], key), whole);
            }
        }
        near(sum(&profile["launches"], "share"), 1.0);
        near(sum(&profile["launches"], "seconds"), number(&profile, "launch_seconds"));
        near(sum(&profile["launches"], "bound_seconds"), number(&profile, "bound_seconds"));
        let replay = number(&profile, "replay_seconds");
        assert!(replay > 0.0 && number(&profile, "step_seconds") >= replay, "{profile}");
        assert!(number(&profile, "overhead_seconds") > 0.0, "{profile}");
        for key in ["peak_flops_per_second", "peak_bytes_per_second"] {
            assert!(number(&profile, key) > 0.0, "{key}");
        }
        // None of ours; the library's products ask for some, and small ones are not its.
        assert!(number(&profile, "allocations") < 1000.0, "{profile}");
        let micro = if accumulate.ends_with('3') { 3.0 } else { 1.0 };
        assert_eq!(number(&profile, "tokens"), micro * 4.0 * 48.0);
        let runs = |row: &Value| number(row, "launches");
        let all = profile["launches"].as_array().expect("rows");
        assert!(all.iter().any(|row| runs(row) == micro) && all.iter().any(|row| runs(row) == 1.0));
    }
    assert!(!sandbox.path("runs").exists(), "nothing is written");
}

#[test]
fn a_launch_that_is_skipped_in_some_steps_counts_for_the_others() {
    // The learner's gain changes in every third step alone.
    let sandbox = Sandbox::new();
    let words = ["profile", "--json", "--replays=3", "--plugin=learner", "--set=window=16", "--set=batch=2"];
    let text = sandbox.host_with("learner", &words).succeeded().stdout;
    let profile: Value = serde_json::from_str(&text).expect("JSON");
    let rows = profile["launches"].as_array().expect("rows");
    let runs: Vec<f64> = rows.iter().map(|row| number(row, "launches")).collect();
    assert!(runs.contains(&(1.0 / 3.0)) && runs.contains(&1.0), "{runs:?}");
}

#[test]
fn the_text_is_for_people() {
    let sandbox = Sandbox::new();
    let arguments = |words: &[&'static str]| [&["profile"][..], SMALL, words].concat();
    let text = |top| sandbox.host(&arguments(&["--replays=1", top])).succeeded().stdout;
    says(&text("--top=0"), &["layers.*.attention: ", "#0 "]);
    let text = text("--top=3");
    says(&text, &["transformer with full attention, adamw", "GFLOP/s", "bound ", "products ", "tiles "]);
    says(&text, &["\nlayers.0 ", "\nlayers.1 ", "\noptimizer.matrix ", "heap allocations"]);
    says(&text, &[" more with ", "--top 0 lists all"]);
    let refused = sandbox.host(&arguments(&["--device=interpreter"])).failed();
    says(&refused, &["the interpreter has no launches to profile; choose --device cpu"]);
}
