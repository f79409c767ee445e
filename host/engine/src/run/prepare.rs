//! Everything before the first step: configuration, data, traces, plans, memory. Nothing is written to disk.

use std::path::Path;
use std::time::Instant;

use data::{Dataset, StoryCorpus, StoryOptions, TextCorpus, Tokenizer};
use plugin_api::Dims;

use super::checkpoint::{self, Progress};
use super::folder;
use super::initial::bank_values;
use crate::Error;
use crate::config::{self, Request, Resolved, Settings, TokenizerName};
use crate::machine::Machine;
use crate::plugins::Registry;
use crate::session::Session;
use crate::trace::{Programs, SessionShape, Shape};

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
        prepared.machine.write_state(&bank.state(), &bank_values(bank, seed))?;
    }
    Ok(())
}

/// The run of a folder, with its last checkpoint in place. `request` may change steps, device and threads.
pub fn prepare_resume<'r>(
    folder: &Path,
    request: &Request,
    registry: &'r Registry,
) -> Result<Prepared<'r>, Error> {
    let changes = Request { steps: None, device: None, threads: None, ..request.clone() };
    if changes != Request::default() {
        return Err(Error::said(
            "a resumed run keeps its configuration: only --steps, --device and --threads go with --resume",
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

/// The run of a folder as its newest checkpoint has it, finished or not.
pub(crate) fn prepare_trained<'r>(
    folder: &Path,
    request: &Request,
    registry: &'r Registry,
) -> Result<Prepared<'r>, Error> {
    let mut prepared = reopen(folder, request, registry)?;
    prepared.progress = Some(checkpoint::load_latest(folder, &prepared.programs, &mut prepared.machine)?);
    Ok(prepared)
}

impl Prepared<'_> {
    /// The model as it stands, in a session whose contexts are as long as windows.
    pub(crate) fn session(&self, rows: usize) -> Result<Session, Error> {
        /// Tokens of a text that are read at once.
        const WIDTH: usize = 16;
        let window = self.shape.window;
        let shape =
            SessionShape { rows, capacity: window, width: WIDTH.min(window), vocab: self.shape.vocab };
        // Training windows start where texts do, and a context cut in mid-sentence is strange to the model.
        let newline = self.dataset.tokenizer().encode("\n").ok().and_then(|ids| ids.first().copied());
        let step = self.progress.as_ref().map_or(0, |progress| progress.step);
        let banks = &self.programs.banks;
        Session::open(&self.resolved, self.registry, banks, shape, (step, newline), |name| {
            self.machine.read_state(name)
        })
    }
}

/// The run of a folder where it stood after `step` steps or at a checkpoint before that: as it began, if there is none.
pub(crate) fn prepare_at<'r>(
    folder: &Path,
    step: u64,
    registry: &'r Registry,
) -> Result<Prepared<'r>, Error> {
    let mut prepared = reopen(folder, &Request::default(), registry)?;
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
    let file = folder.join("config.toml");
    if !file.is_file() {
        return Err(Error::said(format!("{} is no run folder: it holds no config.toml", folder.display())));
    }
    let request = Request { files: vec![file], no_preset: true, ..request.clone() };
    let prepared = build(config::resolve(&request, registry)?, registry)?;
    folder::same_data(folder, prepared.dataset.content_hash())?;
    Ok(prepared)
}

fn build<'r>(resolved: Resolved, registry: &'r Registry) -> Result<Prepared<'r>, Error> {
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
    let width = resolved.model.options.get("d_model").and_then(serde_json::Value::as_u64);
    let dims = Dims {
        vocab: shape.vocab,
        window: shape.window,
        batch: shape.batch,
        width: width.and_then(|width| usize::try_from(width).ok()),
    };
    config::validate(&resolved, &dims)?;
    let clock = Instant::now();
    let programs = Programs::trace(&resolved, registry, shape)?;
    tracing::debug!("{} plans traced in {:?}", programs.list.len(), clock.elapsed());
    let graphs: Vec<(&str, &graph::Graph)> =
        programs.list.iter().map(|program| (program.name, &program.graph)).collect();
    let machine = Machine::load(settings.device, settings.threads, &graphs)?;
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
