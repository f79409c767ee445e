//! Memories of a whole run: a step that is not finite leaves them alone, growth is told once, metrics say what they do.

use std::collections::BTreeMap;

use host_tests::{Outcome, Run, SMALL, Sandbox, says};

/// Two levels: one is written twice in a window, one once in two windows. A text is four windows.
const STREAMING: [&str; 8] = [
    "--plugin=hope",
    "--set=train.stream=4",
    "--set=window=16",
    "--set=d_model=16",
    "--set=online_chunk=8",
    "--set=periods=[8, 32]",
    "--set=batch=2",
    "--set=save_every=1",
];

/// Bytes of each tensor of the checkpoint of a step.
fn state(run: &Run, step: u64) -> BTreeMap<String, Vec<u8>> {
    let file = run.folder.join(format!("checkpoints/step-{step:08}/state.safetensors"));
    let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a checkpoint is a safetensors file");
    tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

fn skipped(run: &Run) -> Vec<u64> {
    let lines = run.metrics().into_iter().filter(|line| line["skipped"] == true);
    lines.filter_map(|line| line["step"].as_u64()).collect()
}

/// `host run` with the attention that overflows where it is told to.
fn run(sandbox: &Sandbox, out: &str, arguments: &[&str]) -> Outcome {
    let words = [&["run", "--attention=alone", "--out", out][..], SMALL, &STREAMING, arguments].concat();
    let words: Vec<&str> = words.into_iter().filter(|word| *word != "--set=heads=2").collect();
    sandbox.host_with("alone", &words)
}

#[test]
fn a_step_that_overflows_leaves_memories_and_parameters_as_they_were() {
    let sandbox = Sandbox::new();
    let outcome = run(&sandbox, "run", &["--steps=8", "--set=fails_at=7", "--set=final_lr=0.5"]).succeeded();
    says(&outcome.stdout, &["steps not finite", "1 (not applied)"]);
    let run = Run::at(sandbox.path("run"));
    assert_eq!(skipped(&run), [7]);
    assert_eq!(run.json("summary.json")["skipped_steps"], 1);
    assert_eq!(run.json("summary.json")["steps"], 8);
    let [before, at, after] = [6, 7, 8].map(|step| state(&run, step));
    let memory = "memory.train.layers.0.cms.0.w1";
    assert!(before[memory].iter().any(|byte| *byte != 0), "step 6 has written the memory");
    let changed: Vec<&String> = before.keys().filter(|name| before[*name] != at[*name]).collect();
    assert!(changed.is_empty(), "a step that was not applied has changed {changed:?}");
    for name in [memory, "memory.train.layers.0.cms.1.w2", "layers.0.cms.0.w1", "embedding"] {
        assert!(at[name] != after[name], "the step after it goes on with {name}");
    }
    let losses = run.losses();
    assert!(losses[6].is_nan() && losses[7].is_finite(), "{losses:?}");
}

#[test]
fn a_text_whose_first_window_overflows_does_not_go_on_with_the_text_before() {
    let sandbox = Sandbox::new();
    run(&sandbox, "run", &["--steps=6", "--set=fails_at=5"]).succeeded();
    let run = Run::at(sandbox.path("run"));
    assert_eq!(skipped(&run), [5]);
    let [before, at] = [4, 5].map(|step| state(&run, step));
    for (name, bytes) in &at {
        match name.starts_with("memory.train.") {
            true => assert!(bytes.iter().all(|byte| *byte == 0), "{name} is not empty"),
            false => assert!(bytes == &before[name], "a step that was not applied has changed {name}"),
        }
    }
}

#[test]
fn a_memory_that_overflows_lasts_no_longer_than_its_text() {
    let sandbox = Sandbox::new();
    // What the first window of a text writes at its end is finite, and so large that nothing can be read with it.
    let arguments = ["--set=memory_lr=1e38", "--set=periods=[16]", "--steps=8"];
    let outcome = run(&sandbox, "run", &arguments).succeeded();
    says(&outcome.stdout, &["steps not finite", "6 (not applied)"]);
    let run = Run::at(sandbox.path("run"));
    assert_eq!(skipped(&run), [2, 3, 4, 6, 7, 8]);
    assert_eq!(run.json("summary.json")["skipped_steps"], 6);
    let [six, seven, eight] = [6, 7, 8].map(|step| state(&run, step));
    assert!(six == seven && six == eight, "no skipped step changes anything");
}

#[test]
fn memories_that_grow_are_told_once_each() {
    let sandbox = Sandbox::new();
    let words = [&["run", "--out=run"][..], SMALL, &STREAMING, &["--steps=6", "--set=memory_lr=[2e3, 0.0]"]];
    let outcome = sandbox.host(&words.concat()).succeeded();
    let warnings: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
    let metrics = Run::at(sandbox.path("run")).metrics();
    let growth = |line: &serde_json::Value| line["cms.0.state.growth"].as_f64();
    let first = metrics.iter().find(|line| growth(line).is_some_and(|growth| growth > 4.0));
    let first = first.unwrap_or_else(|| panic!("nothing grows: {metrics:?}"));
    let beyond = metrics.iter().filter(|line| growth(line).is_some_and(|growth| growth > 4.0)).count();
    assert!(beyond > 1, "told once of {beyond} steps: {metrics:?}");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    says(
        warnings[0],
        &["memory cms.0.state has moved", &format!("(step {})", first["step"]), "lower their rate"],
    );
    assert!(metrics.iter().all(|line| line["cms.1.state.growth"] == 0.0), "a step of 0 moves nothing");
}

#[test]
fn the_default_preset_does_not_grow() {
    let sandbox = Sandbox::new();
    let few = ["--steps=3", "--set=warmup=0", "--set=eval_windows=1", "--set=sample.tokens=0"];
    let outcome = sandbox.host(&[&["run", "--plugin=hope", "--out=run"][..], &few].concat()).succeeded();
    assert!(!outcome.stdout.contains("warning"), "{}", outcome.stdout);
    let metrics = Run::at(sandbox.path("run")).metrics();
    for line in &metrics {
        // 256 tokens of a window; the last period of each level ends with it.
        for (level, writes) in [(0, 8.0), (1, 2.0)] {
            figures(line, level, writes, 0.0);
        }
    }
}

/// Metrics of a level: exact where they count, and in a sane range where they measure.
#[track_caller]
fn figures(line: &serde_json::Value, level: usize, writes: f64, pending: f64) {
    let of = |name: &str| line[format!("cms.{level}.{name}")].as_f64().unwrap_or(f64::NAN);
    assert_eq!((of("writes"), of("pending")), (writes, pending), "level {level}: {line}");
    let (teach, growth) = (of("teach_norm"), of("state.growth"));
    assert!(teach > 0.0 && teach < 10.0, "level {level}: {line}");
    assert!((0.0..4.0).contains(&growth), "level {level}: {line}");
}

#[test]
fn metrics_count_writes_and_what_waits() {
    let sandbox = Sandbox::new();
    // A ragged window: 40 tokens in chunks of 8, of which the second level has one write and 8 tokens left.
    let ragged =
        ["--plugin=hope", "--set=online_chunk=8", "--set=periods=[8, 32]", "--set=window=40", "--steps=3"];
    for line in sandbox.train("ragged", &ragged).metrics() {
        figures(&line, 0, 5.0, 0.0);
        // The flush at the end counts.
        figures(&line, 1, 2.0, 8.0);
    }
    // A stream: what waits at the end of a window is written by a later one.
    for (step, line) in
        sandbox.train("stream", &[&STREAMING[..], &["--steps=8"]].concat()).metrics().iter().enumerate()
    {
        figures(line, 0, 2.0, 0.0);
        let ends = step % 2 == 1;
        figures(line, 1, f64::from(u8::from(ends)), if ends { 0.0 } else { 16.0 });
    }
}

#[test]
fn steps_of_writes_are_trained() {
    let sandbox = Sandbox::new();
    let learning =
        ["--plugin=hope", "--set=online_chunk=8", "--set=periods=[8, 16]", "--set=memory_lr=[0.05, 0.2]"];
    let steps = ["--set=learn_memory_lr=true", "--set=save_every=1", "--set=warmup=0", "--steps=3"];
    let run = sandbox.train("run", &[&learning[..], &steps].concat());
    let [first, second] = [1, 2].map(|step| state(&run, step));
    for (level, rate) in [(0, 0.05_f64), (1, 0.2)] {
        for block in 0..2 {
            let name = format!("layers.{block}.cms.{level}.log_rate");
            let [first, second] = [&first, &second].map(|state| {
                f64::from(f32::from_le_bytes(state[&name][..4].try_into().expect("one number of four bytes")))
            });
            assert!((first - rate.ln()).abs() < 0.1, "{name} starts near ln {rate}: {first}");
            assert!(first != second && (first - second).abs() < 0.1, "{name}: {first}, then {second}");
        }
    }
}
