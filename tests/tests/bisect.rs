//! `host bisect`: a healthy step has no divergence, and a State that was damaged is found where it first does harm.

use std::path::Path;

use host_tests::{Outcome, Run, Sandbox, says};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const TINY: [&str; 4] = ["--steps=6", "--set=window=16", "--set=batch=2", "--set=save_every=3"];

fn bisect(sandbox: &Sandbox, run: &str, step: &str) -> Outcome {
    sandbox.host(&["bisect", run, step])
}

#[test]
fn a_healthy_step_has_no_divergence() {
    let sandbox = Sandbox::new();
    sandbox.train("run", &TINY);
    let before = sandbox.path("run").join("metrics.jsonl");
    let before = (std::fs::read(&before).ok(), Run::at(sandbox.path("run")).checkpoints());
    for (step, from) in [("1", "initial values"), ("3", "initial values"), ("5", "the checkpoint of step 3")]
    {
        let text = bisect(&sandbox, "run", step).succeeded().stdout;
        says(&text, &[&format!("step {step}: "), "nodes compared", from, "no divergence above 1e-4"]);
    }
    let metrics = sandbox.path("run").join("metrics.jsonl");
    assert_eq!((std::fs::read(metrics).ok(), Run::at(sandbox.path("run")).checkpoints()), before);
    // Every op rounds, so that a tolerance of nothing finds the first one.
    let outcome = sandbox.host(&["bisect", "run", "2", "--tolerance=1e-12"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    says(&outcome.stdout, &["first divergence above 1e-12", "scope ", "operand ", "on the device"]);
}

#[test]
fn micro_batches_and_their_update_are_compared_too() {
    let sandbox = Sandbox::new();
    sandbox.train("run", &[&TINY[..], &["--set=accumulate=2"]].concat());
    says(&bisect(&sandbox, "run", "5").succeeded().stdout, &["no divergence above 1e-4"]);
}

#[test]
fn a_value_that_is_no_number_is_found_in_its_parameter() {
    let sandbox = Sandbox::new();
    sandbox.train("run", &TINY);
    damage(&sandbox.path("run/checkpoints/step-00000003"), "layers.1.attention", f32::NAN);
    let outcome = bisect(&sandbox, "run", "4");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    says(
        &outcome.stdout,
        &["first value that is not finite", "parameter layers.1.attention", "NaN on the device"],
    );
    says(&outcome.stdout, &["no divergence above"]);
}

#[test]
fn the_op_that_leaves_the_range_of_f32_is_found() {
    let sandbox = Sandbox::new();
    sandbox.train("run", &TINY);
    // Keys and queries of this size have products beyond f32, which double precision still holds.
    damage(&sandbox.path("run/checkpoints/step-00000003"), "layers.1.attention", 1e25);
    let outcome = bisect(&sandbox, "run", "4");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    says(&outcome.stdout, &["first divergence", "scope     layers.1", "inf on the device", "Dot"]);
    says(&outcome.stdout, &["first value that is not finite"]);
}

#[test]
fn steps_that_are_not_there() {
    let sandbox = Sandbox::new();
    sandbox.train("run", &TINY);
    says(&bisect(&sandbox, "run", "0").failed(), &["counted from 1"]);
    says(&bisect(&sandbox, "run", "9").failed(), &["run has made 6 steps", "up to 7"]);
    says(&bisect(&sandbox, "nowhere", "1").failed(), &["nowhere is no run folder"]);
    says(&sandbox.host(&["bisect", "run", "1", "--tolerance=-1"]).stderr, &["not a number above 0"]);
}

/// Overwrites every value of the parameters below `path` in a checkpoint, which stays whole otherwise.
fn damage(checkpoint: &Path, path: &str, value: f32) {
    let (state, progress) = (checkpoint.join("state.safetensors"), checkpoint.join("progress.json"));
    let mut bytes = std::fs::read(&state).expect("the run saved it");
    // A length in eight bytes, a JSON header with the offsets of each tensor, then the tensors.
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let mut changed = 0;
    for (_, tensor) in
        header.as_object().expect("an object").iter().filter(|(name, _)| name.starts_with(path))
    {
        let offset = |index: usize| tensor["data_offsets"][index].as_u64().expect("an offset") as usize;
        let (start, end) = (8 + length + offset(0), 8 + length + offset(1));
        bytes[start..end].chunks_exact_mut(4).for_each(|chunk| chunk.copy_from_slice(&value.to_le_bytes()));
        changed += 1;
    }
    assert!(changed > 0, "no parameter {path} in {header}");
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&state, bytes).expect("the sandbox is writable");
    let mut json: Value =
        serde_json::from_slice(&std::fs::read(&progress).expect("it is there")).expect("it is JSON");
    json["state_sha256"] = json!(hash);
    std::fs::write(&progress, json.to_string()).expect("the sandbox is writable");
}
