//! From a command to one resolved tree: every value checked, every value with its origin.

mod check;
mod device;
mod evals;
mod fallback;
mod layers;
mod settings;
mod size;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

pub use check::{Described, describe};
pub use device::DeviceName;
pub use fallback::Fallback;
pub use layers::presets;
pub use settings::{Choice, Data, Sample, ScheduleKind, Settings, Story, TokenizerName, Train, WriteOn};

pub use size::Size;

use crate::Error;
use crate::plugins::{Component, Kind, Registry};

/// What the command line says. Nothing is checked yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub model: Option<String>,
    pub optimizer: Option<String>,
    pub attention: Option<String>,
    pub preset: Option<String>,
    pub files: Vec<PathBuf>,
    /// `key=value` each.
    pub sets: Vec<String>,
    pub data: Option<PathBuf>,
    pub steps: Option<u64>,
    pub seed: Option<u64>,
    pub device: Option<String>,
    pub threads: Option<usize>,
    /// As `"512MiB"`.
    pub memory_budget: Option<String>,
    /// Leaves out the default preset: a run's own file holds everything.
    pub no_preset: bool,
    /// Opens no evals: what is not trained to its end needs none, and they may be gone since.
    pub no_evals: bool,
}

impl Request {
    /// (key, value, flag) of each flag that was given.
    fn flags(&self) -> Vec<(&'static str, Value, &'static str)> {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let number = |value: Option<u64>| value.map(Value::from);
        let all = [
            ("model.name", text(&self.model), "--plugin"),
            ("optimizer.name", text(&self.optimizer), "--optim"),
            ("attention.name", text(&self.attention), "--attention"),
            ("data.path", self.data.as_ref().map(|path| Value::from(path.display().to_string())), "--data"),
            ("train.steps", number(self.steps), "--steps"),
            ("seed", number(self.seed), "--seed"),
            ("device", text(&self.device), "--device"),
            ("threads", number(self.threads.map(|threads| threads as u64)), "--threads"),
            ("memory_budget", text(&self.memory_budget), "--memory-budget"),
        ];
        all.into_iter().filter_map(|(key, value, flag)| value.map(|value| (key, value, flag))).collect()
    }
}

/// A component with its complete options.
#[derive(Clone)]
pub struct Chosen {
    pub component: Component,
    pub options: Value,
}

/// A component that was opened, and the section of the tree that holds its options.
struct Opened {
    section: &'static str,
    component: Component,
    schema: Value,
}

impl Opened {
    fn new(section: &'static str, component: Component) -> Result<Opened, Error> {
        let schema = component.schema()?;
        Ok(Opened { section, component, schema })
    }
}

/// A complete, checked configuration.
pub struct Resolved {
    pub settings: Settings,
    pub model: Chosen,
    pub attention: Chosen,
    pub optimizer: Chosen,
    /// What the optimizer names for parameters that it does not take.
    pub fallback: Option<Fallback>,
    /// What measures the run at its end, in the order of `train.evals`.
    pub evals: Vec<Chosen>,
    /// Every leaf: key path, value, where it came from.
    pub origins: Vec<(String, Value, String)>,
}

/// Layers, completes and checks a request. Opens the chosen plugins; touches no data and no device.
pub fn resolve(request: &Request, registry: &Registry) -> Result<Resolved, Error> {
    let mut figment = layers::layers(request)?;
    let mut late_sets = Vec::new();
    for text in &request.sets {
        let (key, value) = layers::parse_assignment(text)?;
        match key.as_str() {
            "model.name" | "attention.name" | "optimizer.name" => figment = layers::set(figment, &key, value),
            _ => late_sets.push((key, value)),
        }
    }
    let name = |key: &str| {
        let no_name = |_| {
            let section = key.trim_end_matches(".name");
            // `model = "transformer"` leaves no model.name to have an origin.
            let at =
                layers::origin(&figment, if figment.find_metadata(key).is_some() { key } else { section });
            Error::said(format!("{key}: is no name in quotes, as in [{section}] name = \"...\" (from {at})"))
        };
        figment.extract_inner::<String>(key).map_err(no_name)
    };
    let mut opened = Vec::new();
    for (section, kind) in SECTIONS.into_iter().zip(Kind::ALL) {
        opened.push(Opened::new(section, registry.find(kind, &name(&format!("{section}.name"))?)?)?);
    }
    // Names of the fallback and of evals come first, since they decide which other keys there are.
    let (names, late_sets): (Vec<_>, Vec<_>) =
        late_sets.into_iter().partition(|(key, _)| fallback::is_name(key) || evals::is_names(key));
    let known = known_keys(&opened);
    for (key, value) in names {
        figment = layers::set(figment, &layers::complete(&key, &known)?, value);
    }
    opened.extend(fallback::open(&figment, &opened[2], registry)?);
    if !request.no_evals {
        opened.extend(evals::open(&figment, registry)?);
    }
    let known = known_keys(&opened);
    for (key, value) in late_sets {
        let key = layers::complete(&key, &known)?;
        figment = layers::set(figment, &key, value);
    }

    let merged: Value = figment.extract().map_err(|error| Error::said(error.to_string()))?;
    let mut misfits = Vec::new();
    check_sections(&merged, registry, &opened, request.no_evals, &mut misfits);
    if !misfits.is_empty() {
        let lines: Vec<String> = misfits
            .iter()
            .map(|(key, reason)| format!("{key}: {reason} (from {})", layers::origin(&figment, key)))
            .collect();
        return Err(Error::said(lines.join("\n")));
    }
    let mut settings: Settings =
        serde_json::from_value(merged).map_err(|error| Error::said(format!("configuration: {error}")))?;

    let unfit = |reason| {
        Error::said(format!("memory_budget: {reason} (from {})", layers::origin(&figment, "memory_budget")))
    };
    settings.memory_budget.bytes().map_err(unfit)?;

    let mut chosen = Vec::new();
    // Only options of components of the run belong to its record.
    let mut complete = BTreeMap::<&str, BTreeMap<String, Map<String, Value>>>::new();
    for Opened { section, component, .. } in &opened {
        let given = settings.options(section).get(&component.name()).cloned().unwrap_or_default();
        let options = component.resolve(&Value::Object(given))?;
        let record = options.as_object().cloned().unwrap_or_default();
        complete.entry(section).or_default().insert(component.name(), record);
        chosen.push(Chosen { component: component.clone(), options });
    }
    if !request.no_evals {
        settings.eval.clear();
    }
    for (section, options) in complete {
        *settings.options_mut(section) = options;
    }
    let origins = leaves(&settings)?
        .into_iter()
        .map(|(key, value)| {
            let origin = layers::origin(&figment, &key);
            (key, value, origin)
        })
        .collect();
    let evals = chosen.split_off(opened.iter().take_while(|each| each.section != evals::SECTION).count());
    let fallback = chosen.split_off(SECTIONS.len()).pop();
    let [model, attention, optimizer] =
        <[Chosen; 3]>::try_from(chosen).map_err(|_| Error::said("three components were chosen"))?;
    let fallback = fallback.map(|chosen| Fallback { chosen, rate: fallback::rate(&optimizer) });
    Ok(Resolved { settings, model, attention, optimizer, fallback, evals, origins })
}

/// Asks each component whether its options fit the run. Key paths are complete.
pub fn validate(resolved: &Resolved, dims: &plugin_api::Dims) -> Result<(), Error> {
    let mut lines = Vec::new();
    let chosen =
        [("model", &resolved.model), ("attention", &resolved.attention), ("optimizer", &resolved.optimizer)];
    let fallback = resolved.fallback.iter().map(|fallback| ("optimizer", &fallback.chosen));
    let evals = resolved.evals.iter().map(|chosen| (evals::SECTION, chosen));
    for (section, chosen) in chosen.into_iter().chain(fallback).chain(evals) {
        for (key, message) in chosen.component.validate(&chosen.options, dims)? {
            let path = format!("{section}.{}.{key}", chosen.component.name());
            let origin = resolved
                .origins
                .iter()
                .find(|(known, ..)| *known == path)
                .map(|(_, _, origin)| origin.as_str());
            lines.push(format!("{path}: {message} (from {})", origin.unwrap_or("plugin default")));
        }
    }
    if lines.is_empty() { Ok(()) } else { Err(Error::said(lines.join("\n"))) }
}

/// Sections that choose a component by name.
const SECTIONS: [&str; 3] = ["model", "attention", "optimizer"];

/// What the tables of a section are named after; None where they are the host's own.
fn kind_of(section: &str) -> Option<Kind> {
    SECTIONS
        .into_iter()
        .chain([evals::SECTION])
        .zip(Kind::ALL)
        .find(|(name, _)| *name == section)
        .map(|(_, kind)| kind)
}

/// Keys of the tree that hold a table.
fn sections() -> Vec<String> {
    let root = host_schema();
    let is_table =
        |key: &&str| kind_of(key).is_some() || !check::keys(&section_schema(&root, key)).is_empty();
    check::keys(&root).into_iter().filter(is_table).map(str::to_string).collect()
}

fn host_schema() -> Value {
    schemars::schema_for!(Settings).to_value()
}

/// Schema of a plain section of the host, by the definition it refers to.
fn section_schema(root: &Value, name: &str) -> Value {
    let pointer = root.pointer(&format!("/properties/{name}/$ref")).and_then(Value::as_str);
    let inline = root.pointer(&format!("/properties/{name}")).cloned().unwrap_or_default();
    let mut schema = pointer.and_then(|path| root.pointer(&path[1..])).cloned().unwrap_or(inline);
    if let (Some(map), Some(definitions)) = (schema.as_object_mut(), root.get("$defs")) {
        map.insert("$defs".into(), definitions.clone());
    }
    schema
}

fn known_keys(opened: &[Opened]) -> Vec<String> {
    let root = host_schema();
    let mut known: Vec<String> = Vec::new();
    for key in check::keys(&root) {
        let section = section_schema(&root, key);
        let inner = check::keys(&section);
        match kind_of(key).is_some() {
            true => {
                known.extend(SECTIONS.contains(&key).then(|| format!("{key}.name")));
                for Opened { component, schema, .. } in opened.iter().filter(|each| each.section == key) {
                    let name = component.name();
                    known.extend(check::keys(schema).iter().map(|option| format!("{key}.{name}.{option}")));
                }
            }
            false if inner.is_empty() => known.push(key.into()),
            false => known.extend(inner.iter().flat_map(|inner| nested(&section, key, inner))),
        }
    }
    known
}

/// Paths below a key of a section: its own, or those of the table it holds.
fn nested(section: &Value, key: &str, inner: &str) -> Vec<String> {
    let path = format!("{key}.{inner}");
    match check::table_keys(section, inner)[..] {
        [] => vec![path],
        ref keys => keys.iter().map(|leaf| format!("{path}.{leaf}")).collect(),
    }
}

fn check_sections(
    merged: &Value,
    registry: &Registry,
    opened: &[Opened],
    no_evals: bool,
    misfits: &mut Vec<check::Misfit>,
) {
    let root = host_schema();
    let mut top = Map::new();
    let sections = merged.as_object().into_iter().flatten();
    for (key, value) in sections.filter(|(key, _)| !(no_evals && *key == evals::SECTION)) {
        if let Some(kind) = kind_of(key) {
            check_choice(key, value, registry, kind, opened, misfits);
            continue;
        }
        let section = section_schema(&root, key);
        if check::keys(&section).is_empty() {
            top.insert(key.clone(), value.clone());
        } else {
            check::object(value, &section, key, misfits);
        }
    }
    check::object(&Value::Object(top), &root, "", misfits);
}

fn check_choice(
    section: &str,
    value: &Value,
    registry: &Registry,
    kind: Kind,
    opened: &[Opened],
    misfits: &mut Vec<check::Misfit>,
) {
    let own = SECTIONS.contains(&section).then_some("name");
    for (key, value) in value.as_object().into_iter().flatten().filter(|(key, _)| own != Some(key)) {
        let path = check::join(section, key);
        let names: Vec<&str> = registry.components(kind).map(|(_, info)| info.name.as_str()).collect();
        let of_run = opened.iter().find(|each| each.section == section && each.component.name() == *key);
        if let Some(of_run) = of_run {
            check::object(value, &of_run.schema, &path, misfits);
        } else if !value.is_object() {
            let keys = names.into_iter().chain(own);
            misfits.push((path, format!("is no known key{}", crate::nearest::suggest(key, keys))));
        } else if !names.contains(&key.as_str()) {
            let advice = crate::nearest::suggest(key, names);
            misfits.push((path, format!("names no {} that is installed{advice}", kind.name())));
        }
    }
}

/// Leaves of the tree by key path.
fn leaves(settings: &Settings) -> Result<Vec<(String, Value)>, Error> {
    fn walk(path: &str, value: &Value, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| walk(&check::join(path, key), value, out))
            }
            leaf => out.push((path.into(), leaf.clone())),
        }
    }
    let tree = serde_json::to_value(settings).map_err(|error| Error::said(error.to_string()))?;
    let mut out = Vec::new();
    walk("", &tree, &mut out);
    Ok(out)
}
