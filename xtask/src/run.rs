//! `cargo xtask run`: build, then become `host run`.
//!
//! Ctrl-C must reach the host and nobody else: it stops training at the next step and saves, which takes a
//! while. On Unix xtask therefore replaces itself with the host, so that signals, exit code and terminal are
//! the host's own. Elsewhere xtask ignores Ctrl-C, which the console sends to the host as well, and waits.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build;
use crate::workspace::{Workspace, cannot_start};

/// Builds and runs the host; returns its exit code where it could not simply take our place.
pub fn command(workspace: &Workspace, args: &[OsString]) -> Result<i32> {
    let built = build::build_and_stage(workspace, |_, _| Ok(()))?;
    let mut host = Command::new(&built.binary);
    host.arg("run").args(args);
    become_program(&mut host).with_context(|| cannot_start(&host))
}

#[cfg(unix)]
fn become_program(program: &mut Command) -> Result<i32> {
    use std::os::unix::process::CommandExt;
    Err(program.exec().into())
}

#[cfg(not(unix))]
fn become_program(program: &mut Command) -> Result<i32> {
    ctrlc::set_handler(|| {}).context("cannot leave Ctrl-C to the host")?;
    Ok(crate::workspace::exit_code(program.status()?))
}
