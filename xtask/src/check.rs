//! `cargo xtask check`: everything that can be said about the tree without running it, cheapest first.
//!
//! A mistake in formatting is found in a second and not after the lints; the first failure stops the rest.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cannot_start, cargo};
use crate::{links, output, reference, size};

/// A step's name and what it does; success may come with a remark.
type Step = (&'static str, fn(&Workspace) -> Result<String>);

const STEPS: [Step; 6] =
    [("fmt", fmt), ("size", size), ("links", links), ("ops", ops), ("clippy", clippy), ("docs", docs)];

/// Runs every step, each named with its time.
pub fn command(workspace: &Workspace) -> Result<i32> {
    let start = Instant::now();
    for (name, step) in STEPS {
        let start = Instant::now();
        let remark = step(workspace)
            .with_context(|| format!("check `{name}` failed after {:.1} s", start.elapsed().as_secs_f64()))?;
        output::line(format!("ok  {name:<7} {:>7.1} s  {remark}", start.elapsed().as_secs_f64()).trim_end())?;
    }
    output::line(&format!("ok  all     {:>7.1} s", start.elapsed().as_secs_f64()))?;
    Ok(0)
}

fn fmt(_: &Workspace) -> Result<String> {
    run_cargo(&["fmt", "--all", "--check"], &[], "run `cargo fmt --all`")
}

fn size(workspace: &Workspace) -> Result<String> {
    let report = size::measure(workspace)?;
    report.verdict()?;
    Ok(report.remark())
}

fn links(workspace: &Workspace) -> Result<String> {
    let checked = links::check(&workspace.root)?;
    Ok(format!("{checked} relative links"))
}

/// The op reference against the op table.
fn ops(workspace: &Workspace) -> Result<String> {
    Ok(format!("{} ops in docs/op-reference.md", reference::check(&workspace.root)?))
}

fn clippy(_: &Workspace) -> Result<String> {
    let args = ["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"];
    run_cargo(&args, &[], "mend the lints above")
}

/// In release, so that it reads the dependencies that clippy has just checked.
fn docs(_: &Workspace) -> Result<String> {
    let args = ["doc", "--workspace", "--no-deps", "--release"];
    run_cargo(&args, &[("RUSTDOCFLAGS", "-D warnings")], "mend the doc comments named above")
}

fn run_cargo(args: &[&str], environment: &[(&str, &str)], hint: &str) -> Result<String> {
    let mut command = cargo();
    command.args(args).envs(environment.iter().copied());
    let status = command.status().with_context(|| cannot_start(&command))?;
    if !status.success() {
        bail!("`cargo {}` found mistakes: {hint}", args.join(" "));
    }
    Ok(String::new())
}
