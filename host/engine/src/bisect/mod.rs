//! `host bisect`: one step of a run, node by node against the f64 interpreter, to find the first node that is wrong.
//!
//! The run is replayed from its newest checkpoint before the step. Then each plan of the step is compared from the
//! State and inputs it had: what the device makes of a node is measured against what the interpreter makes of the
//! device's own operands, so that an op is blamed for its own error and not for what rounding brought to it.

mod compare;
mod report;

use std::collections::BTreeMap;
use std::path::Path;

use crate::Error;
use crate::config::DeviceName;
use crate::machine::Machine;
use crate::plugins::Registry;
use crate::run::{Inputs, Prepared, Reading, last_step, learning_rate, prepare_at, training};
use crate::trace::Scalar;
use compare::{Given, compare};

pub use report::{Finding, Operand, Report};

/// What an op may differ by: a thousand roundings of f32. A sound one stays below a hundredth of it.
pub const TOLERANCE: f64 = 1e-4;

/// Compares `step` (counted from 1, as in the metrics) of the run in `folder`.
pub fn bisect(folder: &Path, step: u64, tolerance: f64, registry: &Registry) -> Result<Report, Error> {
    if step == 0 {
        return Err(Error::said("steps are counted from 1, as in metrics.jsonl"));
    }
    let mut prepared = prepare_at(folder, step - 1, registry)?;
    // The step after the last one may be the one that never ended.
    let known = last_step(folder);
    if step > known + 1 {
        let folder = folder.display();
        return Err(Error::said(format!("{folder} has made {known} steps; choose one up to {}", known + 1)));
    }
    if prepared.resolved.settings.device == DeviceName::Interpreter {
        return Err(Error::said("the run was made by the interpreter itself: there is no device to compare"));
    }
    let from = prepared.progress.as_ref().map_or(0, |progress| progress.step);
    for done in from..step - 1 {
        for launch in launches(&prepared, done)? {
            launch.run(&mut prepared)?;
        }
    }
    let mut report = Report::new(step, from, tolerance);
    for launch in launches(&prepared, step - 1)? {
        launch.compare(&prepared, &mut report)?;
        if report.found.is_some() {
            break;
        }
        launch.run(&mut prepared)?;
    }
    Ok(report)
}

/// One replay of a plan within a step.
struct Launch {
    plan: &'static str,
    reading: Reading,
    lr: f64,
    /// Steps done before.
    step: u64,
    seed: u64,
    /// Counted from 0 through all steps; that of the last one where a plan reads no batch.
    micro_batch: u64,
}

/// What a step replays: `step`, or `accumulate` for each micro-batch and `apply`.
fn launches(prepared: &Prepared<'_>, step: u64) -> Result<Vec<Launch>, Error> {
    let Prepared { resolved, dataset, programs, shape, progress, .. } = prepared;
    let (seed, train) = (resolved.settings.seed, &resolved.settings.train);
    let total = progress.as_ref().map_or(train.steps, |progress| progress.schedule_steps);
    let lr = learning_rate(train, step, total);
    let micro = if shape.accumulate == 1 { "step" } else { "accumulate" };
    let mut launches = Vec::new();
    let mut micro_batch = 0;
    for index in 0..shape.accumulate as u64 {
        micro_batch = step * shape.accumulate as u64 + index;
        let reading = training(dataset, *shape, seed, micro_batch)?;
        launches.push(Launch { plan: micro, reading, lr, step, seed, micro_batch });
    }
    if programs.find("apply").is_some() {
        let reading = Reading::nothing();
        launches.push(Launch { plan: "apply", reading, lr, step, seed, micro_batch });
    }
    Ok(launches)
}

impl Launch {
    fn run(&self, prepared: &mut Prepared<'_>) -> Result<(), Error> {
        let Prepared { programs, machine, .. } = prepared;
        let plan = machine.plan(self.plan).ok_or_else(|| self.missing())?;
        let inputs = self.inputs(&programs.scalars);
        machine.run(plan, |name| inputs.feed(name))?;
        Ok(())
    }

    fn compare(&self, prepared: &Prepared<'_>, report: &mut Report) -> Result<(), Error> {
        let Prepared { programs, machine, resolved, .. } = prepared;
        let program = programs.find(self.plan).ok_or_else(|| self.missing())?;
        let states = program.graph.states.iter().map(|decl| machine.read_state(&decl.name));
        let inputs = self.inputs(&programs.scalars);
        let given = Given {
            plan: self.plan,
            graph: &compiler::straight(&program.graph, &device_cpu::Cpu::caps())?,
            states: states.collect::<Result<_, _>>()?,
            feed: &|name| inputs.feed(name),
            load: &|graph| {
                Machine::load(resolved.settings.device, resolved.settings.threads, &[("bisect", graph)])
            },
            banks: &programs.banks,
        };
        compare(&given, report)
    }

    fn inputs<'l>(&'l self, scalars: &'l BTreeMap<String, Scalar>) -> Inputs<'l> {
        let Launch { ref reading, lr, step, seed, micro_batch, .. } = *self;
        Inputs { reading, scalars, lr, step, seed, micro_batch }
    }

    fn missing(&self) -> Error {
        Error::said(format!("the run has no plan {}", self.plan))
    }
}
