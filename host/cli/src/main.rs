//! The command `host`: arguments in, engine calls, text out. No logic of its own.

#![forbid(unsafe_code)]

mod arguments;
mod bisect;
mod dev;
mod doctor;
mod eval;
mod new;
mod output;
mod plugins;
mod profile;
mod report;
mod run;
mod show;

use std::io::IsTerminal;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

/// Exit code of a command line that cannot be read, as is usual.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("HOST_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let result = match arguments.command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Plugins(command) => plugins::run(command),
        Command::Config(command) => show::run(*command),
        Command::Bisect { run, step, tolerance } => bisect::run(&run, step, tolerance),
        Command::Eval { run, tasks, json } => eval::run(&run, &tasks.tasks(), json),
        Command::Dev { path, once, args } => dev::run(&path, once, &args),
        Command::Profile(arguments) => profile::run(*arguments),
        Command::Doctor => doctor::run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::note(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Help as clap prints it; a mistake as one sentence, like every other mistake.
fn refuse(error: &clap::Error) -> ExitCode {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand) {
        // Nobody reads it: nothing to do.
        let _ = error.print();
    } else {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let what = lines.iter().take_while(|line| !line.is_empty()).copied().collect::<Vec<_>>().join(" ");
        let tips: String =
            lines.iter().filter_map(|line| line.strip_prefix("tip: ")).flat_map(|tip| ["; ", tip]).collect();
        output::note(&format!("{what}{tips}; `--help` lists what there is"));
    }
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}
