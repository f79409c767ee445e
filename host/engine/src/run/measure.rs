//! Evals at the end of a run, on its final parameters. One that fails keeps neither the others nor the run from being
//! recorded.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Event, Prepared};
use crate::Error;
use crate::evals::{self, Outcome};

/// What the evals of a run came to.
#[derive(Default)]
pub struct Measured {
    pub outcomes: Vec<Outcome>,
    /// Names of those that failed, and why.
    pub failed: Vec<(String, Error)>,
}

/// Runs the evals of the configuration in its order, and writes each as soon as it is there.
pub fn measure(
    prepared: &Prepared<'_>,
    folder: &Path,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Event),
) -> Result<Measured, Error> {
    let mut measured = Measured::default();
    if prepared.resolved.evals.is_empty() {
        return Ok(measured);
    }
    let parameters = prepared.parameters()?;
    let trained = prepared.trained(&parameters);
    for (task, chosen) in prepared.resolved.settings.train.evals.iter().zip(&prepared.resolved.evals) {
        if stop.load(Ordering::Relaxed) {
            measured.failed.push((task.clone(), Error::said(format!("eval {task} was stopped"))));
            continue;
        }
        let mut tell = |progress| {
            tell(Event::Measuring { task: task.clone(), progress });
            !stop.load(Ordering::Relaxed)
        };
        let outcome = evals::measure(&trained, task, chosen, 0, &mut tell)
            .and_then(|outcome| evals::write(folder, &outcome).map(|()| outcome));
        match outcome {
            Ok(outcome) => measured.outcomes.push(outcome),
            Err(error) => measured.failed.push((task.clone(), error)),
        }
    }
    Ok(measured)
}
