//! `host run`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::Error;
use engine::plugins::Registry;
use engine::run::{Finished, prepare, prepare_resume, refuse_existing, train};

use crate::arguments::RunArguments;
use crate::{output, report};

/// Exit code of a run that the user stopped.
pub const INTERRUPTED: u8 = 130;

pub fn run(arguments: RunArguments) -> Result<ExitCode, Error> {
    let started = Instant::now();
    let RunArguments { config, out, resume, quiet } = arguments;
    let registry = Registry::discover();
    let request = config.request();
    // Before the work, not only when the folder is made.
    out.as_deref().map_or(Ok(()), refuse_existing)?;
    let prepared = match &resume {
        Some(folder) => prepare_resume(folder, &request, &registry)?,
        None => prepare(&request, &registry)?,
    };
    let stop = stop_on_interrupt()?;
    let mut progress = report::Progress::new(quiet);
    let folder = resume.as_deref().or(out.as_deref());
    let finished = train(prepared, folder, &stop, started, &mut |event| progress.tell(&event))?;
    match finished {
        Finished::Complete { folder, summary, evaluation, sample, failed } => {
            report::complete(&folder, &summary, &evaluation, sample.as_ref());
            unmeasured(&folder, &failed).map_or(Ok(ExitCode::SUCCESS), Err)
        }
        Finished::Stopped { folder, step } => {
            report::stopped(&folder, step);
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// What a run ends with whose evals failed: the run itself is whole.
fn unmeasured(folder: &Path, failed: &[(String, Error)]) -> Option<Error> {
    let (_, first) = failed.first()?;
    let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
    let others = if names.len() > 1 { format!(" ({} more failed)", names.len() - 1) } else { String::new() };
    Some(Error::said(format!(
        "{first}{others}; the run is whole, measure it again with `host eval {} --task {}`",
        folder.display(),
        names.join(",")
    )))
}

/// Set by the first Ctrl-C; a second one ends the program at once.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        output::note("\nstopping after this step; once more ends at once");
    };
    ctrlc::set_handler(handler).map_err(|error| Error::said(format!("Ctrl-C cannot be handled: {error}")))?;
    Ok(stop)
}
