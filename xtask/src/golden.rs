//! `cargo xtask golden`: build and stage, then the golden values of a folder.
//!
//! The comparison is a program of the tests, so that it compares what they link; optimizers are the staged plugins.

use std::path::Path;

use anyhow::{Context, Result};

use crate::build;
use crate::workspace::{Workspace, cannot_start, cargo, exit_code};

/// Runs the comparison and returns its exit code: not 0 where a case fails.
pub fn command(workspace: &Workspace, folder: &Path, device: Option<&str>, verbose: bool) -> Result<i32> {
    build::build_and_stage(workspace, |_, _| Ok(()))?;
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--package", "host-tests", "--bin", "golden", "--"]);
    command.args(device.map(|device| format!("--device={device}"))).args(verbose.then_some("--verbose"));
    command.arg(folder);
    let status = command.status().with_context(|| cannot_start(&command))?;
    Ok(exit_code(status))
}
