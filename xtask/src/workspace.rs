//! The workspace as cargo sees it, and the one way xtask starts cargo.
//!
//! `cargo metadata` expands the member globs, so a new folder under plugins/ is found without touching any
//! list.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The part of `cargo metadata` that xtask reads.
#[derive(Deserialize)]
pub struct Workspace {
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    pub packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub manifest_path: PathBuf,
    pub targets: Vec<Target>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// `[package.metadata]`, of which xtask reads `host.shared`: a library in plugins/ that plugins link.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    host: Host,
}

#[derive(Default, Deserialize)]
struct Host {
    #[serde(default)]
    shared: bool,
}

/// One thing cargo builds from a package.
#[derive(Deserialize)]
pub struct Target {
    pub name: String,
    pub kind: Vec<String>,
}

impl Workspace {
    /// Asks cargo about the workspace around the current folder.
    pub fn find() -> Result<Self> {
        let mut command = cargo();
        command
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .stderr(std::process::Stdio::inherit());
        let output = command.output().with_context(|| cannot_start(&command))?;
        if !output.status.success() {
            bail!("`cargo metadata` failed: its message is above");
        }
        serde_json::from_slice(&output.stdout).context("`cargo metadata` printed JSON that xtask cannot read")
    }
}

impl Package {
    /// Whether it is a library that plugins link, and no plugin.
    pub fn is_shared(&self) -> bool {
        self.metadata.as_ref().is_some_and(|metadata| metadata.host.shared)
    }

    /// The folder of the package.
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}

impl Target {
    /// Whether the target has this kind: `bin`, `cdylib`, ...
    pub fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|k| k == kind)
    }
}

/// The cargo that runs xtask, which may not be the first one in PATH.
///
/// The current folder stays the caller's: a relative CARGO_TARGET_DIR must mean the same to every cargo of
/// one command.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What to say when a program could not be started at all.
pub fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}` (is it installed and in PATH?)", command.get_program().display())
}

/// The exit code to end with after a child ended with `status`; a signal counts as 128 + its number, as in a
/// shell.
pub fn exit_code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    #[cfg(not(unix))]
    let signal = None;
    status.code().or(signal).unwrap_or(1)
}
