//! Layering with provenance: built-in < preset < files < command line, through figment.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value as FigmentValue};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::Value;

use super::{Request, Settings};
use crate::Error;
use crate::nearest::suggest;

/// One value from the command line, with the flag it came by.
struct Flag {
    key: String,
    value: Value,
    origin: String,
}

impl Provider for Flag {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        let value = FigmentValue::serialize(&self.value)?;
        let nested = self
            .key
            .rsplit('.')
            .fold(value, |inner, key| FigmentValue::from(Dict::from([(key.to_string(), inner)])));
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// A TOML file as a layer; syntax errors name file and line.
fn file_layer(figment: Figment, path: &Path, what: &str) -> Result<Figment, Error> {
    let hint = "check the path; it is relative to the current folder";
    let text = std::fs::read_to_string(path).map_err(Error::file(path, hint))?;
    let table = text.parse::<toml::Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Error::said(format!("{what} {}, line {line}: {}", path.display(), error.message()))
    })?;
    // A later layer would cover a section that is no table, and nobody would see the mistake.
    let sections = super::sections();
    if let Some((key, value)) = table.iter().find(|(key, value)| !value.is_table() && sections.contains(key))
    {
        let line = line_of(path, key).unwrap_or(1);
        let advice = match super::SECTIONS.contains(&key.as_str()) {
            true => format!("to choose a {key}, set {key}.name"),
            false => format!("write [{key}] and its keys below it"),
        };
        return Err(Error::said(format!(
            "{key}: {value} is not a table; {advice} (from {} line {line})",
            path.display()
        )));
    }
    Ok(figment.merge(Toml::file_exact(path)))
}

/// All layers but `--set`, in order.
pub fn layers(request: &Request) -> Result<Figment, Error> {
    let mut figment = Figment::from(Serialized::defaults(Settings::default()));
    if let Some(preset) = &request.preset {
        figment = file_layer(figment, &find_preset(preset)?, "preset")?;
    } else if let Some(path) = default_preset(request) {
        figment = file_layer(figment, &path, "preset")?;
    }
    for path in &request.files {
        figment = file_layer(figment, path, "config")?;
    }
    for (key, value, flag) in request.flags() {
        figment = figment.merge(Flag { key: key.into(), value, origin: flag.into() });
    }
    Ok(figment)
}

/// One `--set key=value`, its key already complete.
pub fn set(figment: Figment, key: &str, value: Value) -> Figment {
    let origin = format!("--set {key}");
    figment.merge(Flag { key: key.into(), value, origin })
}

/// `key=value`: TOML where it parses as a value, else a string.
pub fn parse_assignment(text: &str) -> Result<(String, Value), Error> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::said(format!(
            "--set {text:?} has no `=`; write it as key=value, for example --set train.lr=0.001"
        ))
    })?;
    let parsed = format!("x = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("x"));
    let value = parsed
        .and_then(|value| serde_json::to_value(value).ok())
        .unwrap_or_else(|| Value::String(value.into()));
    Ok((key.trim().to_string(), value))
}

/// The full path of a key that may leave out its section (`lr`) or the component's name (`model.d_model`).
pub fn complete(key: &str, known: &[String]) -> Result<String, Error> {
    if known.iter().any(|path| path == key) {
        return Ok(key.into());
    }
    let short = |path: &str| {
        // model.transformer.d_model is also model.d_model
        let parts: Vec<&str> = path.split('.').collect();
        if parts.len() == 3 { format!("{}.{}", parts[0], parts[2]) } else { path.to_string() }
    };
    let fits = |path: &&String| path.ends_with(&format!(".{key}")) || short(path) == key;
    let matches: Vec<&String> = known.iter().filter(fits).collect();
    match matches[..] {
        [path] => Ok(path.clone()),
        [] => {
            let ends: Vec<&str> = known.iter().map(|path| path.rsplit('.').next().unwrap_or(path)).collect();
            let all = known.iter().map(String::as_str).chain(if key.contains('.') { vec![] } else { ends });
            let advice = suggest(key, all.collect::<Vec<_>>());
            let advice = if advice.starts_with("; known") {
                "; `host config show` lists all keys".into()
            } else {
                advice
            };
            Err(Error::said(format!("--set: {key:?} is no known key{advice}")))
        }
        _ => {
            let names: Vec<&str> = matches.iter().map(|path| path.as_str()).collect();
            Err(Error::said(format!("--set: {key:?} could mean {}; write one of them", names.join(" or "))))
        }
    }
}

/// The small preset of the model that was asked for, `MODEL-tiny`, where there is one; else `tiny`.
fn default_preset(request: &Request) -> Option<PathBuf> {
    let own = request.model.as_ref().and_then(|model| find_preset(&format!("{model}-tiny")).ok());
    let path = own.or_else(|| find_preset("tiny").ok());
    path.filter(|_| !request.no_preset)
}

/// File of a preset, beside the executable or in its prefix.
pub fn find_preset(name: &str) -> Result<PathBuf, Error> {
    let folders = crate::plugins::beside_executable("configs");
    let found = folders.iter().map(|folder| folder.join(format!("{name}.toml"))).find(|path| path.is_file());
    found.ok_or_else(|| {
        let names: Vec<String> = presets();
        let advice = suggest(name, names.iter().map(String::as_str));
        Error::said(format!("there is no preset {name:?}{advice}"))
    })
}

/// Names of all presets: those of a subfolder begin with its name, `reference/pilot-smoke`.
pub fn presets() -> Vec<String> {
    let mut names = Vec::new();
    for folder in crate::plugins::beside_executable("configs") {
        let mut open = vec![folder.clone()];
        while let Some(here) = open.pop() {
            let entries = std::fs::read_dir(here).into_iter().flatten().flatten().map(|entry| entry.path());
            for path in entries {
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|ending| ending == "toml") {
                    let name = path.strip_prefix(&folder).unwrap_or(&path).with_extension("");
                    names.push(name.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/"));
                }
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Where a value came from, for a person: `preset tiny.toml line 4`, `--set model.d_model`, `built in`.
pub fn origin(figment: &Figment, key: &str) -> String {
    let Some(metadata) = figment.find_metadata(key) else { return "plugin default".into() };
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => match line_of(path, key) {
            Some(line) => format!("{} line {line}", path.display()),
            None => path.display().to_string(),
        },
        None if metadata.name.starts_with("--") => metadata.name.to_string(),
        None => "built in".into(),
    }
}

/// Line of a key in a TOML file.
fn line_of(path: &Path, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(path).ok()?;
    let document = toml_edit::Document::parse(text.as_str()).ok()?;
    let mut item = document.as_item();
    let mut span = None;
    for part in key.split('.') {
        let table = item.as_table_like()?;
        span = table.get_key_value(part)?.0.span();
        item = table.get(part)?;
    }
    Some(text[..span?.start].matches('\n').count() + 1)
}
