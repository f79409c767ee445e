//! `host plugins`.

use std::process::ExitCode;

use engine::Error;
use engine::config::describe;
use engine::plugins::{Kind, Registry};

use crate::arguments::PluginsCommand;

pub fn run(command: PluginsCommand) -> Result<ExitCode, Error> {
    let registry = Registry::discover();
    match command {
        PluginsCommand::List => list(&registry),
        PluginsCommand::Info { name } => info(&registry, &name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(registry: &Registry) {
    for kind in Kind::ALL {
        for (plugin, component) in registry.components(kind) {
            let from = format!("{} {}", plugin.plugin, plugin.version);
            println!("{:<10} {:<14} {:<28} {}", component.kind, component.name, from, component.summary);
        }
    }
    for (path, reason) in &registry.rejected {
        println!("not usable: {} {reason}", path.display());
    }
    if registry.plugins.is_empty() {
        let folders: Vec<String> =
            registry.folders.iter().map(|folder| folder.display().to_string()).collect();
        println!("no plugins in {}; `cargo xtask build` builds and stages them", folders.join(", "));
    }
}

fn info(registry: &Registry, name: &str) -> Result<(), Error> {
    let known = |kind: &Kind| {
        registry.components(*kind).any(|(plugin, component)| {
            component.name == name || format!("{}/{}", plugin.plugin, component.name) == name
        })
    };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(known).collect();
    if kinds.is_empty() {
        let all: Vec<String> = Kind::ALL
            .into_iter()
            .flat_map(|kind| registry.components(kind))
            .map(|(_, component)| component.name.clone())
            .collect();
        return Err(Error::said(format!("there is no component {name:?}; known: {}", all.join(", "))));
    }
    for kind in kinds {
        let component = registry.find(kind, name)?;
        println!(
            "{} {} (plugin {}): {}",
            kind.name(),
            component.name(),
            component.plugin,
            component.summary()
        );
        for [key, kind, default, doc] in describe(&component.schema()?) {
            println!("  {key:<14} {kind:<24} default {default:<10} {}", doc.replace('\n', " "));
        }
    }
    Ok(())
}
