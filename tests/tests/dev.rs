//! `host dev`: an author's crate is built, trusted and run, and again after each change.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use host_tests::{Outcome, Run, SMALL, Sandbox, host, root, says};

/// A crate as `host plugins new` makes it, in the sandbox.
fn new_crate(sandbox: &Sandbox, kind: &str, package: &str) {
    let made = sandbox.host(&["plugins", "new", kind, "first"]).succeeded().stdout;
    says(&made, &[&format!("host dev {package}")]);
    std::fs::copy(root().join("Cargo.lock"), sandbox.path(&format!("{package}/Cargo.lock"))).expect("a copy");
}

/// `host dev` with the dependencies that the workspace has already compiled.
fn dev(sandbox: &Sandbox, words: &[&str]) -> Command {
    let target = host().ancestors().nth(2).expect("target/release/host").to_path_buf();
    let mut command = sandbox.command(host());
    command.env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true").arg("dev").args(words);
    command
}

fn once(sandbox: &Sandbox, words: &[&str]) -> Outcome {
    Outcome::of(words, dev(sandbox, &[&["--once"], words].concat()).output().expect("the host starts"))
}

#[test]
fn a_crate_is_built_trusted_and_run() {
    let sandbox = Sandbox::new();
    new_crate(&sandbox, "optimizer", "optim-first");
    let words = [&["optim-first", "--", "--out=run", "--steps=2"], SMALL].concat();
    let outcome = once(&sandbox, &words);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    says(&outcome.stderr, &["trusts ", "optim_first", "host run --optim first --out=run --steps=2"]);
    let run = Run::at(sandbox.path("run"));
    assert_eq!(
        (run.losses().len(), run.json("run.json")["optimizer"]["plugin"].as_str()),
        (2, Some("optim-first"))
    );
    // The code of the run is that of the command, and so is its sentence.
    let again = once(&sandbox, &words);
    assert_eq!(again.code, Some(1));
    says(&again.stderr, &["run folder run exists already"]);
    // Compiler errors are cargo's own words.
    sandbox.write("optim-first/src/lib.rs", "fn broken( {}\n");
    let broken = once(&sandbox, &["optim-first"]);
    assert_eq!(broken.code, Some(1));
    says(&broken.stderr, &["error: ", "src/lib.rs:1", "error: optim-first does not build"]);
}

#[test]
fn an_eval_measures_a_short_run() {
    let sandbox = Sandbox::new();
    new_crate(&sandbox, "eval", "eval-first");
    let outcome = once(&sandbox, &[&["eval-first", "--", "--out=run", "--steps=1"], SMALL].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    says(&outcome.stdout, &["first", "accuracy"]);
    assert!(sandbox.path("run/evals/first.json").is_file());
}

#[test]
fn what_is_no_plugin_is_a_sentence() {
    let sandbox = Sandbox::new();
    says(&once(&sandbox, &["nowhere"]).failed(), &["nowhere is no folder"]);
    sandbox.write("empty/readme.txt", "nothing");
    says(&once(&sandbox, &["empty"]).failed(), &["empty holds no Cargo.toml", "host plugins new"]);
    let manifest = |lib: &str| {
        format!("[package]\nname = \"plain\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n{lib}")
    };
    sandbox.write("plain/Cargo.toml", manifest(""));
    sandbox.write("plain/src/lib.rs", "pub fn nothing() {}\n");
    let last = |outcome: Outcome| {
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        outcome.stderr.lines().last().unwrap_or_default().to_string()
    };
    says(&last(once(&sandbox, &["plain"])), &["error: plain builds no library", "crate-type = [\"cdylib\"]"]);
    sandbox.write("plain/Cargo.toml", manifest("[lib]\ncrate-type = [\"cdylib\"]\n"));
    says(&last(once(&sandbox, &["plain"])), &["error: ", "plain", "is a library but not a plugin"]);
    let mut without = dev(&sandbox, &["--once", "plain"]);
    let outcome =
        Outcome::of(&["dev"], without.env("PATH", sandbox.path("bin")).output().expect("it starts"));
    says(&outcome.failed(), &["cargo cannot be started", "install Rust"]);
}

/// `host dev` in the background, ended with the test.
struct Watching {
    child: Child,
    said: PathBuf,
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It is gone where the test went well.
        let _ = self.child.kill();
    }
}

impl Watching {
    /// Waits for something that must come within two minutes, most of which cargo may need.
    #[track_caller]
    fn until(&mut self, what: &str, is_there: impl Fn() -> bool) {
        let patience = Instant::now() + Duration::from_secs(120);
        while !is_there() {
            let said = || std::fs::read_to_string(&self.said).unwrap_or_default();
            assert!(Instant::now() < patience, "{what} did not come: {}", said());
            assert!(
                self.child.try_wait().is_ok_and(|ended| ended.is_none()),
                "it ended before {what}: {}",
                said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn steps(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count()
}

#[test]
fn a_change_is_seen_and_an_interrupt_ends_all() {
    let sandbox = Sandbox::new();
    new_crate(&sandbox, "attention", "attention-first");
    let file = sandbox.path("attention-first/src/lib.rs");
    let source = std::fs::read_to_string(&file).expect("it was made");
    let edited = source.replace("pub scale: f64 = 10.0", "pub scale: f64 = 5.0");
    assert_ne!(source, edited);

    let (said, out) = (sandbox.path("said.txt"), sandbox.path("out.txt"));
    let mut command = dev(&sandbox, &[&["attention-first", "--", "--steps=1000000"], SMALL].concat());
    let create = |path: &Path| std::fs::File::create(path).expect("the sandbox is writable");
    command.stderr(create(&said)).stdout(create(&out));
    let mut watching = Watching { child: command.spawn().expect("the host starts"), said: said.clone() };
    let run = |number: usize| sandbox.path(&format!("runs/transformer-adamw-{number:03}"));
    let (first, second, third) = (run(1), run(2), run(3));
    watching.until("a run", || steps(&first) > 0);

    // An edit ends that run and begins another.
    std::fs::write(&file, edited).expect("the sandbox is writable");
    watching.until("a second run", || steps(&second) > 0);
    let scale = |run: &Path| Run::at(run.to_path_buf()).file("config.toml");
    says(&scale(&first), &["scale = 10.0"]);
    says(&scale(&second), &["scale = 5.0"]);

    // One that does not compile is shown, and nothing runs until it is mended.
    std::fs::write(&file, "fn broken( {}\n").expect("the sandbox is writable");
    let has_said = |part: &str| std::fs::read_to_string(&said).unwrap_or_default().contains(part);
    watching.until("an error", || has_said("does not build") && has_said("waiting for a change"));
    let ended = [&first, &second].map(|run| steps(run));
    std::fs::write(&file, source).expect("the sandbox is writable");
    watching.until("a third run", || steps(&third) > 0);
    assert_eq!([&first, &second].map(|run| steps(run)), ended, "a run went on beside the next");

    let kill = sandbox.command("sh").args(["-c", &format!("kill -INT {}", watching.child.id())]).status();
    assert!(kill.is_ok_and(|status| status.success()));
    let patience = Instant::now() + Duration::from_secs(20);
    let mut status = None;
    while status.is_none() && Instant::now() < patience {
        status = watching.child.try_wait().expect("it is our child");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status.and_then(|status| status.code()), Some(130), "{status:?}");
    let ended = steps(&third);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(steps(&third), ended, "the run outlives what started it");
    assert!(!run(4).exists());
}
