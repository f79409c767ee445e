//! The real `host` in a folder of its own, and what it leaves there.
//!
//! Nothing here stands in for a part of the program. `cargo xtask test` builds and stages the host and its plugins
//! first; the tests then use it as a person would, by its command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Arguments of a run that takes a moment: every size small and no two of them equal, everything else as by default.
pub const SMALL: &[&str] = &[
    "--set=d_model=32",
    "--set=layers=2",
    "--set=heads=2",
    "--set=window=48",
    "--set=batch=4",
    "--set=warmup=5",
    "--set=eval_windows=8",
    "--set=sample.tokens=4",
];

/// The host that `cargo xtask build` left in the target folder, from which the tests run too.
pub fn host() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let staged = test
        .ancestors()
        .map(|folder| folder.join("release/host"))
        .find(|host| host.is_file() && host.with_file_name("plugins").join("manifest.json").is_file());
    staged.unwrap_or_else(|| {
        panic!("no host with plugins is staged above {}: run `cargo xtask build`, or all tests with `cargo xtask test`", test.display())
    })
}

/// Root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package tests lies in the workspace")
}

/// A folder of its own to run in, removed with all its runs at the end of the test.
pub struct Sandbox {
    folder: TempDir,
    /// The user's configuration and caches, which trust nobody at first.
    home: TempDir,
}

impl Sandbox {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Sandbox {
        let new = || tempfile::tempdir().expect("the system's folder for temporary files is writable");
        Sandbox { folder: new(), home: new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file among the user's configuration and caches.
    pub fn home(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Makes a file, and the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the sandbox"))
            .expect("the sandbox is writable");
        std::fs::write(&path, content).expect("the sandbox is writable");
        path
    }

    /// A program that runs here, with no settings of the developer's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("HOST_PLUGIN_PATH").env_remove("HOST_LOG").env_remove("HOST_DUMP");
        command.env_remove("HOST_PLUGIN_LOCK");
        command.env("XDG_CONFIG_HOME", self.home("config")).env("XDG_CACHE_HOME", self.home("cache"));
        // Without it Vulkan's loader prints a line of its own.
        command.env("XDG_RUNTIME_DIR", self.home("runtime"));
        // A panic should look as bad as it can.
        command.env("RUST_BACKTRACE", "1");
        command
    }

    pub fn host(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(host()).args(arguments).output();
        Outcome::of(arguments, output.expect("the host starts"))
    }

    /// `host run` of a small model into the folder `out`, which must go well.
    pub fn train(&self, out: &str, arguments: &[&str]) -> Run {
        let words = [&["run", "--out", out][..], SMALL, arguments].concat();
        self.host(&words).succeeded();
        Run { folder: self.path(out) }
    }

    /// `host run` of a small model that must be refused before it leaves anything; returns the sentence.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let words = [&["run"][..], SMALL, arguments].concat();
        let sentence = self.host(&words).failed();
        assert!(!self.path("runs").exists(), "a refused run left a folder: host {words:?}");
        sentence
    }

    /// `host run --resume ...` that must be refused.
    pub fn refused_resume(&self, arguments: &[&str]) -> String {
        let outcome = self.host(&[&["run"][..], arguments].concat());
        assert_eq!(outcome.stdout, "", "it started: {}", outcome.command);
        outcome.failed()
    }

    /// Starts a training, waits until `steps` are done, and sends the signal.
    pub fn interrupt(&self, out: &str, arguments: &[&str], steps: usize, signal: &str) -> Outcome {
        let mut command = self.command(host());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the host starts");
        let metrics = self.path(out).join("metrics.jsonl");
        let patience = Instant::now() + Duration::from_secs(60);
        let lines = || std::fs::read_to_string(&metrics).unwrap_or_default().lines().count();
        while lines() < steps && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        let kill = self.command("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
        assert!(
            kill.is_ok_and(|status| status.success()),
            "the run ended before {steps} steps could be interrupted"
        );
        Outcome::of(arguments, child.wait_with_output().expect("the host ends"))
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(arguments: &[&str], output: Output) -> Outcome {
        Outcome {
            command: format!("host {}", arguments.join(" ")),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn succeeded(self) -> Outcome {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}\n{}", self.command, self.stdout);
        self
    }

    /// The one sentence of a command that refuses.
    pub fn failed(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "should have failed: {self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "not one sentence: {self:?}");
        assert!(self.stderr.starts_with("error: "), "not a sentence of ours: {self:?}");
        assert!(!self.stderr.contains("panicked at"), "a panic: {self:?}");
        self.stderr.trim_end().to_string()
    }
}

/// Every part must be in the sentence.
#[track_caller]
pub fn says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is missing in: {sentence}");
    }
}

/// A run folder.
pub struct Run {
    pub folder: PathBuf,
}

impl Run {
    pub fn at(folder: PathBuf) -> Run {
        Run { folder }
    }

    pub fn file(&self, name: &str) -> String {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// One object for each step.
    pub fn metrics(&self) -> Vec<Value> {
        let text = self.file("metrics.jsonl");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
            .collect()
    }

    /// What must not differ by one bit between equal runs: step, loss, learning rate, gradient norm.
    pub fn trace(&self) -> Vec<[u64; 4]> {
        let bits = |line: &Value| {
            ["step", "loss", "lr", "grad_norm"].map(|key| line[key].as_f64().unwrap_or(f64::NAN).to_bits())
        };
        self.metrics().iter().map(bits).collect()
    }

    pub fn losses(&self) -> Vec<f64> {
        self.metrics().iter().map(|line| line["loss"].as_f64().unwrap_or(f64::NAN)).collect()
    }

    /// Names of the saved checkpoints, sorted; everything else in their folder but `latest` counts as one too.
    pub fn checkpoints(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("checkpoints")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != "latest").collect();
        names.sort();
        names
    }
}
