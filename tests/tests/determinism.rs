//! Equal runs have equal losses to the bit: whatever the number of threads, and stopped and resumed or not.

use host_tests::{Run, Sandbox, says};

#[test]
fn the_seed_decides_every_loss() {
    let sandbox = Sandbox::new();
    let first = sandbox.train("first", &["--steps=12", "--seed=7"]).trace();
    assert_eq!(first.len(), 12);
    assert_eq!(first, sandbox.train("again", &["--steps=12", "--seed=7"]).trace());
    let other = sandbox.train("other", &["--steps=12", "--seed=8"]).trace();
    assert_ne!(first[0], other[0], "another seed has other initial values");
    assert_ne!(first[11], other[11]);
}

#[test]
fn a_char_model_of_a_file_repeats_too() {
    let sandbox = Sandbox::new();
    let line =
        |number: usize| format!("line {number} of a text whose order matters: {}\n", number * number % 97);
    sandbox.write("text.txt", (0..300).map(line).collect::<String>());
    let arguments = ["--steps=8", "--data=text.txt", "--set=data.tokenizer=char"];
    assert_eq!(sandbox.train("first", &arguments).trace(), sandbox.train("again", &arguments).trace());
}

#[test]
fn threads_change_no_bit() {
    let sandbox = Sandbox::new();
    // Large enough that every kernel is divided among threads.
    let sizes = ["--steps=6", "--set=d_model=64", "--set=window=96", "--set=batch=6", "--set=dropout=0.1"];
    let with = |threads: &str| sandbox.train(threads, &[&sizes[..], &["--threads", threads]].concat());
    let one = with("1");
    assert_eq!(one.json("summary.json")["threads"], 1);
    for threads in ["2", "3"] {
        let more = with(threads);
        assert_eq!(one.trace(), more.trace(), "--threads {threads}");
        assert_eq!(one.json("summary.json")["val_loss"], more.json("summary.json")["val_loss"]);
        assert_eq!(one.file("sample.txt"), more.file("sample.txt"));
    }
}

#[test]
fn two_halves_of_a_batch_make_the_same_step() {
    let sandbox = Sandbox::new();
    let whole = sandbox.train("whole", &["--steps=10"]).losses();
    let halves = sandbox.train("halves", &["--steps=10", "--set=batch=2", "--set=accumulate=2"]).losses();
    for (step, (whole, halves)) in whole.iter().zip(&halves).enumerate() {
        // The same windows in another order of summation.
        assert!((whole - halves).abs() < 1e-4, "step {}: {whole} and {halves}", step + 1);
    }
}

/// Long enough to be interrupted, with a state that is small to save, and with random numbers in each step.
const LONG: [&str; 3] = ["--steps=1000", "--set=window=32", "--set=dropout=0.1"];

#[test]
fn a_stopped_run_goes_on_to_the_bit() {
    let sandbox = Sandbox::new();
    let whole = sandbox.train("whole", &LONG);
    for (out, signal) in [("stopped", "INT"), ("ended", "TERM")] {
        let words = [&["run", "--out", out][..], host_tests::SMALL, &LONG].concat();
        let outcome = sandbox.interrupt(out, &words, 20, signal);
        assert_eq!(outcome.code, Some(130), "{outcome:?}");
        says(&outcome.stdout, &["stopped and saved at step ", &format!("host run --resume {out}")]);
        let stopped = Run::at(sandbox.path(out));
        let done = stopped.trace().len();
        assert!((20..1000).contains(&done), "stopped after {done} steps");
        assert_eq!(stopped.trace(), whole.trace()[..done]);
        sandbox.host(&["run", "--resume", out]).succeeded();
        assert_eq!(stopped.trace(), whole.trace());
        assert_eq!(stopped.file("sample.txt"), whole.file("sample.txt"));
        for key in ["val_loss", "init_loss", "steps", "params"] {
            assert_eq!(stopped.json("summary.json")[key], whole.json("summary.json")[key], "{key}");
        }
    }
}

#[test]
fn a_longer_run_keeps_its_schedule() {
    let sandbox = Sandbox::new();
    let whole = sandbox.train("whole", &["--steps=20"]);
    let first = whole.metrics();
    sandbox.host(&["run", "--resume=whole", "--steps=40"]).succeeded();
    let metrics = whole.metrics();
    assert_eq!(metrics[..20], first);
    for line in &metrics[20..] {
        assert_eq!(line["lr"], 0.1 * 3e-3, "beyond the schedule the last rate stays: {line}");
    }

    sandbox.train("parts", &["--steps=20"]);
    sandbox.host(&["run", "--resume=parts", "--steps=31", "--threads=1"]).succeeded();
    sandbox.host(&["run", "--resume=parts", "--steps=40"]).succeeded();
    assert_eq!(Run::at(sandbox.path("parts")).trace(), whole.trace());
}

#[test]
fn a_run_that_died_goes_on_from_its_last_checkpoint() {
    let sandbox = Sandbox::new();
    let save = [&LONG[..], &["--set=save_every=100"]].concat();
    let whole = sandbox.train("whole", &save);
    assert_eq!(whole.checkpoints(), ["step-00000800", "step-00000900", "step-00001000"], "three stay");
    let words = [&["run", "--out=killed"][..], host_tests::SMALL, &save].concat();
    let outcome = sandbox.interrupt("killed", &words, 120, "KILL");
    assert_eq!(outcome.code, None, "{outcome:?}");
    let killed = Run::at(sandbox.path("killed"));
    sandbox.host(&["run", "--resume=killed"]).succeeded();
    assert_eq!(killed.checkpoints(), whole.checkpoints(), "nothing is left of a save that was cut off");
    assert_eq!(killed.trace(), whole.trace(), "steps after the checkpoint are not in the metrics twice");
}

#[test]
fn a_resumed_run_finds_its_data_from_any_folder() {
    let sandbox = Sandbox::new();
    sandbox.write("text.txt", "some text to learn by heart, ".repeat(200));
    sandbox.train("run", &["--steps=4", "--data=text.txt"]);
    sandbox.write("elsewhere/empty", "");
    let run = sandbox.path("run");
    let arguments = ["run", "--resume", run.to_str().expect("temporary paths are UTF-8"), "--steps=6"];
    let output =
        sandbox.command(host_tests::host()).current_dir(sandbox.path("elsewhere")).args(arguments).output();
    host_tests::Outcome::of(&arguments, output.expect("the host starts")).succeeded();
    assert_eq!(Run::at(run).metrics().len(), 6);
}
