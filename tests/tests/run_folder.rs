//! What a run leaves behind: every file whole and every number in its place.

use host_tests::Sandbox;
use serde_json::Value;

#[test]
fn the_summary_has_every_number() {
    let sandbox = Sandbox::new();
    let run = sandbox.train("run", &["--steps=8"]);
    let summary = run.json("summary.json");
    for key in [
        "val_loss",
        "val_bits_per_byte",
        "floor_bits_per_byte",
        "init_loss",
        "tokens_per_second",
        "seconds",
        "unigram_bits_per_byte",
        "bigram_bits_per_byte",
    ] {
        assert!(summary[key].as_f64().is_some_and(|number| number > 0.0), "{key}: {}", summary[key]);
    }
    for key in ["arena_bytes", "peak_rss_bytes", "threads", "params"] {
        assert!(summary[key].as_u64().is_some_and(|number| number > 0), "{key}: {}", summary[key]);
    }
    assert_eq!((summary["steps"].as_u64(), summary["skipped_steps"].as_u64()), (Some(8), Some(0)));
    assert_eq!(summary["init_loss"], run.metrics()[0]["loss"]);
    assert!(
        summary["device"].as_str().is_some_and(|device| device.starts_with("cpu")),
        "{}",
        summary["device"]
    );
    assert!(
        summary["plan_digest"].as_str().is_some_and(|digest| digest.len() >= 16),
        "{}",
        summary["plan_digest"]
    );
    assert_eq!(summary["plugin_calls_while_training"], 0, "a plugin only traces");
}

#[test]
fn the_summary_has_what_kinds_of_bytes_cost_with_intervals() {
    let sandbox = Sandbox::new();
    let stories = ["--steps=4", "--set=train.window=128", "--set=eval_windows=24"];
    let summary = sandbox.train("run", &stories).json("summary.json");
    let within = |interval: &Value, value: &Value| {
        let [low, middle, high] = [&interval[0], value, &interval[1]].map(|number| number.as_f64().unwrap());
        assert!(low <= middle && middle <= high && low < high, "{low} {middle} {high}");
    };
    within(&summary["val_bits_per_byte_interval"], &summary["val_bits_per_byte"]);
    let tags = summary["tags"].as_array().unwrap(); // a list
    let names: Vec<&str> = tags.iter().map(|tag| tag["tag"].as_str().unwrap()).collect(); // each has a name
    assert_eq!(names, ["template", "free", "name tail", "answer"]);
    tags.iter().for_each(|tag| within(&tag["interval"], &tag["model"]));
    let answers = summary["answers"].as_array().unwrap(); // a list
    let count = |index: usize| answers[index]["count"].as_u64().unwrap(); // a number
    assert_eq!(["all", "who", "where"], [0, 1, 2].map(|index| answers[index]["kind"].as_str().unwrap()));
    assert_eq!(count(0), count(1) + count(2));
    assert_eq!((&answers[1]["chance"], &answers[2]["chance"]), (&0.5.into(), &0.125.into()));
    answers.iter().for_each(|kind| within(&kind["interval"], &kind["accuracy"]));
}

#[test]
fn text_of_unknown_entropy_has_no_floor() {
    let sandbox = Sandbox::new();
    sandbox.write("text.txt", "to be, or not to be, that is the question. ".repeat(100));
    let run = sandbox.train("run", &["--steps=3", "--data=text.txt"]);
    let summary = run.json("summary.json");
    assert_eq!(summary.get("floor_bits_per_byte"), Some(&Value::Null));
    assert_eq!((&summary["tags"], &summary["answers"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert!(run.json("run.json")["data_blake3"].as_str().is_some_and(|hash| hash.len() == 64));
}

#[test]
fn each_step_has_its_line() {
    let sandbox = Sandbox::new();
    let run = sandbox.train("run", &["--steps=7", "--set=save_every=3"]);
    let metrics = run.metrics();
    assert_eq!(
        metrics.iter().filter_map(|line| line["step"].as_u64()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7]
    );
    for line in &metrics {
        for key in ["loss", "lr", "grad_norm"] {
            assert!(line[key].as_f64().is_some_and(f64::is_finite), "{key} in {line}");
        }
        assert_eq!(line.get("skipped"), None);
    }
    assert_eq!(run.checkpoints(), ["step-00000003", "step-00000006", "step-00000007"]);
    assert_eq!(run.file("checkpoints/latest"), "step-00000007");
    let mut names: Vec<String> = std::fs::read_dir(&run.folder)
        .expect("the run made its folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["checkpoints", "config.toml", "metrics.jsonl", "run.json", "sample.txt", "summary.json"]
    );
}

#[test]
fn the_recorded_configuration_repeats_the_run() {
    let sandbox = Sandbox::new();
    let run = sandbox.train("run", &["--steps=5", "--seed=3", "--set=train.schedule=linear"]);
    sandbox.host(&["run", "--out=again", "--config=run/config.toml"]).succeeded();
    assert_eq!(host_tests::Run::at(sandbox.path("again")).trace(), run.trace());
    assert_eq!(
        std::fs::read(sandbox.path("again/config.toml")).ok(),
        std::fs::read(sandbox.path("run/config.toml")).ok()
    );
}

#[cfg(unix)]
#[test]
fn a_run_can_be_read_by_whom_the_umask_allows() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let words = [&["run", "--out=run", "--steps=2"][..], host_tests::SMALL].concat();
    let script = "umask 022; exec \"$0\" \"$@\"";
    let output = sandbox.command("sh").args(["-c", script]).arg(host_tests::host()).args(&words).output();
    host_tests::Outcome::of(&words, output.expect("sh starts")).succeeded();
    let mode = |name: &str| {
        let metadata = std::fs::metadata(sandbox.path("run").join(name)).expect("the run wrote it");
        metadata.permissions().mode() & 0o777
    };
    for file in
        ["config.toml", "metrics.jsonl", "summary.json", "checkpoints/step-00000002/state.safetensors"]
    {
        assert_eq!(mode(file), 0o644, "{file}");
    }
    for folder in ["", "checkpoints", "checkpoints/step-00000002"] {
        assert_eq!(mode(folder), 0o755, "{folder}");
    }
}
