//! `cargo xtask`: everything a developer does with this workspace beyond plain cargo.
//!
//! A plugin is a library of its own, so `cargo build` alone leaves the host without plugins: something has to
//! build them all and put them where the host looks. That, and the checks this repository holds itself to,
//! are written here in Rust so that they are the same on every platform. This file parses the command line
//! and is the one place that prints errors.

#![forbid(unsafe_code)]

mod abi_snapshot;
mod bench;
mod build;
mod check;
mod files;
mod golden;
mod install;
mod links;
mod markdown;
mod new_plugin;
mod output;
mod reference;
mod run;
mod size;
mod stage;
mod summary;
mod test;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, stages, checks and tests the workspace.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the host and every plugin in plugins/, and stage plugins and presets beside the binary
    Build,
    /// Build, then `host run ARGS...`; everything after `run` is passed on as it stands
    #[command(override_usage = "cargo xtask run [ARGS]...")]
    Run,
    /// Build, then copy the host, its plugins and its presets under a prefix
    Install {
        /// Folder that receives bin/ and lib/host/ [default: ~/.local]
        #[arg(long, value_name = "DIR")]
        prefix: Option<PathBuf>,
    },
    /// Formatting, file sizes, links of the documentation, lints, API documentation: cheapest first
    Check,
    /// Write docs/op-reference.md from the op table
    Docs,
    /// Make a folder in plugins/ for a new plugin, which builds and does something small
    NewPlugin {
        /// What the component is
        #[arg(value_parser = scaffold::Kind::ALL.map(scaffold::Kind::word))]
        kind: String,
        /// Its name: small letters, digits and hyphens
        name: String,
    },
    /// Freeze plugin-api/src/abi.rs as the snapshot of its version
    AbiSnapshot,
    /// Lines per crate, the longest files, and the budget they must keep
    Size,
    /// Build, then `cargo test` on the whole workspace; everything after `test` is passed on as it stands
    #[command(override_usage = "cargo xtask test [ARGS]...")]
    Test,
    /// Build, then measure our programs and their PyTorch peers by turns
    Bench(bench::Options),
    /// Build, then compare every case of a folder of golden values with what this workspace computes
    Golden {
        /// Folder with NAME.json and NAME.safetensors for each case
        dir: PathBuf,
        /// Only on this device [default: both]
        #[arg(long, value_name = "DEVICE", value_parser = ["interpreter", "cpu"])]
        device: Option<String>,
        /// A line for each case that nothing computes yet, too
        #[arg(long)]
        verbose: bool,
    },
}

/// What a shell sees of a program that ended because its output pipe was closed: 128 + SIGPIPE.
const READER_GONE: i32 = 141;

fn main() {
    let (own, passed) = split(std::env::args_os().collect());
    let code = match dispatch(Cli::parse_from(own).task, passed) {
        Ok(code) => code,
        Err(error) if output::reader_is_gone(&error) => READER_GONE,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            1
        }
    };
    std::process::exit(code);
}

fn dispatch(task: Task, passed: Vec<OsString>) -> Result<i32> {
    let workspace = Workspace::find()?;
    match task {
        Task::Build => build::command(&workspace),
        Task::Run => run::command(&workspace, &passed),
        Task::Install { prefix } => install::command(&workspace, prefix),
        Task::Check => check::command(&workspace),
        Task::Docs => reference::command(&workspace),
        Task::NewPlugin { kind, name } => new_plugin::command(&workspace, &kind, &name),
        Task::AbiSnapshot => abi_snapshot::command(&workspace),
        Task::Size => size::command(&workspace),
        Task::Test => test::command(&workspace, &passed),
        Task::Bench(options) => bench::command(&workspace, &options),
        Task::Golden { dir, device, verbose } => {
            golden::command(&workspace, &dir, device.as_deref(), verbose)
        }
    }
}

/// Splits the command line into what clap reads and what belongs to `host run` or `cargo test`.
///
/// clap would swallow the first `--` of `cargo xtask test -- --nocapture`, so it never sees these arguments.
/// The one exception is `test --help`, which should not need a build.
fn split(mut args: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let task = args.get(1).and_then(|task| task.to_str()).unwrap_or("");
    let help = args.get(2).is_some_and(|arg| arg == "--help" || arg == "-h");
    let passed = if task == "run" || (task == "test" && !help) { args.split_off(2) } else { Vec::new() };
    (args, passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_words(line: &str) -> (Vec<OsString>, Vec<OsString>) {
        split(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn arguments_of_run_and_test_are_not_read() {
        for line in
            ["xtask test -- --nocapture", "xtask run --help", "xtask run model=hope -v -- x", "xtask run"]
        {
            let (own, passed) = split_words(line);
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(own, words[..2], "{line}");
            assert_eq!(passed, words[2..], "{line}");
        }
    }

    #[test]
    fn other_arguments_are_read() {
        for line in
            ["xtask", "xtask install --prefix /opt", "xtask test --help", "xtask golden dir --device=cpu"]
        {
            let (own, passed) = split_words(line);
            assert_eq!(own, line.split_whitespace().collect::<Vec<_>>(), "{line}");
            assert!(passed.is_empty(), "{line}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
