//! `cargo xtask test`: build and stage, then every test of the workspace, then one line with the counts.
//!
//! Staging comes first because end-to-end tests start the real host with the real plugins.

use std::ffi::OsString;
use std::io::Read;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::summary::Summary;
use crate::workspace::{Workspace, cannot_start, cargo, exit_code};
use crate::{build, output};

/// Runs the tests and returns cargo's exit code.
pub fn command(workspace: &Workspace, args: &[OsString]) -> Result<i32> {
    let start = Instant::now();
    build::build_and_stage(workspace, |_, _| Ok(()))?;

    let mut command = cargo();
    command.arg("test").args(arguments(args)).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| cannot_start(&command))?;
    let mut summary = Summary::default();
    if let Some(stdout) = child.stdout.take() {
        follow(stdout, &mut summary)?;
    }
    let code = exit_code(child.wait().context("cannot wait for cargo")?);

    // A program that crashed, or that has a harness of its own, reports no counts; the sum must not look like
    // success.
    if code != 0 && summary.programs > 0 && summary.failed == 0 {
        output::line("a test program failed without a result line (see above); it counts as one failure")?;
        summary.failed = 1;
    }
    output::line(&format!("total time {:.1} s", start.elapsed().as_secs_f64()))?;
    if summary.programs > 0 {
        output::line(&format!(
            "{} passed, {} failed, {} skipped",
            summary.passed, summary.failed, summary.skipped
        ))?;
    }
    Ok(code)
}

/// Our defaults, then the caller's arguments. A default gives way where cargo would refuse both or ignore the
/// caller's.
fn arguments(args: &[OsString]) -> Vec<OsString> {
    let words: Vec<_> = args.iter().take_while(|arg| *arg != "--").map(|arg| arg.to_string_lossy()).collect();
    let given = |flags: &[&str]| {
        words
            .iter()
            .any(|word| flags.iter().any(|flag| word == flag || word.starts_with(&format!("{flag}="))))
    };
    // `-pNAME` is one word; no other option of `cargo test` begins with -p.
    let chooses_packages =
        given(&["--package", "--workspace", "--all"]) || words.iter().any(|w| w.starts_with("-p"));

    let mut all: Vec<OsString> = Vec::new();
    if !chooses_packages {
        all.push("--workspace".into());
    }
    if !given(&["--release", "-r", "--profile"]) {
        all.push("--release".into());
    }
    // Without it cargo stops after the first failing program and the counts would leave out the rest.
    if !given(&["--no-fail-fast"]) {
        all.push("--no-fail-fast".into());
    }
    all.extend_from_slice(args);
    all
}

/// Passes the output on as it comes, in pieces of lines too, and reads the finished lines.
fn follow(mut from: impl Read, summary: &mut Summary) -> Result<()> {
    let mut buffer = [0; 8192];
    let mut line = Vec::new();
    loop {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            count => count.context("cannot read the output of `cargo test`")?,
        };
        if count == 0 {
            summary.read(&String::from_utf8_lossy(&line));
            return Ok(());
        }
        output::bytes(&buffer[..count])?;
        for byte in &buffer[..count] {
            if *byte == b'\n' {
                summary.read(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            } else {
                line.push(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(line: &str) -> String {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        arguments(&args).join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn defaults_come_first_and_give_way() {
        for (given, expected) in [
            ("", "--workspace --release --no-fail-fast"),
            ("-- --nocapture", "--workspace --release --no-fail-fast -- --nocapture"),
            ("-p graph vjp", "--release --no-fail-fast -p graph vjp"),
            ("-pgraph", "--release --no-fail-fast -pgraph"),
            ("--package=graph", "--release --no-fail-fast --package=graph"),
            ("--profile=dev", "--workspace --no-fail-fast --profile=dev"),
            ("--release --no-fail-fast", "--workspace --release --no-fail-fast"),
            ("x -- -p", "--workspace --release --no-fail-fast x -- -p"),
        ] {
            assert_eq!(joined(given), expected, "{given}");
        }
    }
}
