//! `host config`.

use std::process::ExitCode;

use engine::Error;
use engine::config;
use engine::plugins::Registry;
use engine::run::prepare;

use crate::arguments::{ConfigArguments, ConfigCommand};
use crate::output;

pub fn run(command: ConfigCommand) -> Result<ExitCode, Error> {
    let text = match command {
        ConfigCommand::Show(arguments) => show(*arguments)?,
        ConfigCommand::Check(arguments) => check(*arguments)?,
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: ConfigArguments) -> Result<String, Error> {
    let resolved = config::resolve(&arguments.request(), &Registry::discover())?;
    let mut text = String::new();
    for (key, value, origin) in &resolved.origins {
        text += &format!("{key:<34} {:<14} {origin}\n", value.to_string());
    }
    text += &format!("\npresets: {}\n", config::presets().join(", "));
    Ok(text)
}

/// As far as a run goes before its first step; nothing is written.
fn check(arguments: ConfigArguments) -> Result<String, Error> {
    let registry = Registry::discover();
    let prepared = prepare(&arguments.request(), &registry)?;
    let (resolved, banks) = (&prepared.resolved, &prepared.programs.banks.banks);
    let elements = |bank: &engine::trace::Bank| bank.ty().elements();
    Ok(format!(
        "fit to run: {} with {} attention, {}, {} parameters, {} plans\n",
        resolved.model.component.name(),
        resolved.attention.component.name(),
        resolved.optimizer.component.name(),
        banks.iter().map(elements).sum::<usize>(),
        prepared.programs.list.len(),
    ))
}
