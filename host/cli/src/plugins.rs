//! `host plugins`.

use std::process::ExitCode;

use engine::Error;
use engine::config::describe;
use engine::plugins::{Kind, Registry};
use engine::suggest;

use crate::arguments::PluginsCommand;
use crate::output;

pub fn run(command: PluginsCommand) -> Result<ExitCode, Error> {
    let registry = Registry::discover();
    let text = match command {
        PluginsCommand::List => list(&registry),
        PluginsCommand::Info { name } => info(&registry, &name)?,
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn list(registry: &Registry) -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        for (plugin, component) in registry.components(kind) {
            let from = format!("{} {}", plugin.plugin, plugin.version);
            text += &format!(
                "{:<10} {:<14} {:<28} {}\n",
                component.kind, component.name, from, component.summary
            );
        }
    }
    for (path, reason) in &registry.rejected {
        text += &format!("not usable: {} {reason}\n", path.display());
    }
    if registry.plugins.is_empty() {
        let folders: Vec<String> =
            registry.folders.iter().map(|folder| folder.display().to_string()).collect();
        text +=
            &format!("no plugins in {}; `cargo xtask build` builds and stages them\n", folders.join(", "));
    }
    text
}

fn info(registry: &Registry, name: &str) -> Result<String, Error> {
    let known = |kind: &Kind| {
        registry.components(*kind).any(|(plugin, component)| {
            component.name == name || format!("{}/{}", plugin.plugin, component.name) == name
        })
    };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(known).collect();
    if kinds.is_empty() {
        let all = Kind::ALL.into_iter().flat_map(|kind| registry.components(kind));
        let advice = suggest(name, all.map(|(_, component)| component.name.as_str()));
        return Err(Error::said(format!("there is no component {name:?}{advice}")));
    }
    let mut text = String::new();
    for kind in kinds {
        let component = registry.find(kind, name)?;
        text += &format!(
            "{} {} (plugin {}): {}\n",
            kind.name(),
            component.name(),
            component.plugin,
            component.summary()
        );
        for [key, kind, default, doc] in describe(&component.schema()?) {
            text += &format!("  {key:<14} {kind:<24} default {default:<10} {}\n", doc.replace('\n', " "));
        }
    }
    Ok(text)
}
