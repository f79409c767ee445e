//! `host plugins`.

use std::process::ExitCode;

use engine::Error;
use engine::config::{Described, describe};
use engine::plugins::{Kind, Registry};
use engine::suggest;

use crate::arguments::PluginsCommand;
use crate::{new, output};

pub fn run(command: PluginsCommand) -> Result<ExitCode, Error> {
    let registry = Registry::discover();
    let text = match command {
        PluginsCommand::List => list(&registry),
        PluginsCommand::Info { name } => info(&registry, &name)?,
        PluginsCommand::New { kind, name, path } => new::run(&registry, &kind, &name, path)?,
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
        text += &table(&describe(&component.schema()?));
    }
    Ok(text)
}

/// Options below their heads, each column as wide as its widest cell.
fn table(rows: &[Described]) -> String {
    const HEADS: [&str; 4] = ["option", "type", "default", "range"];
    let cells =
        |row: &Described| [&row.key, &row.kind, &row.default, &row.range].map(|cell| cell.replace('\n', " "));
    let width = |column: usize| {
        let widths = rows.iter().map(|row| cells(row)[column].chars().count());
        widths.chain([HEADS[column].len()]).max().unwrap_or_default()
    };
    let widths = [0, 1, 2, 3].map(width);
    let line = |cells: [&str; 4], doc: &str| {
        let cells: String =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("  {}\n", format!("{cells}{doc}").trim_end())
    };
    if rows.is_empty() {
        return "  no options\n".into();
    }
    let lines = rows.iter().map(|row| {
        let cells = cells(row);
        line([0, 1, 2, 3].map(|column| cells[column].as_str()), &row.doc.replace('\n', " "))
    });
    std::iter::once(line(HEADS, "")).chain(lines).collect()
}
