//! Checkpoints: every State by name in safetensors, and where the run stands. A folder appears whole or not at all.
//!
//! `checkpoints/step-00000500/state.safetensors` holds parameters under their paths and optimizer States under
//! `optimizer.ROLE.NAME`; `progress.json` holds step, counters and the hash of the state file. `latest` names the
//! newest. Data order and random draws are functions of the seed and the step, so nothing else needs saving.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::files::{self, sha256, write_whole};
use crate::machine::{Machine, states};
use crate::trace::{Banks, Programs};

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

    let mut banks: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, state, start, dims) in entries(programs) {
        if !banks.contains_key(&state) {
            banks.insert(state.clone(), machine.read_state(&state)?);
        }
        let values = &banks[&state][start..start + dims.iter().product::<usize>()];
        tensors.push((name, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect()));
    }
    let malformed =
        |error: safetensors::SafeTensorError| Error::said(format!("{}: {error}", target.display()));
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, dims, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, dims.clone(), bytes)?)))
        .collect::<Result<_, _>>()
        .map_err(malformed)?;
    let bytes = safetensors::serialize(views, None).map_err(malformed)?;

    let draft = files::draft(&parent).map_err(Error::file(&target, hint))?;
    files::write(&draft.path().join("state.safetensors"), &bytes).map_err(Error::file(&target, hint))?;
    let progress = Progress { state_sha256: sha256(&bytes), ..progress.clone() };
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
    let (checkpoint, advice) = latest(folder, "measure")?;
    read(&checkpoint, &advice, slices(banks))
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
    let (progress, values) = read(checkpoint, advice, entries(programs))?;
    for (state, values) in values {
        machine.write_state(&state, &values)?;
    }
    Ok(progress)
}

/// What a checkpoint holds for these entries, each State whole.
fn read(checkpoint: &Path, advice: &str, entries: Vec<Entry>) -> Result<(Progress, Values), Error> {
    let damaged =
        |what: String| Error::said(format!("checkpoint {}: {what}; {advice}", checkpoint.display()));
    let content = |file: &str| {
        std::fs::read(checkpoint.join(file))
            .map_err(|error| damaged(format!("{file} cannot be read ({error})")))
    };
    let progress: Progress = serde_json::from_slice(&content("progress.json")?)
        .map_err(|error| damaged(format!("progress.json is damaged ({error})")))?;
    let bytes = content("state.safetensors")?;
    if sha256(&bytes) != progress.state_sha256 {
        return Err(damaged("state.safetensors is damaged: it has not the hash in progress.json".into()));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let mut banks: BTreeMap<String, Vec<(usize, Vec<f32>)>> = BTreeMap::new();
    for (name, state, start, dims) in entries {
        let view = file.tensor(&name).map_err(|error| damaged(format!("{name}: {error}")))?;
        if view.shape() != dims || view.dtype() != Dtype::F32 {
            return Err(damaged(format!(
                "{name} is {:?}{:?}, the model has f32{dims:?}",
                view.dtype(),
                view.shape()
            )));
        }
        let value = |chunk: &[u8]| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        banks.entry(state).or_default().push((start, view.data().chunks_exact(4).map(value).collect()));
    }
    let whole = |(state, mut parts): (String, Vec<(usize, Vec<f32>)>)| {
        parts.sort_by_key(|part| part.0);
        (state, parts.into_iter().flat_map(|part| part.1).collect())
    };
    Ok((progress, banks.into_iter().map(whole).collect()))
}
