//! Run folders that cannot be made, filled or resumed: what is there stays as it was, what is written is whole.

use host_tests::{Outcome, Run, SMALL, Sandbox, host, says};

#[test]
fn an_existing_folder_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.write("run/notes.txt", "mine");
    let words = [&["run", "--out=run"][..], SMALL].concat();
    says(&sandbox.host(&words).failed(), &["run folder run exists already", "--out", "--resume run"]);
    assert_eq!(std::fs::read_dir(sandbox.path("run")).map(Iterator::count).ok(), Some(1));
}

#[test]
fn a_folder_that_cannot_be_made() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "");
    for out in ["file/run", "file/deeper/run"] {
        let sentence = sandbox.refused(&["--steps=2", "--out", out]);
        says(&sentence, &[out, "not a directory", "nothing was trained", "choose another --out"]);
    }
    if cfg!(target_os = "linux") {
        says(&sandbox.refused(&["--steps=2", "--out=/proc/run"]), &["/proc/run", "choose another --out"]);
    }
}

/// `host` where no file may grow beyond some 512-byte blocks, as on a disk that is almost full.
fn on_a_full_disk(sandbox: &Sandbox, blocks: usize, words: &[&str]) -> Outcome {
    // Ignored, the signal becomes an error of the write, as a full disk is. Output goes through a pipe, which no limit
    // applies to.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = sandbox.command("sh").args(["-c", &script]).arg(host()).args(words).output();
    Outcome::of(words, output.expect("sh starts"))
}

#[test]
fn a_disk_that_is_full_from_the_start_leaves_no_folder() {
    let sandbox = Sandbox::new();
    // Private copies of the plugins are there from earlier runs.
    sandbox.host(&[&["config", "check"][..], SMALL].concat()).succeeded();
    let sentence =
        on_a_full_disk(&sandbox, 0, &[&["run", "--steps=2", "--out=run"][..], SMALL].concat()).failed();
    says(&sentence, &["run: ", "file too large", "nothing was trained", "free space"]);
    let left: Vec<_> = std::fs::read_dir(sandbox.path("")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_disk_that_fills_up_costs_only_the_checkpoint_being_saved() {
    let sandbox = Sandbox::new();
    let whole = sandbox.train("whole", &["--steps=12", "--set=save_every=4"]);
    let words = [&["run", "--steps=12", "--set=save_every=4", "--out=run"][..], SMALL].concat();
    // State is some 500 KB; everything else is small.
    let sentence = on_a_full_disk(&sandbox, 64, &words).failed();
    says(&sentence, &["run/checkpoints/step-00000004", "file too large", "was not saved", "free space"]);
    let run = Run::at(sandbox.path("run"));
    assert_eq!(run.checkpoints(), [""; 0], "nothing of it is left");
    says(
        &sandbox.host(&["run", "--resume=run"]).failed(),
        &["no checkpoint to resume from", "another --out"],
    );

    sandbox.train("first", &["--steps=12", "--set=save_every=4"]);
    let first = Run::at(sandbox.path("first"));
    let before = first.checkpoints();
    let sentence = on_a_full_disk(&sandbox, 64, &["run", "--resume=first", "--steps=20"]).failed();
    says(&sentence, &["first/checkpoints/step-00000016", "earlier ones are whole"]);
    assert_eq!(first.checkpoints(), before);
    assert_eq!(first.file("checkpoints/latest"), "step-00000012");

    // With room again, the run goes on from there.
    sandbox.host(&["run", "--resume=first", "--steps=20"]).succeeded();
    sandbox.host(&["run", "--resume=whole", "--steps=20"]).succeeded();
    assert_eq!(first.trace(), whole.trace());
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_larger_than_memory_is_refused() {
    let sandbox = Sandbox::new();
    let script = "ulimit -v 4000000; exec \"$0\" \"$@\"";
    let words = ["run", "--steps=1", "--set=batch=2048", "--out=run"];
    let output = sandbox.command("sh").args(["-c", script]).arg(host()).args(words).output();
    let sentence = Outcome::of(&words, output.expect("sh starts")).failed();
    says(&sentence, &["could not allocate", "bytes", "lower train.batch", "train.accumulate"]);
    assert!(!sandbox.path("run").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_larger_than_the_machine_is_refused_before_it_is_tried() {
    let sentence = Sandbox::new().refused(&["--set=batch=1000000"]);
    says(&sentence, &["the run needs", "MiB are free", "lower train.batch", "train.accumulate"]);
}

#[test]
fn a_folder_that_is_no_run_cannot_be_resumed() {
    let sandbox = Sandbox::new();
    sandbox.write("folder/notes.txt", "");
    for folder in ["folder", "nowhere"] {
        let sentence = sandbox.refused_resume(&["--resume", folder]);
        says(&sentence, &[folder, "is no run folder", "config.toml"]);
    }
}

#[test]
fn a_damaged_checkpoint_is_not_resumed() {
    let sandbox = Sandbox::new();
    let run = sandbox.train("run", &["--steps=6", "--set=save_every=3"]);
    let state = run.folder.join("checkpoints/step-00000006/state.safetensors");
    let mut bytes = std::fs::read(&state).expect("the run saved it");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&state, &bytes).expect("the sandbox is writable");
    let sentence = sandbox.refused_resume(&["--resume=run", "--steps=9"]);
    says(
        &sentence,
        &["run/checkpoints/step-00000006", "state.safetensors", "hash", "run/checkpoints/latest"],
    );
    bytes.truncate(middle);
    std::fs::write(&state, &bytes).expect("the sandbox is writable");
    says(&sandbox.refused_resume(&["--resume=run", "--steps=9"]), &["step-00000006", "hash"]);
    std::fs::remove_file(&state).expect("it is there");
    says(
        &sandbox.refused_resume(&["--resume=run", "--steps=9"]),
        &["step-00000006", "state.safetensors cannot be read"],
    );

    // What the sentence advises.
    sandbox.write("run/checkpoints/latest", "step-00000003");
    sandbox.host(&["run", "--resume=run", "--steps=9"]).succeeded();
    let steps: Vec<_> = run.metrics().iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_resumed_run_keeps_its_configuration() {
    let sandbox = Sandbox::new();
    let run = sandbox.train("run", &["--steps=4"]);
    let before = run.file("metrics.jsonl");
    for flags in [
        ["--set", "lr=0.1"],
        ["--seed", "2"],
        ["--data", "x.txt"],
        ["--preset", "tiny"],
        ["--optim", "adamw"],
    ] {
        let sentence = sandbox.refused_resume(&[&["--resume=run", "--steps=9"][..], &flags].concat());
        says(&sentence, &["keeps its configuration", "--steps, --device, --threads and --memory-budget"]);
    }
    says(&sandbox.refused_resume(&["--resume=run"]), &["run is complete at step 4", "--steps N above 4"]);
    says(&sandbox.refused_resume(&["--resume=run", "--steps=2"]), &["--steps N above 4"]);
    assert_eq!(run.file("metrics.jsonl"), before);
}

#[test]
fn a_run_is_not_resumed_on_other_text() {
    let sandbox = Sandbox::new();
    sandbox.write("text.txt", "a text that someone edits later. ".repeat(100));
    sandbox.train("run", &["--steps=3", "--data=text.txt"]);
    sandbox.write("text.txt", "another text in the same place. ".repeat(100));
    let sentence = sandbox.refused_resume(&["--resume=run", "--steps=6"]);
    says(&sentence, &["the text has changed since run began", "--out"]);
}

#[test]
fn steps_that_are_not_finite_are_skipped_and_then_stop_the_run() {
    let sandbox = Sandbox::new();
    // The first step is finite and throws every parameter beyond what f32 can square.
    let arguments = ["--steps=20", "--set=train.lr=1e38", "--set=warmup=0", "--out=run"];
    let sentence = sandbox.host(&[&["run"][..], SMALL, &arguments].concat()).failed();
    says(
        &sentence,
        &["not finite in 5 steps in a row (2 to 6)", "none of which was applied", "first bad tensor"],
    );
    says(&sentence, &["layers.0.attention", "f32[4, 48, ", "lower train.lr", "metrics.jsonl in run"]);
    let skipped =
        Run::at(sandbox.path("run")).metrics().iter().map(|line| line["skipped"] == true).collect::<Vec<_>>();
    assert_eq!(skipped, [false, true, true, true, true, true]);
}
