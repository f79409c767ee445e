//! `cargo xtask bench`: our programs and their peers, by turns, on this machine now.
//!
//! A machine's speed drifts, and on a shared one others come and go: only what was measured side by side is compared.
//! All sides of a bench are alive at once and are asked one after another, round after round; the medians are what counts.

mod measure;
mod report;
mod side;
mod table;
mod venv;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cannot_start, cargo};
use crate::{build, files, output};
use table::{BENCHES, Bench};
use venv::Python;

/// What the command line says.
#[derive(clap::Args)]
pub struct Options {
    /// Benches to run [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Fewer rounds, no compiled peers, no long benches, and peers that sleep at barriers: for a machine that others use
    #[arg(long)]
    quick: bool,
    /// Threads of every side; with 1, others on the machine disturb least
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Where the numbers go, with a page of Markdown beside them [default: bench.json in target/bench]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Python environment with PyTorch; made where it is missing [default: target/bench/venv]
    #[arg(long, value_name = "DIR")]
    venv: Option<PathBuf>,
}

/// Measured questions of each side.
const ROUNDS: usize = 11;
const QUICK_ROUNDS: usize = 7;

/// Runs the benches and writes what they came to.
pub fn command(workspace: &Workspace, options: &Options) -> Result<i32> {
    let chosen = chosen(options)?;
    let built = build::build_and_stage(workspace, |_, _| Ok(()))?;
    let worker = worker(&built.binary)?;
    let folder = built.binary.parent().and_then(Path::parent).unwrap_or(&workspace.root).join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let venv = options.venv.clone().unwrap_or_else(|| folder.join("venv"));
    let python = Python::find(&venv, options.threads.max(1), options.quick);
    if let Err(reason) = &python {
        output::note(&format!("no peers: {reason}"));
    }
    let machine = measure::Machine {
        host: built.binary,
        worker,
        peers: workspace.root.join("bench/peers"),
        folder: folder.clone(),
        python: python.ok(),
        rounds: if options.quick { QUICK_ROUNDS } else { ROUNDS },
        quick: options.quick,
        threads: options.threads.max(1),
        load: load(),
    };
    let mut results = Vec::new();
    for bench in chosen {
        output::note(&format!("{}: {}", bench.name, bench.what));
        let result = measure::bench(bench, &machine)?;
        output::note(&report::line(&result));
        results.push(result);
        // After each, so that a run that is stopped leaves what it has.
        let json = options.json.clone().unwrap_or_else(|| folder.join("bench.json"));
        let numbers = serde_json::to_string_pretty(&report::json(&results, &machine))?;
        files::write(&json, format!("{numbers}\n").as_bytes(), None)?;
        files::write(&json.with_extension("md"), report::markdown(&results, &machine).as_bytes(), None)?;
    }
    output::line(&report::markdown(&results, &machine))?;
    Ok(0)
}

fn chosen(options: &Options) -> Result<Vec<&'static Bench>> {
    for name in &options.names {
        if !BENCHES.iter().any(|bench| bench.name == name) {
            let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
            bail!("there is no bench `{name}`: {}", known.join(", "));
        }
    }
    let wanted = |bench: &&Bench| match options.names.is_empty() {
        true => !(options.quick && bench.long),
        false => options.names.iter().any(|name| name == bench.name),
    };
    Ok(BENCHES.iter().filter(wanted).collect())
}

/// How many wanted a core in the last minute; None where the system does not say.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Builds the program of the tests that does our side's jobs; it finds the staged plugins beside itself.
fn worker(host: &Path) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--quiet", "--package", "host-tests", "--bin", "bench"]);
    let status = command.status().with_context(|| cannot_start(&command))?;
    if !status.success() {
        bail!("our side could not be built: the compiler's message is above");
    }
    Ok(host.with_file_name(format!("bench{}", std::env::consts::EXE_SUFFIX)))
}
