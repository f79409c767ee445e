//! Everything before the first step: configuration, data, traces, plans, memory. Nothing is written to disk.

use std::path::Path;
use std::time::Instant;

use data::{Dataset, StoryCorpus, StoryOptions, TextCorpus, Tokenizer};
use plugin_api::Dims;

use super::checkpoint::{self, Progress, Values};
use super::folder;
use super::initial::draw_bank;
use super::trained::Trained;
use crate::Error;
use crate::config::{self, Request, Resolved, Settings, TokenizerName};
use crate::machine::Machine;
use crate::plugins::Registry;
use crate::trace::{Programs, Shape};

/// A run that is ready to start or to go on.
pub struct Prepared<'r> {
    pub resolved: Resolved,
    pub dataset: Dataset,
    pub programs: Programs,
    pub machine: Machine,
    pub shape: Shape,
    /// Where its components are found.
    pub registry: &'r Registry,
    /// Where an earlier part of the run left off.
    pub progress: Option<Progress>,
}

/// A new run, with initial values in place.
pub fn prepare<'r>(request: &Request, registry: &'r Registry) -> Result<Prepared<'r>, Error> {
    let mut prepared = build(config::resolve(request, registry)?, registry)?;
    initialize(&mut prepared)?;
    Ok(prepared)
}

fn initialize(prepared: &mut Prepared<'_>) -> Result<(), Error> {
    let seed = prepared.resolved.settings.seed;
    for bank in &prepared.programs.banks.banks {
        let machine = &mut prepared.machine;
        draw_bank(bank, seed, |start, values| machine.write_state_part(&bank.state(), start, values))?;
    }
    Ok(())
}

/// The run of a folder, with its last checkpoint in place. `request` may change steps, device, threads and the memory budget.
pub fn prepare_resume<'r>(
    folder: &Path,
    request: &Request,
    registry: &'r Registry,
) -> Result<Prepared<'r>, Error> {
    let changes =
        Request { steps: None, device: None, threads: None, memory_budget: None, ..request.clone() };
    if changes != Request::default() {
        return Err(Error::said(
            "a resumed run keeps its configuration: only --steps, --device, --threads and --memory-budget go with --resume",
        ));
    }
    let mut prepared = reopen(folder, request, registry)?;
    let progress = checkpoint::load_latest(folder, &prepared.programs, &mut prepared.machine)?;
    if progress.step >= prepared.resolved.settings.train.steps {
        let (folder, step) = (folder.display(), progress.step);
        return Err(Error::said(format!(
            "{folder} is complete at step {step}; go on with --steps N above {step}"
        )));
    }
    prepared.progress = Some(progress);
    Ok(prepared)
}

impl Prepared<'_> {
    /// Parameters as they stand, for [`Prepared::trained`].
    pub(crate) fn parameters(&self) -> Result<Values, Error> {
        let states = self.programs.banks.banks.iter().map(|bank| bank.state());
        states.map(|state| Ok((state.clone(), self.machine.read_state(&state)?))).collect()
    }

    pub(crate) fn trained<'t>(&'t self, parameters: &'t Values) -> Trained<'t> {
        Trained {
            resolved: &self.resolved,
            dataset: &self.dataset,
            registry: self.registry,
            step: self.progress.as_ref().map_or(0, |progress| progress.step),
            shape: self.shape,
            banks: &self.programs.banks,
            parameters,
        }
    }
}

/// The run of a folder where it stood after `step` steps or at a checkpoint before that: as it began, if there is none.
pub(crate) fn prepare_at<'r>(
    folder: &Path,
    step: u64,
    registry: &'r Registry,
) -> Result<Prepared<'r>, Error> {
    let mut prepared = reopen(folder, &Request { no_evals: true, ..Request::default() }, registry)?;
    match checkpoint::newest(folder, step) {
        Some(path) => {
            let advice = "remove it to start from an earlier one";
            let progress = checkpoint::load(&path, advice, &prepared.programs, &mut prepared.machine)?;
            prepared.progress = Some(progress);
        }
        None => initialize(&mut prepared)?,
    }
    Ok(prepared)
}

/// Plans and data of a run folder, State still empty.
fn reopen<'r>(folder: &Path, request: &Request, registry: &'r Registry) -> Result<Prepared<'r>, Error> {
    let prepared = build(recorded(folder, request, registry)?, registry)?;
    folder::same_data(folder, prepared.dataset.content_hash())?;
    Ok(prepared)
}

/// The configuration that a run folder keeps, with what `request` changes.
pub(super) fn recorded(folder: &Path, request: &Request, registry: &Registry) -> Result<Resolved, Error> {
    let file = folder.join("config.toml");
    if !file.is_file() {
        return Err(Error::said(format!("{} is no run folder: it holds no config.toml", folder.display())));
    }
    config::resolve(&Request { files: vec![file], no_preset: true, ..request.clone() }, registry)
}

/// What components are told of a run before their options are judged.
pub(super) fn dims(resolved: &Resolved, shape: Shape) -> Dims {
    let width = resolved.model.options.get("d_model").and_then(serde_json::Value::as_u64);
    Dims {
        vocab: shape.vocab,
        window: shape.window,
        batch: shape.batch,
        width: width.and_then(|width| usize::try_from(width).ok()),
    }
}

/// Data and sizes of a run, which its data and every component find fit.
pub(super) fn judged(resolved: &Resolved) -> Result<(Dataset, Shape), Error> {
    let settings = &resolved.settings;
    let train = &settings.train;
    let dataset = open_data(settings)?;
    if train.stream > 1 && train.accumulate > 1 {
        return Err(Error::said(
            "train.stream: rows of several micro-batches would share memories; set train.accumulate = 1",
        ));
    }
    dataset.check_window(train.window * train.stream)?;
    // Here rather than after hours of training.
    let unfit = |error| Error::said(format!("sample.prompt: {error}"));
    dataset.tokenizer().encode(&settings.sample.prompt).map_err(unfit)?;
    let shape = Shape {
        batch: train.batch,
        window: train.window,
        vocab: dataset.vocab_size(),
        accumulate: train.accumulate,
        clip: train.clip,
        stream: train.stream,
    };
    config::validate(resolved, &dims(resolved, shape))?;
    Ok((dataset, shape))
}

fn build<'r>(resolved: Resolved, registry: &'r Registry) -> Result<Prepared<'r>, Error> {
    let (dataset, shape) = judged(&resolved)?;
    let settings = &resolved.settings;
    let clock = Instant::now();
    let programs = Programs::trace(&resolved, registry, shape)?;
    tracing::debug!("{} plans traced in {:?}", programs.list.len(), clock.elapsed());
    let graphs: Vec<(&str, &graph::Graph)> =
        programs.list.iter().map(|program| (program.name, &program.graph)).collect();
    let budget = settings.memory_budget.bytes().map_err(Error::said)?;
    let machine = Machine::load_within(budget, settings.device, settings.threads, &graphs)?;
    Ok(Prepared { resolved, dataset, programs, machine, shape, registry, progress: None })
}

fn open_data(settings: &Settings) -> Result<Dataset, Error> {
    let data = &settings.data;
    if data.path.as_os_str().is_empty() {
        let dials = &data.story;
        let options = StoryOptions::dialled(
            settings.train.window * settings.train.stream,
            dials.people,
            dials.nearest,
            dials.farthest,
        );
        let corpus = StoryCorpus::new(options?)?;
        let tokenizer = match data.tokenizer {
            TokenizerName::Byte => Tokenizer::Byte,
            TokenizerName::Char => StoryCorpus::char_tokenizer(),
        };
        return Ok(Dataset::story(corpus, tokenizer)?);
    }
    let corpus = TextCorpus::open(&data.path)?;
    let tokenizer = match data.tokenizer {
        TokenizerName::Byte => Tokenizer::Byte,
        TokenizerName::Char => corpus.char_tokenizer()?,
    };
    Ok(Dataset::text(&corpus, tokenizer)?)
}
