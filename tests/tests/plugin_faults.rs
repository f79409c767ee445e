//! A plugin's mistakes, made by `fixtures/faulty`: the host names component, layer, operands and source line, and goes
//! on as little as it must.

use host_tests::{Outcome, Run, SMALL, Sandbox, host, says};

const SOURCE: &str = "tests/fixtures/faulty/src/lib.rs:";

/// `host run` of a small model with the faulty plugin in its search path.
fn run(sandbox: &Sandbox, arguments: &[&str]) -> Outcome {
    let sizes = SMALL
        .iter()
        .filter(|set| !set.contains("d_model") && !set.contains("layers") && !set.contains("heads"));
    let words: Vec<&str> = ["run"].iter().chain(sizes).chain(arguments).copied().collect();
    sandbox.host_with("faulty", &words)
}

fn refused(arguments: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let sentence = run(&sandbox, arguments).failed();
    assert!(!sandbox.path("runs").exists(), "a refused run left a folder");
    sentence
}

#[test]
fn a_shape_error_names_layer_operands_and_line() {
    let sentence = refused(&["--attention=shape-error"]);
    says(&sentence, &["layers.0.attention.mixer", "Dot", "f32[4, 48, 128]", "mixer.wrong f32[128, 129]"]);
    says(&sentence, &["model-transformer > faulty", SOURCE]);
}

#[test]
fn an_attribute_that_an_op_does_not_have_is_refused() {
    let sentence = refused(&["--attention=extra-attribute"]);
    says(&sentence, &["layers.0.attention", "Neg takes at most 0 integer attributes, got 1", SOURCE]);
}

#[test]
fn a_panic_is_a_sentence() {
    let sentence = refused(&["--attention=panics"]);
    says(
        &sentence,
        &["layers.0.attention.mixer", "attention panics of plugin faulty", "no heads are left", SOURCE],
    );
    says(
        &refused(&["--attention=panics-in-default"]),
        &["attention panics-in-default of plugin faulty", "there is no default", SOURCE],
    );
    says(
        &refused(&["--optim=panics-in-options"]),
        &["optimizer panics-in-options of plugin faulty", "no options", SOURCE],
    );
}

#[test]
fn a_wrong_result_names_the_component() {
    let sentence = refused(&["--attention=wrong-shape"]);
    says(
        &sentence,
        &["layers.0.attention", "attention wrong-shape returned", "f32[4, 24, 128]", "f32[4, 48, 128]"],
    );
    says(&sentence, &["keeps [B, T, D]"]);
    says(
        &refused(&["--plugin=bad-loss-shape"]),
        &["losses of model bad-loss-shape should be f32[4, 48], got", "f32[]"],
    );
    for accumulate in ["--set=accumulate=1", "--set=accumulate=2"] {
        says(
            &refused(&["--optim=wrong-bank", accumulate]),
            &["optimizer.matrix", "optimizer wrong-bank", "should be f32[786432]"],
        );
    }
}

#[test]
fn parameters_that_no_optimizer_takes_are_named() {
    says(
        &refused(&["--optim=picky"]),
        &["optimizer picky does not take", "norm.gain (gain [128])", "no option `fallback`"],
    );
    says(
        &refused(&["--optim=muon", "--set=fallback=picky"]),
        &["optimizer muon does not take", "norm.gain (gain [128])", "nor does its fallback picky"],
    );
    says(
        &refused(&["--optim=panics-in-layout"]),
        &["optimizer panics-in-layout of plugin faulty", "no layout is good enough", SOURCE],
    );
}

#[test]
fn a_parameter_without_a_gradient_is_named_before_the_first_step() {
    let sentence = refused(&["--plugin=orphan-parameter"]);
    says(
        &sentence,
        &["no gradient reaches 1 ", "layers.0.gate", "use them in the loss or do not declare them"],
    );
}

#[test]
fn a_loss_that_is_never_finite_stops_the_run_and_names_its_tensor() {
    for accumulate in ["--set=accumulate=1", "--set=accumulate=2"] {
        let sandbox = Sandbox::new();
        let sentence = run(&sandbox, &["--plugin=nan-loss", "--steps=20", "--out=run", accumulate]).failed();
        says(
            &sentence,
            &["5 steps in a row (1 to 5)", "Mul", "f32[4, 48] in scaled", "= inf", "metrics.jsonl in run"],
        );
        let metrics = Run::at(sandbox.path("run")).metrics();
        assert_eq!(metrics.len(), 5);
        assert!(metrics.iter().all(|line| line["skipped"] == true && line["loss"].is_null()), "{metrics:?}");
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let sandbox = Sandbox::new();
    let saved = |model: &str, steps: &str, accumulate: &str| {
        let out = &format!("{model}-{steps}-{accumulate}");
        run(&sandbox, &["--plugin", model, "--steps", steps, "--out", out, accumulate]).succeeded();
        let run = Run::at(sandbox.path(out));
        assert_eq!(run.json("summary.json")["skipped_steps"].as_u64(), steps.parse().ok());
        run.json(&format!("checkpoints/{}/progress.json", run.checkpoints()[0]))["state_sha256"].clone()
    };
    for model in ["nan-loss", "infinite-auxiliary"] {
        for accumulate in ["--set=accumulate=1", "--set=accumulate=3"] {
            let (one, three) = (saved(model, "1", accumulate), saved(model, "3", accumulate));
            assert_eq!(one, three, "parameters and moments are as before, {model} {accumulate}");
        }
    }
}

#[test]
fn two_plugins_of_one_name_are_not_chosen_between() {
    let sandbox = Sandbox::new();
    let staged = host().with_file_name("plugins");
    let words = ["run", "--steps=1", "--out=run"];
    let with = |path: &std::path::Path| {
        let output = sandbox.command(host()).env("HOST_PLUGIN_PATH", path).args(words).args(SMALL).output();
        Outcome::of(&words, output.expect("the host starts"))
    };
    // The host's own folder by another way is not a second one.
    with(&staged.join("../plugins")).succeeded();
    let file = format!("{}attention_full{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    sandbox.write(&format!("mine/{file}"), std::fs::read(staged.join(&file)).expect("it is staged"));
    std::fs::remove_dir_all(sandbox.path("run")).expect("the first run made it");
    says(
        &with(&sandbox.path("mine")).failed(),
        &["two plugins have attention \"full\"", "mine/", "take one of them out"],
    );
    assert!(!sandbox.path("run").exists());
}
