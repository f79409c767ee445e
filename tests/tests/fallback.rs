//! Two optimizers in one run: Muon on stacks of matrices, its fallback on everything else.

use host_tests::{Run, SMALL, Sandbox, says};
use safetensors::SafeTensors;
use serde_json::json;

const MUON: [&str; 2] = ["--optim=muon", "--set=lr=0.01"];

fn train(sandbox: &Sandbox, out: &str, arguments: &[&str]) -> Run {
    sandbox.train(out, &[&MUON[..], arguments].concat())
}

/// Tensors of the newest checkpoint whose names hold `part`: name, shape, bytes.
fn saved(run: &Run, part: &str) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let newest = run.checkpoints().pop().expect("a run saves at its end");
    let path = run.folder.join("checkpoints").join(newest).join("state.safetensors");
    let bytes = std::fs::read(path).expect("a checkpoint holds its State");
    let file = SafeTensors::deserialize(&bytes).expect("the host wrote it");
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .filter(|(name, _)| name.contains(part))
        .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
        .collect();
    tensors.sort();
    tensors
}

#[test]
fn stacks_of_matrices_train() {
    let sandbox = Sandbox::new();
    let losses = train(&sandbox, "run", &["--steps=60"]).losses();
    assert!(losses[59] < losses[0] - 1.0, "{} to {}", losses[0], losses[59]);
}

#[test]
fn the_split_is_printed_and_kept() {
    let sandbox = Sandbox::new();
    let words = [&["run", "--out=run", "--steps=2", "--set=fallback_lr=0.5"][..], SMALL, &MUON].concat();
    let printed = sandbox.host(&words).succeeded().stdout;
    let run = Run::at(sandbox.path("run"));
    let groups = &run.json("run.json")["groups"];
    assert_eq!(groups[0]["optimizer"], "muon");
    assert_eq!(groups[0]["roles"].as_array().map(Vec::len), Some(1), "one line for all shapes: {groups}");
    assert_eq!((&groups[1]["optimizer"], &groups[1]["rate"]), (&json!("adamw"), &json!(0.5)));
    let tensors = &groups[0]["roles"][0]["tensors"];
    says(
        &printed,
        &["update  muon: ", &format!("in {tensors} matrix"), "update  adamw, lr x 0.5: ", "1 embedding"],
    );

    let momenta = saved(&run, ".momentum");
    let stacked: usize = momenta.iter().map(|(_, shape, _)| shape[0]).sum();
    assert_eq!(json!(stacked), *tensors);
    for (name, shape, _) in &momenta {
        assert_eq!(*name, format!("optimizer.matrix.{}x{}.momentum", shape[1], shape[2]));
    }
    let names: Vec<String> = saved(&run, "optimizer.").into_iter().map(|(name, ..)| name).collect();
    assert!(names.contains(&"optimizer.embedding.m".to_string()), "{names:?}");
}

#[test]
fn the_fallback_has_its_own_options_and_rate() {
    let sandbox = Sandbox::new();
    let embeddings = |out: &str, arguments: &[&str]| saved(&train(&sandbox, out, arguments), "embed");
    let still = "--set=fallback_lr=0.0";
    let one = embeddings("one", &["--steps=1", still]);
    assert!(!one.is_empty());
    let parameters = |of: &[(String, Vec<usize>, Vec<u8>)]| {
        let own = of.iter().filter(|(name, ..)| !name.starts_with("optimizer."));
        own.cloned().collect::<Vec<_>>()
    };
    assert_eq!(parameters(&one), parameters(&embeddings("three", &["--steps=3", still])));
    assert_ne!(parameters(&one), parameters(&embeddings("moves", &["--steps=3"])));

    let show = ["config", "show", "--optim=muon", "--set=beta2=0.9", "--set=optimizer.muon.weight_decay=0.1"];
    let shown = sandbox.host(&show).succeeded().stdout;
    for (key, parts) in [
        ("optimizer.muon.fallback ", ["adamw", "plugin default"]),
        ("optimizer.muon.weight_decay", ["0.1", "--set optimizer.muon.weight_decay"]),
        ("optimizer.adamw.beta2", ["0.9", "--set optimizer.adamw.beta2"]),
    ] {
        let line = shown.lines().find(|line| line.starts_with(key));
        says(line.unwrap_or_else(|| panic!("{key} is missing: {shown}")), &parts);
    }
    let info = sandbox.host(&["plugins", "info", "muon"]).succeeded().stdout;
    says(&info, &["fallback_lr", "\"adamw\"", "original | match_rms_adamw"]);
}

#[test]
fn a_resumed_run_goes_on_to_the_bit() {
    let sandbox = Sandbox::new();
    let whole = train(&sandbox, "whole", &["--steps=10"]);
    sandbox.host(&["run", "--resume=whole", "--steps=20"]).succeeded();
    train(&sandbox, "parts", &["--steps=10"]);
    sandbox.host(&["run", "--resume=parts", "--steps=15", "--threads=1"]).succeeded();
    sandbox.host(&["run", "--resume=parts", "--steps=20"]).succeeded();
    let parts = Run::at(sandbox.path("parts"));
    assert_eq!((parts.trace(), parts.trace().len()), (whole.trace(), 20));
    assert_eq!(saved(&parts, ""), saved(&whole, ""));
}

#[test]
fn micro_batches_and_the_oracle_agree() {
    let sandbox = Sandbox::new();
    let whole = train(&sandbox, "whole", &["--steps=5"]).losses();
    for (out, arguments) in
        [("halves", &["--set=batch=2", "--set=accumulate=2"][..]), ("oracle", &["--device=interpreter"])]
    {
        let other = train(&sandbox, out, &[&["--steps=5"], arguments].concat()).losses();
        for (step, (one, two)) in whole.iter().zip(&other).enumerate() {
            assert!((one - two).abs() < 1e-3, "{out}, step {}: {one} and {two}", step + 1);
        }
    }
}

#[test]
fn a_wrong_fallback_is_refused() {
    let sandbox = Sandbox::new();
    for (set, parts) in [
        (
            "fallback=adamv",
            &["optimizer.muon.fallback: there is no optimizer", "did you mean adamw?", "from --set"][..],
        ),
        ("fallback=muon", &["optimizer.muon.fallback: muon cannot be its own fallback", "from --set"]),
        ("fallback=optim-muon/muon", &["muon cannot be its own fallback"]),
        ("fallback=3", &["optimizer.muon.fallback", "3 is not a string"]),
        ("fallback_lr=-1", &["optimizer.muon.fallback_lr", "-1 is below 0"]),
        ("lr=-0.1", &["train.lr", "below 0"]),
        ("momentum=1.5", &["optimizer.muon.momentum", "above 0.999999"]),
        ("scale_rule=orginal", &["optimizer.muon.scale_rule", "did you mean original?"]),
        ("weight_decay=1", &["could mean optimizer.muon.weight_decay or optimizer.adamw.weight_decay"]),
        ("optimizer.adamw.beta3=1", &["optimizer.adamw.beta3", "is no known key"]),
        ("beta1=1.5", &["optimizer.adamw.beta1", "above 0.999999"]),
    ] {
        says(&sandbox.refused(&["--optim=muon", "--set", set]), parts);
    }
    // Without an optimizer that has the option there is no such key.
    says(&sandbox.refused(&["--set=fallback=adamw"]), &["\"fallback\" is no known key"]);
}
