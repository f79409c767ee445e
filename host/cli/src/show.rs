//! `host config`.

use std::process::ExitCode;

use engine::Error;
use engine::config;
use engine::plugins::Registry;

use crate::arguments::ConfigCommand;
use crate::output;

pub fn run(command: ConfigCommand) -> Result<ExitCode, Error> {
    let ConfigCommand::Show(arguments) = command;
    let resolved = config::resolve(&arguments.request(), &Registry::discover())?;
    let mut text = String::new();
    for (key, value, origin) in &resolved.origins {
        text += &format!("{key:<34} {:<14} {origin}\n", value.to_string());
    }
    text += &format!("\npresets: {}\n", config::presets().join(", "));
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
