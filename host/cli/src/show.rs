//! `host config`.

use std::process::ExitCode;

use engine::Error;
use engine::config;
use engine::plugins::Registry;

use crate::arguments::ConfigCommand;

pub fn run(command: ConfigCommand) -> Result<ExitCode, Error> {
    let ConfigCommand::Show(arguments) = command;
    let resolved = config::resolve(&arguments.request(), &Registry::discover())?;
    for (key, value, origin) in &resolved.origins {
        println!("{key:<34} {:<14} {origin}", value.to_string());
    }
    println!("\npresets: {}", config::presets().join(", "));
    Ok(ExitCode::SUCCESS)
}
