//! Evals of a trained run: tasks of plugins, their metrics with intervals, as a table and as JSON in the run folder.

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
use crate::config::Request;
use crate::files::write_whole;
use crate::plugins::{Kind, Registry};
use crate::run::{Prepared, prepare_trained};
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

/// Measures the run of a folder as its newest checkpoint has it, and writes `evals/NAME.json` there.
pub fn evaluate(
    folder: &Path,
    tasks: &Tasks,
    registry: &Registry,
    tell: &mut dyn FnMut(&str, Progress),
) -> Result<Vec<Outcome>, Error> {
    // Before anything is compiled.
    let options = options(tasks)?;
    for name in &tasks.names {
        registry.find(Kind::Eval, name)?.resolve(options.get(name).unwrap_or(&Value::Object(Map::new())))?;
    }
    let prepared = prepare_trained(folder, &Request::default(), registry)?;
    let mut outcomes = Vec::new();
    for name in &tasks.names {
        let given = options.get(name).cloned().unwrap_or(Value::Object(Map::new()));
        let outcome =
            measure(&prepared, name, &given, tasks.limit, registry, &mut |progress| tell(name, progress))?;
        let path = folder.join("evals").join(format!("{}.json", name.replace('/', "-")));
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(Error::file(parent, "check permissions"))?;
        let json = serde_json::to_vec_pretty(&outcome).map_err(|error| Error::said(error.to_string()))?;
        write_whole(&path, &json)?;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// One task on a run that is open.
fn measure(
    prepared: &Prepared<'_>,
    name: &str,
    options: &Value,
    limit: usize,
    registry: &Registry,
    tell: &mut dyn FnMut(Progress),
) -> Result<Outcome, Error> {
    let clock = Instant::now();
    let component = registry.find(Kind::Eval, name)?;
    let options = component.resolve(options)?;
    let eval = component.eval(&options)?;
    let served = Served::new(prepared, limit, tell)?;
    let session = ModelSession_TO::from_ptr(RRef::new(&served), TD_Opaque);
    let host = HostServices_TO::from_ptr(RRef::new(&served), TD_Opaque);
    let json = component.outcome(eval.run(session, host))?;
    let metrics = serde_json::from_str(&json)
        .map_err(|error| Error::said(format!("eval {name} gave metrics that are none: {error}")))?;
    Ok(Outcome {
        task: name.into(),
        plugin: component.plugin.clone(),
        options,
        step: prepared.progress.as_ref().map_or(0, |progress| progress.step),
        limit,
        metrics,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// Options of each task. A value is JSON where it can be read as such, else text.
fn options(tasks: &Tasks) -> Result<BTreeMap<String, Value>, Error> {
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
    Ok(options.into_iter().map(|(name, map)| (name, Value::Object(map))).collect())
}
