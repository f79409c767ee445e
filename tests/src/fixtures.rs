//! Plugins of `tests/fixtures`: built when a test first asks, laid into the search path of its host.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use engine::plugins::Registry;

use crate::{Outcome, Sandbox, host, root};

/// Where cargo leaves the fixtures' libraries. In one call with what `cargo xtask build` builds, so that cargo takes
/// the same dependencies and compiles these crates alone.
fn built() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let release = host().parent().expect("the host lies in a folder").to_path_buf();
    BUILT.get_or_init(|| {
        let packages = [
            "host",
            "model-transformer",
            "attention-full",
            "optim-adamw",
            "optim-muon",
            "alone",
            "faulty",
            "learner",
            "newer",
            "older",
        ];
        let target = release.parent().expect("release lies in the target folder");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--release", "--quiet"])
            .args(packages.map(|package| format!("--package={package}")));
        let output =
            cargo.current_dir(root()).env("CARGO_TARGET_DIR", target).output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    release
}

impl Sandbox {
    /// The host with the fixture `name` (`faulty`) among its plugins.
    pub fn host_with(&self, name: &str, words: &[&str]) -> Outcome {
        self.host_with_changed(name, |_| (), words)
    }

    /// The host with the fixture `name` among its plugins after `change` has been at its bytes.
    pub fn host_with_changed(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vec<u8>),
        words: &[&str],
    ) -> Outcome {
        self.lay(name, change);
        let output = self.command(host()).env("HOST_PLUGIN_PATH", "plugins").args(words).output();
        Outcome::of(words, output.expect("the host starts"))
    }

    /// The plugins of the host, with the fixture `name` among them, for tests that trace without a run.
    pub fn registry_with(&self, name: &str) -> Registry {
        Registry::of(vec![host().with_file_name("plugins"), self.lay(name, |_| ())])
    }

    /// Puts a fixture into the folder `plugins`.
    fn lay(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let file = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let mut bytes = std::fs::read(built().join(&file)).expect("cargo built it");
        change(&mut bytes);
        self.write(&format!("plugins/{file}"), bytes);
        self.path("plugins")
    }
}
