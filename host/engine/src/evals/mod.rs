//! Evals of a trained run: tasks of plugins, their metrics with intervals, as a table and as JSON in the run folder.
//!
//! They run at the end of a run, as its configuration says, and by `host eval` at any time later.

mod metrics;
mod serve;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use abi_stable::RRef;
use abi_stable::sabi_trait::TD_Opaque;
use plugin_api::Metric;
use plugin_api::abi::{HostServices_TO, ModelSession_TO};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::config::Chosen;
use crate::files::write_whole;
use crate::plugins::{Kind, Registry};
use crate::run::{Reopened, Trained};
use serve::Served;

/// How far a task is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub done: usize,
    pub total: usize,
}

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    /// Names of evals.
    pub names: Vec<String>,
    /// Items of each at most; 0 for all.
    pub limit: usize,
    /// `NAME.KEY=VALUE` each.
    pub sets: Vec<String>,
}

/// What a task came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub task: String,
    pub plugin: String,
    /// All options, as the task ran with them.
    pub options: Value,
    /// Steps that the parameters were trained for.
    pub step: u64,
    pub limit: usize,
    pub metrics: Vec<Metric>,
    pub seconds: f64,
}

/// Measures the run of a folder as its newest checkpoint has it, and writes `evals/NAME.json` there. Options are those
/// of the run's configuration, under what `tasks` sets.
pub fn evaluate(
    folder: &Path,
    tasks: &Tasks,
    registry: &Registry,
    tell: &mut dyn FnMut(&str, Progress),
) -> Result<Vec<Outcome>, Error> {
    let sets = options(tasks)?;
    let mut found = Vec::new();
    for name in &tasks.names {
        found.push((name, registry.find(Kind::Eval, name)?));
    }
    let reopened = Reopened::open(folder, registry)?;
    let trained = reopened.trained(registry);
    // All of them before the first runs.
    let mut chosen = Vec::new();
    for (name, component) in found {
        let mut given = trained.resolved.settings.eval.get(&component.name()).cloned().unwrap_or_default();
        given.extend(sets.get(name).cloned().unwrap_or_default());
        let options = component.resolve(&Value::Object(given))?;
        if let Some((key, message)) = component.validate(&options, &trained.dims())?.into_iter().next() {
            return Err(Error::said(format!("{}.{key}: {message}", component.name())));
        }
        chosen.push((name, Chosen { component, options }));
    }
    let mut outcomes = Vec::new();
    for (name, chosen) in chosen {
        let mut tell = |progress| {
            tell(name, progress);
            true
        };
        let outcome = measure(&trained, name, &chosen, tasks.limit, &mut tell)?;
        write(folder, &outcome)?;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// One task on a model. `tell` says whether to go on; a task that was told to stop has no outcome.
pub(crate) fn measure(
    trained: &Trained<'_>,
    name: &str,
    Chosen { component, options }: &Chosen,
    limit: usize,
    tell: &mut dyn FnMut(Progress) -> bool,
) -> Result<Outcome, Error> {
    let clock = Instant::now();
    let eval = component.eval(options)?;
    let mut stopped = false;
    let mut tell = |progress| {
        stopped |= !tell(progress);
        !stopped
    };
    let served = Served::new(trained, limit, &mut tell);
    let session = ModelSession_TO::from_ptr(RRef::new(&served), TD_Opaque);
    let host = HostServices_TO::from_ptr(RRef::new(&served), TD_Opaque);
    let json = component.outcome(eval.run(session, host)).map_err(in_one_line)?;
    drop(served);
    if stopped {
        return Err(Error::said(format!("eval {name} was stopped")));
    }
    let plugin = component.plugin.clone();
    let metrics = metrics::read(&json)
        .map_err(|reason| Error::said(format!("eval {} of plugin {plugin} {reason}", component.name())))?;
    Ok(Outcome {
        task: name.into(),
        plugin,
        options: options.clone(),
        step: trained.step,
        limit,
        metrics,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// `evals/NAME.json`, whole or not at all.
pub(crate) fn write(folder: &Path, outcome: &Outcome) -> Result<(), Error> {
    let path = folder.join("evals").join(format!("{}.json", outcome.task.replace('/', "-")));
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(Error::file(parent, "check permissions"))?;
    let json = serde_json::to_vec_pretty(outcome).map_err(|error| Error::said(error.to_string()))?;
    write_whole(&path, &json)
}

/// What an eval says is its author's text: it may be no line.
fn in_one_line(error: Error) -> Error {
    let text = error.to_string();
    let lines = text.split(char::is_control).map(str::trim).filter(|line| !line.is_empty());
    Error::said(lines.collect::<Vec<_>>().join(" "))
}

/// Options of each task. A value is JSON where it can be read as such, else text.
fn options(tasks: &Tasks) -> Result<BTreeMap<String, Map<String, Value>>, Error> {
    let mut options: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for set in &tasks.sets {
        let malformed = || Error::said(format!("--set {set}: write TASK.KEY=VALUE, as recall.limit=50"));
        let (path, value) = set.split_once('=').ok_or_else(malformed)?;
        let (task, key) = path.split_once('.').ok_or_else(malformed)?;
        if !tasks.names.iter().any(|name| name == task) {
            return Err(Error::said(format!(
                "--set {set}: {task} is none of the tasks {}",
                tasks.names.join(", ")
            )));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
        options.entry(task.into()).or_default().insert(key.into(), value);
    }
    Ok(options)
}
