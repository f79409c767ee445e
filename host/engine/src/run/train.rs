//! The training loop: batches in, replays, metrics out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use data::{Baselines, Window, baselines, story_floor};
use serde_json::{Map, Value};

use super::checkpoint::{self, Progress};
use super::evaluate::{Evaluation, evaluate};
use super::feed::Inputs;
use super::folder::{self, Folder, Summary};
use super::groups::groups;
use super::measure::{Measured, measure};
use super::step::{Begun, Stepped};
use super::{Event, Prepared, Started, Step, learning_rate, nonfinite, sample, text};
use crate::Error;
use crate::plugins;

/// A run stops after this many steps in a row that are not finite.
const PATIENCE: u64 = 5;

/// |W - W0| / |W0| beyond which a memory is said to grow: those that live stay below it.
const MOST_GROWTH: f64 = 4.0;

/// Story windows that the n-gram baselines are counted on.
const BASELINE_WINDOWS: usize = 4000;

/// How a run ended.
pub enum Finished {
    Complete {
        folder: PathBuf,
        summary: Box<Summary>,
        evaluation: Box<Evaluation>,
        sample: Option<(String, String)>,
        /// Names of evals that failed, and why.
        failed: Vec<(String, Error)>,
    },
    /// Stopped by the user; saved at `step`.
    Stopped { folder: PathBuf, step: u64 },
}

struct Run<'p, 'r> {
    prepared: &'p mut Prepared<'r>,
    folder: Folder,
    progress: Progress,
    validation: Vec<Window>,
    /// Time of steps after the first, evaluation and saving excluded, and their number.
    steady: (f64, u64),
    bad_in_a_row: u64,
    /// The step that the device works on while an earlier one is recorded, with its learning rate.
    ahead: Option<(Begun, f64)>,
    /// Since when the step is computed that is recorded next.
    since: Instant,
    /// Memories that a warning was given for.
    grown: BTreeSet<String>,
}

/// Trains to the end, or until `stop` is set. `out` names a new folder, or the folder to go on in.
pub fn train(
    mut prepared: Prepared<'_>,
    out: Option<&Path>,
    stop: &AtomicBool,
    started: Instant,
    tell: &mut dyn FnMut(Event),
) -> Result<Finished, Error> {
    let settings = prepared.resolved.settings.clone();
    let validation = text::validation(&prepared.dataset, prepared.shape, settings.train.eval_windows)?;
    let data = prepared.dataset.describe();
    let digest = prepared.machine.facts.plan_digest.clone();
    let (folder, progress) = match (&prepared.progress, out) {
        (Some(progress), Some(path)) => (Folder::reopen(path, progress.step)?, progress.clone()),
        _ => {
            let groups = groups(&prepared.resolved, &prepared.programs.banks);
            let data_hash = prepared.dataset.content_hash();
            let facts = folder::facts(&prepared.resolved, &groups, &data, data_hash, &digest);
            let progress = Progress {
                step: 0,
                schedule_steps: settings.train.steps,
                init_loss: None,
                skipped_steps: 0,
                seconds: 0.0,
                state_sha256: String::new(),
                plan_digest: digest.clone(),
            };
            (Folder::create(out, &prepared.resolved, &facts)?, progress)
        }
    };
    let mut run = Run {
        prepared: &mut prepared,
        folder,
        progress,
        validation,
        steady: (0.0, 0),
        bad_in_a_row: 0,
        ahead: None,
        since: Instant::now(),
        grown: BTreeSet::new(),
    };
    tell(Event::Started(Box::new(run.describe(&data, started))));
    if run.progress.plan_digest != digest {
        run.progress.plan_digest = digest;
        let text = "the plans are not those of the run's earlier part, since a plugin, the host or the device \
                    changed: from here on losses may differ in their last bits";
        tell(Event::Warning(text.into()));
    }
    let calls = run.steps(stop, started, tell)?;
    run.save(tell)?;
    if run.progress.step < settings.train.steps {
        return Ok(Finished::Stopped { folder: run.folder.path, step: run.progress.step });
    }
    run.finish(calls, stop, tell)
}

impl Run<'_, '_> {
    fn describe(&self, data: &str, started: Instant) -> Started {
        let Prepared { resolved, programs, machine, shape, .. } = &*self.prepared;
        Started {
            folder: self.folder.path.clone(),
            model: resolved.model.component.name(),
            attention: resolved.attention.component.name(),
            optimizer: resolved.optimizer.component.name(),
            data: data.into(),
            device: machine.facts.device.clone(),
            threads: machine.facts.threads,
            parameters: programs.banks.elements(),
            groups: groups(resolved, &programs.banks),
            arena_bytes: machine.facts.arena_bytes,
            live_bytes: machine.facts.live_bytes,
            state_bytes: machine.facts.state_bytes,
            peak: machine.facts.peak.clone(),
            launches: machine.facts.launches,
            first_step: self.progress.step,
            steps: resolved.settings.train.steps,
            tokens_per_step: shape.batch * shape.window * shape.accumulate,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    /// All remaining steps. Returns how often plugin code was called between the second step and the last.
    fn steps(
        &mut self,
        stop: &AtomicBool,
        started: Instant,
        tell: &mut dyn FnMut(Event),
    ) -> Result<u64, Error> {
        let train = self.prepared.resolved.settings.train.clone();
        let (before, first) = (self.progress.seconds, self.progress.step);
        let mut calls = plugins::calls();
        let mut next = first;
        while next < train.steps && !stop.load(Ordering::Relaxed) {
            if next == first + 1 {
                calls = plugins::calls();
            }
            if self.ahead.is_none() {
                self.since = Instant::now();
            }
            let lr = learning_rate(&train, next, self.progress.schedule_steps);
            let begun = self.prepared.begin_step(next, lr, None);
            // What came before is on record even if this step could not begin.
            self.record(first, tell)?;
            self.ahead = Some((begun?, lr));
            next += 1;
            let due = |every: u64| every > 0 && next.is_multiple_of(every) && next < train.steps;
            // State is looked at when the step that made it is on record; so it is after one that was skipped.
            let is_looked_at = due(train.eval_every) || due(train.save_every) || self.bad_in_a_row > 0;
            if is_looked_at || self.ahead.as_ref().is_some_and(|(begun, _)| begun.is_over()) {
                self.record(first, tell)?;
            }
            self.progress.seconds = before + started.elapsed().as_secs_f64();
            if due(train.eval_every) {
                let evaluation = self.evaluate()?;
                let answers = evaluation.answers.first().map(|all| all.accuracy);
                tell(Event::Evaluated { step: next, bits_per_byte: evaluation.bits_per_byte, answers });
            }
            if due(train.save_every) {
                self.save(tell)?;
            }
        }
        self.record(first, tell)?;
        self.progress.seconds = before + started.elapsed().as_secs_f64();
        Ok(plugins::calls() - calls)
    }

    /// Waits for the step that is ahead, if one is, and puts it on record. `first` is where this process began.
    fn record(&mut self, first: u64, tell: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let Some((begun, lr)) = self.ahead.take() else { return Ok(()) };
        let metrics = self.step(begun, lr)?;
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        if self.progress.step > first + 1 {
            self.steady = (self.steady.0 + seconds, self.steady.1 + 1);
        }
        let train = &self.prepared.resolved.settings.train;
        let tokens = (train.batch * train.window * train.accumulate) as f64;
        let number = |key: &str| metrics.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let pace = if self.steady.1 > 0 { self.steady.0 / self.steady.1 as f64 } else { seconds };
        tell(Event::Step(Step {
            step: self.progress.step,
            steps: train.steps,
            loss: number("loss"),
            lr,
            grad_norm: number("grad_norm"),
            tokens_per_second: tokens / pace,
            seconds_left: pace * (train.steps - self.progress.step) as f64,
        }));
        self.folder.metrics(&metrics)?;
        self.watch_growth(&metrics, tell);
        Ok(())
    }

    /// Warns of memories that have moved far from their start, once for each.
    fn watch_growth(&mut self, metrics: &Map<String, Value>, tell: &mut dyn FnMut(Event)) {
        for (name, value) in metrics {
            let Some(memory) = name.strip_suffix(plugin_api::GROWTH) else { continue };
            let ratio = value.as_f64().unwrap_or(f64::INFINITY);
            if ratio > MOST_GROWTH && self.grown.insert(memory.to_string()) {
                tell(Event::Warning(format!(
                    "memory {memory} has moved {ratio:.1} times its own length from where it starts (step {}): its \
                     writes may grow without bound; lower their rate or let it forget",
                    self.progress.step
                )));
            }
        }
    }

    /// The end of an optimizer step: its metrics.
    fn step(&mut self, begun: Begun, lr: f64) -> Result<Map<String, Value>, Error> {
        let step = self.progress.step;
        let Stepped { loss, outputs, last, micro_batch } = self.prepared.finish_step(begun)?;
        let mut metrics = Map::new();
        metrics.insert("step".into(), (step + 1).into());
        for (name, value) in outputs {
            metrics.insert(name, f64::from(value[0]).into());
        }
        metrics.insert("loss".into(), loss.into());
        metrics.insert("lr".into(), lr.into());
        if step == 0 {
            self.progress.init_loss = Some(loss);
        }
        self.progress.step += 1;
        let norm = metrics.get("grad_norm").and_then(Value::as_f64).unwrap_or(f64::NAN);
        if loss.is_finite() && norm.is_finite() {
            self.bad_in_a_row = 0;
            return Ok(metrics);
        }
        metrics.insert("skipped".into(), true.into());
        self.progress.skipped_steps += 1;
        self.bad_in_a_row += 1;
        if self.bad_in_a_row < PATIENCE {
            return Ok(metrics);
        }
        let name = self.prepared.micro_plan();
        let Prepared { resolved, programs, machine, .. } = &mut *self.prepared;
        let (seed, scalars) = (resolved.settings.seed, &programs.scalars);
        let inputs = Inputs { reading: &last, scalars, lr, step, seed, micro_batch };
        let bad = match programs.find(name) {
            Some(program) => nonfinite::first_bad(&program.graph, machine, |name| inputs.feed(name))?,
            None => "unknown".into(),
        };
        self.folder.metrics(&metrics)?;
        Err(Error::said(format!(
            "the loss or its gradient was not finite in {PATIENCE} steps in a row ({} to {}), none of which was applied: \
             the first bad tensor is {bad}; lower train.lr, or look at metrics.jsonl in {}",
            step + 2 - PATIENCE,
            step + 1,
            self.folder.path.display()
        )))
    }

    fn save(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let Prepared { programs, machine, .. } = &*self.prepared;
        let path = checkpoint::save(&self.folder.path, programs, machine, &self.progress)?;
        tell(Event::Saved { step: self.progress.step, path });
        Ok(())
    }

    fn evaluate(&mut self) -> Result<Evaluation, Error> {
        let Prepared { machine, shape, .. } = &mut *self.prepared;
        evaluate(machine, *shape, &self.validation, self.progress.step)
    }

    /// Evaluation, baselines, sample, summary and evals of a complete run.
    fn finish(
        mut self,
        calls: u64,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Finished, Error> {
        self.prepared.progress = Some(self.progress.clone());
        let evaluation = self.evaluate()?;
        let Baselines { unigram, bigram } =
            baselines(&self.prepared.dataset, &self.validation, BASELINE_WINDOWS)?;
        let sample = self.sample()?;
        let Prepared { programs, machine, shape, .. } = &*self.prepared;
        let tokens = (shape.batch * shape.window * shape.accumulate) as f64;
        let mut summary = Summary {
            val_loss: evaluation.loss,
            val_bits_per_byte: evaluation.bits_per_byte,
            val_bits_per_byte_interval: evaluation.interval,
            floor_bits_per_byte: story_floor(&self.validation).map(|floor| floor.floor),
            init_loss: self.progress.init_loss,
            steps: self.progress.step,
            skipped_steps: self.progress.skipped_steps,
            tokens_per_second: tokens * self.steady.1 as f64 / self.steady.0.max(1e-9),
            arena_bytes: machine.facts.arena_bytes,
            peak_rss_bytes: crate::resources::peak_rss_bytes(),
            plan_digest: machine.facts.plan_digest.clone(),
            device: machine.facts.device.clone(),
            threads: machine.facts.threads,
            seconds: self.progress.seconds,
            params: programs.banks.elements(),
            unigram_bits_per_byte: unigram,
            bigram_bits_per_byte: bigram,
            plugin_calls_while_training: calls,
            tags: evaluation.tags.clone(),
            answers: evaluation.answers.clone(),
            evals: Vec::new(),
        };
        // Before the evals, which are others' code: whatever they do, the run is recorded.
        self.folder.summary(&summary)?;
        if let Some((prompt, text)) = &sample {
            self.folder.text("sample.txt", &format!("{prompt}{text}\n"))?;
        }
        let Measured { outcomes, failed } = measure(self.prepared, &self.folder.path, stop, tell)?;
        if !outcomes.is_empty() {
            summary.evals = outcomes;
            self.folder.summary(&summary)?;
        }
        let (summary, evaluation) = (Box::new(summary), Box::new(evaluation));
        Ok(Finished::Complete { folder: self.folder.path, summary, evaluation, sample, failed })
    }

    /// (prompt, continuation)
    fn sample(&mut self) -> Result<Option<(String, String)>, Error> {
        let settings = self.prepared.resolved.settings.clone();
        if settings.sample.tokens == 0 {
            return Ok(None);
        }
        let tokenizer = self.prepared.dataset.tokenizer().clone();
        let prompt = if settings.sample.prompt.is_empty() {
            const WORDS: usize = 24;
            self.validation[0].tokens.iter().copied().take(WORDS).collect()
        } else {
            tokenizer.encode(&settings.sample.prompt)?
        };
        let parameters = self.prepared.parameters()?;
        let mut session = self.prepared.trained(&parameters).session(1)?;
        let text = sample::generate(&mut session, &tokenizer, &prompt, &settings.sample, settings.seed)?;
        Ok(Some((tokenizer.decode(&prompt), text)))
    }
}
