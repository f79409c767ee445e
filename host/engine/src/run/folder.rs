//! The run folder: configuration, metrics, checkpoints, summary, sample.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::evaluate::{Answers, TagBits};
use super::groups::Group;
use crate::Error;
use crate::config::Resolved;
use crate::evals::Outcome;
use crate::files::{self, write_whole};

/// `summary.json`: what a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub val_loss: f64,
    pub val_bits_per_byte: f64,
    /// 95 % interval over validation windows.
    pub val_bits_per_byte_interval: [f64; 2],
    /// Null for files, whose entropy nobody knows.
    pub floor_bits_per_byte: Option<f64>,
    pub init_loss: Option<f64>,
    pub steps: u64,
    pub skipped_steps: u64,
    /// Steady state, evaluation excluded.
    pub tokens_per_second: f64,
    pub arena_bytes: usize,
    pub peak_rss_bytes: u64,
    pub plan_digest: String,
    pub device: String,
    pub threads: usize,
    pub seconds: f64,
    pub params: usize,
    pub unigram_bits_per_byte: f64,
    pub bigram_bits_per_byte: f64,
    /// Calls into plugin code between the second step and the last.
    pub plugin_calls_while_training: u64,
    /// Bits per byte of each kind of byte; empty for files.
    pub tags: Vec<TagBits>,
    /// All answers first, then those to each kind of question; empty for files.
    pub answers: Vec<Answers>,
    /// What `train.evals` measured; those that failed are missing.
    pub evals: Vec<Outcome>,
}

/// A new run wants a new folder: nobody's results are written over.
pub fn refuse_existing(path: &Path) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    let path = path.display();
    Err(Error::said(format!(
        "run folder {path} exists already; choose another --out, or go on with --resume {path}"
    )))
}

/// An open run folder.
pub struct Folder {
    pub path: PathBuf,
    metrics: File,
}

impl Folder {
    /// Makes a new folder with `config.toml` and `run.json`. An existing path is refused.
    pub fn create(path: Option<&Path>, resolved: &Resolved, facts: &Value) -> Result<Folder, Error> {
        let settings = &resolved.settings;
        let path = match path {
            Some(path) => path.to_path_buf(),
            None => next_free(&format!("{}-{}", settings.model.short(), settings.optimizer.short())),
        };
        refuse_existing(&path)?;
        let mut settings = settings.clone();
        if !settings.data.path.as_os_str().is_empty() {
            // So that --resume finds it from any folder.
            settings.data.path = std::path::absolute(&settings.data.path).unwrap_or(settings.data.path);
        }
        let config = toml::to_string_pretty(&settings)
            .map_err(|error| Error::said(format!("configuration: {error}")))?;
        let run = serde_json::to_vec_pretty(facts).map_err(|error| Error::said(error.to_string()))?;
        let make = || {
            let parent =
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if parent.exists() && !parent.is_dir() {
                // `create_dir_all` would call it a file that exists.
                return Err(ErrorKind::NotADirectory.into());
            }
            std::fs::create_dir_all(parent)?;
            let draft = files::draft(parent)?;
            files::write(&draft.path().join("config.toml"), config.as_bytes())?;
            files::write(&draft.path().join("run.json"), &run)?;
            std::fs::rename(draft.path(), &path)?;
            let _ = draft.keep();
            Ok(())
        };
        make()
            .map_err(Error::file(&path, "nothing was trained; choose another --out, or check free space"))?;
        Folder::open(&path)
    }

    fn open(path: &Path) -> Result<Folder, Error> {
        let file = path.join("metrics.jsonl");
        let metrics = OpenOptions::new().create(true).append(true).open(&file);
        let metrics = metrics.map_err(Error::file(&file, "check permissions of the run folder"))?;
        Ok(Folder { path: path.to_path_buf(), metrics })
    }

    /// Opens a folder to go on after `step`: later metrics of an interrupted run are dropped.
    pub fn reopen(path: &Path, step: u64) -> Result<Folder, Error> {
        let file = path.join("metrics.jsonl");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let until = |line: &&str| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            value.get("step").and_then(Value::as_u64).is_some_and(|at| at <= step)
        };
        let kept: String = text.lines().filter(until).flat_map(|line| [line, "\n"]).collect();
        write_whole(&file, kept.as_bytes())?;
        Folder::open(path)
    }

    /// Appends one step's metrics.
    pub fn metrics(&mut self, step: &Map<String, Value>) -> Result<(), Error> {
        let line = format!("{}\n", Value::Object(step.clone()));
        let hint = "the metrics of this step were not recorded; check free space";
        self.metrics.write_all(line.as_bytes()).map_err(Error::file(&self.path.join("metrics.jsonl"), hint))
    }

    pub fn summary(&self, summary: &Summary) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(summary).map_err(|error| Error::said(error.to_string()))?;
        write_whole(&self.path.join("summary.json"), &json)
    }

    pub fn text(&self, name: &str, text: &str) -> Result<(), Error> {
        write_whole(&self.path.join(name), text.as_bytes())
    }
}

/// What identifies the program and the data of a run.
pub fn facts(
    resolved: &Resolved,
    groups: &[Group],
    data: &str,
    data_hash: Option<&str>,
    digest: &str,
) -> Value {
    let component = |chosen: &crate::config::Chosen| json!({"plugin": chosen.component.plugin, "name": chosen.component.name()});
    json!({
        "host_version": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().collect::<Vec<_>>(),
        "model": component(&resolved.model),
        "attention": component(&resolved.attention),
        "optimizer": component(&resolved.optimizer),
        "fallback": resolved.fallback.as_ref().map(|fallback| component(&fallback.chosen)),
        "groups": groups,
        "data": data,
        "data_blake3": data_hash,
        "plan_digest": digest,
    })
}

/// Refuses to go on with other text than the run began with.
pub fn same_data(path: &Path, data_hash: Option<&str>) -> Result<(), Error> {
    let file = path.join("run.json");
    let hint = "without it the run cannot be resumed";
    let text = std::fs::read_to_string(&file).map_err(Error::file(&file, hint))?;
    let facts: Value = serde_json::from_str(&text)
        .map_err(|error| Error::said(format!("{}: {error}; {hint}", file.display())))?;
    if facts.get("data_blake3").and_then(Value::as_str) == data_hash {
        return Ok(());
    }
    Err(Error::said(format!(
        "the text has changed since {} began; put it back as it was, or start a new run with --out",
        path.display()
    )))
}

/// The last step in the metrics of a run; 0 before the first.
pub fn last_step(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap_or_default();
    let steps =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64());
    steps.max().unwrap_or(0)
}

/// `runs/NAME-001`, or the first number that is free.
fn next_free(name: &str) -> PathBuf {
    let numbered = (1..).map(|number| PathBuf::from(format!("runs/{name}-{number:03}")));
    numbered.into_iter().find(|path| !path.exists()).unwrap_or_else(|| PathBuf::from("runs"))
}
