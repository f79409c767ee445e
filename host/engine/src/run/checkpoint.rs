//! Checkpoints: every State by name in safetensors, and where the run stands. A folder appears whole or not at all.
//!
//! `checkpoints/step-00000500/state.safetensors` holds parameters under their paths and optimizer States under
//! `optimizer.ROLE.NAME`; `progress.json` holds step, counters and the hash of the state file. `latest` names the
//! newest. Data order and random draws are functions of the seed and the step, so nothing else needs saving.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tensors::{self, Source, Tensors};
use crate::Error;
use crate::files::{self, write_whole};
use crate::machine::{Machine, states};
use crate::trace::{Banks, Programs};

/// The file of a checkpoint's tensors.
const STATE: &str = "state.safetensors";
/// How many checkpoints stay.
const KEPT: usize = 3;

/// Where a run stands.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Length of the learning-rate schedule, which a longer resumed run keeps.
    pub schedule_steps: u64,
    pub init_loss: Option<f64>,
    /// Steps that were not applied because they were not finite.
    pub skipped_steps: u64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// SHA-256 of state.safetensors.
    pub state_sha256: String,
    pub plan_digest: String,
}

/// (name in the file, State that holds it, first element, dims)
type Entry = (String, String, usize, Vec<usize>);

/// Of parameters alone.
fn slices(banks: &Banks) -> Vec<Entry> {
    let mut entries = Vec::new();
    for bank in &banks.banks {
        for (parameter, range) in bank.slices() {
            entries.push((parameter.path.clone(), bank.state(), range.start, parameter.dims.clone()));
        }
    }
    entries
}

fn entries(programs: &Programs) -> Vec<Entry> {
    let mut entries = slices(&programs.banks);
    for decl in states(programs.list.iter().map(|program| &program.graph)) {
        if !decl.name.starts_with("parameters.") {
            entries.push((decl.name.clone(), decl.name, 0, decl.ty.dims));
        }
    }
    entries
}

/// Writes a checkpoint and makes it the latest. On an error nothing of it is left.
pub fn save(
    folder: &Path,
    programs: &Programs,
    machine: &Machine,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let hint = "this checkpoint was not saved, earlier ones are whole; check free space and permissions";
    let parent = folder.join("checkpoints");
    std::fs::create_dir_all(&parent).map_err(Error::file(&parent, hint))?;
    let target = parent.join(format!("step-{:08}", progress.step));

    let draft = files::draft(&parent).map_err(Error::file(&target, hint))?;
    let path = draft.path().join(STATE);
    let entries = entries(programs);
    let reads: Vec<_> = entries
        .iter()
        .map(|(_, state, start, dims)| {
            move || machine.read_state_bytes(state, *start..start + dims.iter().product::<usize>())
        })
        .collect();
    let tensors = entries
        .iter()
        .zip(&reads)
        .map(|((name, _, _, dims), read)| (name.clone(), dims.clone(), read as Source<'_>));
    tensors::write(&path, (&target, hint), tensors)?;
    let state_sha256 = files::sha256_of(&path).map_err(Error::file(&path, hint))?;
    let progress = Progress { state_sha256, ..progress.clone() };
    let json = serde_json::to_vec_pretty(&progress).map_err(|error| Error::said(error.to_string()))?;
    files::write(&draft.path().join("progress.json"), &json).map_err(Error::file(&target, hint))?;
    // A checkpoint of the same step (a resumed run may write one) makes room and goes when the new one is there.
    let replaced = parent.join(format!(".draft-replaced-{:08}", progress.step));
    if target.exists() {
        std::fs::rename(&target, &replaced).map_err(Error::file(&target, hint))?;
    }
    std::fs::rename(draft.path(), &target).map_err(Error::file(&target, hint))?;
    let _ = draft.keep();
    if replaced.exists()
        && let Err(error) = std::fs::remove_dir_all(&replaced)
    {
        tracing::warn!("{} was not removed: {error}", replaced.display());
    }
    let name = format!("step-{:08}", progress.step);
    write_whole(&parent.join("latest"), name.as_bytes())?;
    remove_old(&parent, &name);
    Ok(target)
}

/// Oldest first beyond the number that stays, and drafts of a run that was killed. A folder that cannot be removed is left.
fn remove_old(parent: &Path, latest: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let (drafts, others): (Vec<String>, Vec<String>) = names.partition(|name| name.starts_with(files::DRAFT));
    let mut saved: Vec<String> =
        others.into_iter().filter(|name| name.starts_with("step-") && name != latest).collect();
    saved.sort();
    let excess = (saved.len() + 1).saturating_sub(KEPT);
    for name in saved.into_iter().take(excess).chain(drafts) {
        if let Err(error) = std::fs::remove_dir_all(parent.join(&name)) {
            tracing::warn!("{name} was not removed: {error}");
        }
    }
}

/// Content of States by name.
pub type Values = BTreeMap<String, Vec<f32>>;

/// Puts the latest checkpoint of a run folder into the machine.
pub fn load_latest(folder: &Path, programs: &Programs, machine: &mut Machine) -> Result<Progress, Error> {
    let (checkpoint, advice) = latest(folder, "resume from")?;
    load(&checkpoint, &advice, programs, machine)
}

/// Parameters of the latest checkpoint of a run folder, by the States of their banks.
pub fn parameters(folder: &Path, banks: &Banks) -> Result<(Progress, Values), Error> {
    let (path, advice) = latest(folder, "measure")?;
    let checkpoint = Checkpoint::open(&path, &advice, slices(banks))?;
    let mut values = Values::new();
    checkpoint.each(|state, start, part| {
        let whole: &mut Vec<f32> = values.entry(state.to_string()).or_default();
        whole.resize(whole.len().max(start + part.len()), 0.0);
        whole[start..start + part.len()].copy_from_slice(&part);
        Ok(())
    })?;
    Ok((checkpoint.progress, values))
}

/// The latest checkpoint of a run folder, and what to do where it is damaged.
fn latest(folder: &Path, purpose: &str) -> Result<(PathBuf, String), Error> {
    let parent = folder.join("checkpoints");
    let latest = parent.join("latest");
    let none = "the run saved no checkpoint to resume from; start it again with another --out";
    let name = std::fs::read_to_string(&latest).map_err(Error::file(&latest, none))?;
    let advice = format!("write the name of a whole checkpoint into {} to {purpose} that", latest.display());
    Ok((parent.join(name.trim()), advice))
}

/// The newest checkpoint of a run folder at or before `step`.
pub fn newest(folder: &Path, step: u64) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).ok()?;
    let steps = entries.flatten().filter_map(|entry| {
        let at = entry.file_name().to_str()?.strip_prefix("step-")?.parse::<u64>().ok()?;
        (at <= step).then(|| (at, entry.path()))
    });
    steps.max_by_key(|(at, _)| *at).map(|(_, path)| path)
}

/// Puts one checkpoint into the machine. Nothing is changed unless all of it fits.
pub fn load(
    checkpoint: &Path,
    advice: &str,
    programs: &Programs,
    machine: &mut Machine,
) -> Result<Progress, Error> {
    let checkpoint = Checkpoint::open(checkpoint, advice, entries(programs))?;
    checkpoint.each(|state, start, part| machine.write_state_part(state, start, &part))?;
    Ok(checkpoint.progress)
}

/// A checkpoint that is whole and has the tensors that are wanted of it.
struct Checkpoint<'c> {
    path: &'c Path,
    advice: &'c str,
    progress: Progress,
    tensors: Tensors,
    entries: Vec<Entry>,
}

impl Checkpoint<'_> {
    fn open<'c>(path: &'c Path, advice: &'c str, entries: Vec<Entry>) -> Result<Checkpoint<'c>, Error> {
        let damaged = |what: String| damaged(path, advice, &what);
        let unread = |file: &str, error: std::io::Error| damaged(format!("{file} cannot be read ({error})"));
        let json = std::fs::read(path.join("progress.json"));
        let json = json.map_err(|error| unread("progress.json", error))?;
        let progress: Progress = serde_json::from_slice(&json)
            .map_err(|error| damaged(format!("progress.json is damaged ({error})")))?;
        let file = path.join(STATE);
        let hash = files::sha256_of(&file).map_err(|error| unread(STATE, error))?;
        if hash != progress.state_sha256 {
            return Err(damaged(format!("{STATE} is damaged: it has not the hash in progress.json")));
        }
        let tensors = Tensors::open(&file).map_err(damaged)?;
        for (name, _, _, dims) in &entries {
            tensors.check(name, dims).map_err(damaged)?;
        }
        Ok(Checkpoint { path, advice, progress, tensors, entries })
    }

    /// Hands over the values of each tensor: the State that holds them, the first element, and the values.
    fn each(&self, mut take: impl FnMut(&str, usize, Vec<f32>) -> Result<(), Error>) -> Result<(), Error> {
        for (name, state, start, _) in &self.entries {
            let values = self.tensors.read(name).map_err(|what| damaged(self.path, self.advice, &what))?;
            take(state, *start, values)?;
        }
        Ok(())
    }
}

fn damaged(checkpoint: &Path, advice: &str, what: &str) -> Error {
    Error::said(format!("checkpoint {}: {what}; {advice}", checkpoint.display()))
}
