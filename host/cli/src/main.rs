//! The command `host`: arguments in, engine calls, text out. No logic of its own.

#![forbid(unsafe_code)]

mod arguments;
mod doctor;
mod plugins;
mod report;
mod run;
mod show;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("HOST_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Plugins(command) => plugins::run(command),
        Command::Config(command) => show::run(*command),
        Command::Doctor => doctor::run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
