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
            "hostile",
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
    /// The host with the fixture `name` (`faulty`) among its plugins, trusted.
    pub fn host_with(&self, name: &str, words: &[&str]) -> Outcome {
        self.host_with_bytes(name, fixture(name), words)
    }

    /// [`Sandbox::host_with`] for a library of other bytes than were built.
    pub fn host_with_bytes(&self, name: &str, bytes: Vec<u8>, words: &[&str]) -> Outcome {
        let path = self.write(&format!("plugins/{}", library(name)), bytes);
        self.host(&["plugins", "trust", &path.display().to_string()]).succeeded();
        let output = self.command(host()).env("HOST_PLUGIN_PATH", "plugins").args(words).output();
        Outcome::of(words, output.expect("the host starts"))
    }

    /// The plugins of the host, with the fixture `name` among them, for tests that trace without a run.
    pub fn registry_with(&self, name: &str) -> Registry {
        self.lay(name);
        Registry::of(vec![host().with_file_name("plugins"), self.path("plugins")])
    }

    /// Puts a fixture into the folder `plugins`; returns its path there.
    pub fn lay(&self, name: &str) -> PathBuf {
        self.write(&format!("plugins/{}", library(name)), fixture(name))
    }
}

/// File name of a library.
pub fn library(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// The bytes of a fixture's library.
pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(built().join(library(name))).expect("cargo built it")
}
