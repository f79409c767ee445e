//! `host plugins`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use engine::Error;
use engine::config::{Described, describe};
use engine::plugins::{Accepted, Checked, Kind, Registry, check, inspect};
use engine::suggest;

use crate::arguments::PluginsCommand;
use crate::{new, output};

pub fn run(command: PluginsCommand) -> Result<ExitCode, Error> {
    if let PluginsCommand::Inspect { library, report } = &command {
        inspect(library, report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let registry = Registry::discover();
    let text = match command {
        PluginsCommand::List => list(&registry),
        PluginsCommand::Info { name } => info(&registry, &name)?,
        PluginsCommand::Check { library, seconds } => checked(&registry, &library, seconds)?,
        PluginsCommand::Trust { library } => trust(&registry, &library)?,
        PluginsCommand::Untrust { name } => untrust(&registry, &name)?,
        PluginsCommand::Inspect { .. } => String::new(),
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
    for refusal in registry.refusals() {
        text += &format!("not usable: {refusal}\n");
    }
    if registry.plugins.is_empty() {
        let folders: Vec<String> =
            registry.folders.iter().map(|folder| folder.path.display().to_string()).collect();
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

/// What a library holds, seen by a process that may fail in our place.
fn checked(registry: &Registry, library: &str, seconds: f64) -> Result<String, Error> {
    let found = registry.named(library)?;
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let absolute = std::path::absolute(&found.path).unwrap_or_else(|_| found.path.clone());
    let Checked { info, components } = check(&found.path, limit, |report| inspector(&absolute, report))?;
    let mut text = format!(
        "plugin {} {} ({}) opens: plugin-api {}, {}, {}\n",
        info.plugin,
        info.version,
        info.path.display(),
        info.api,
        info.rustc,
        info.target
    );
    for component in components {
        let options = format!("{} options", component.options);
        text += &format!("  {:<10} {:<14} {options}\n", component.kind, component.name);
    }
    text += &match registry.standing(&info) {
        Ok(Accepted::Build) => "it is one of the build's own\n".to_string(),
        Ok(_) => "it is trusted\n".to_string(),
        Err(refusal) => format!("{refusal}\n"),
    };
    Ok(text)
}

/// This program again, to open a library and write what it finds into `report`.
fn inspector(library: &Path, report: &Path) -> Result<Command, Error> {
    let this = std::env::current_exe()
        .map_err(|error| Error::said(format!("the host does not find itself: {error}")))?;
    let mut command = Command::new(this);
    command.args(["plugins", "inspect"]).arg(library).arg(report);
    Ok(command)
}

fn trust(registry: &Registry, library: &str) -> Result<String, Error> {
    let info = registry.named(library)?;
    let path = info.path.display();
    if registry.standing(&info).is_ok_and(|accepted| accepted == Accepted::Build) {
        return Ok(format!("plugin {} ({path}) is one of the build's own and needs no trust\n", info.plugin));
    }
    let sha256 = registry.trust.add(&info)?;
    let mut text = format!("trusts plugin {} {} ({path}, SHA-256 {sha256})\n", info.plugin, info.version);
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let searched = registry.plugins.iter().any(|plugin| real(&plugin.path) == real(&info.path));
    if !searched {
        text += "it lies outside the search path: `host doctor` shows where the host looks\n";
    }
    Ok(text)
}

fn untrust(registry: &Registry, name: &str) -> Result<String, Error> {
    let gone: Vec<PathBuf> = registry.trust.remove(name)?;
    if gone.is_empty() {
        let names = registry.trust.names()?;
        let advice = match registry.plugins.iter().find(|info| info.plugin == name) {
            Some(info) if registry.standing(info).is_ok() => {
                format!(
                    "; it is one of the build's own: take {} out of its folder instead",
                    info.path.display()
                )
            }
            _ if names.is_empty() => "; nor is any other".to_string(),
            _ => suggest(name, names.iter().map(String::as_str)),
        };
        return Err(Error::said(format!("plugin {name:?} is not trusted{advice}")));
    }
    let files: Vec<String> = gone.iter().map(|path| path.display().to_string()).collect();
    Ok(format!("trusts plugin {name} no more ({})\n", files.join(", ")))
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
