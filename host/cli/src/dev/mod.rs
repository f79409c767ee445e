//! `host dev`: builds a plugin crate, trusts what was built, runs the host with it, and again after each change.
//!
//! Cargo and the run are processes of their own. A change waits for cargo, whose compilers would write to one file twice,
//! and ends a run; Ctrl-C ends all.

mod build;
mod trial;
mod watch;

use std::path::Path;
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use engine::Error;

use crate::output;
use crate::run::INTERRUPTED;
use watch::Watched;

/// What the loop wakes up for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wake {
    Changed,
    Interrupted,
}

/// How a process, or all of a round, came to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    Exited(ExitStatus),
    Changed,
    Interrupted,
}

/// How often a process is looked at.
const GLANCE: Duration = Duration::from_millis(30);
/// A change is over when nothing has changed for so long: editors write files in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// What a process is given to end by itself after Ctrl-C, which a terminal sends to it too.
const GRACE: Duration = Duration::from_secs(3);

pub fn run(folder: &Path, once: bool, arguments: &[String]) -> Result<ExitCode, Error> {
    build::check(folder)?;
    let (sender, wakes) = mpsc::channel();
    on_interrupt(sender.clone())?;
    let interrupted = Ok(ExitCode::from(INTERRUPTED));
    if once {
        return match round(folder, arguments, &wakes)? {
            End::Exited(status) => Ok(code(status)),
            End::Changed | End::Interrupted => interrupted,
        };
    }
    let mut watched = Watched::new(folder, sender)?;
    loop {
        watched.look_again()?;
        let mut has_changed = false;
        match round(folder, arguments, &wakes) {
            Ok(End::Interrupted) => return interrupted,
            Ok(End::Changed) => has_changed = true,
            Ok(End::Exited(status)) if status.success() => {}
            Ok(End::Exited(status)) => output::note(&format!("the run ended with {status}")),
            Err(error) => output::note(&format!("error: {error}")),
        }
        if !has_changed {
            output::note(&format!("waiting for a change in {}; Ctrl-C ends", folder.display()));
        }
        if (!has_changed && wakes.recv() != Ok(Wake::Changed)) || !settles(&wakes) {
            return interrupted;
        }
    }
}

/// Builds, trusts and runs once.
fn round(folder: &Path, arguments: &[String], wakes: &Receiver<Wake>) -> Result<End, Error> {
    let (built, end) = build::build(folder, |cargo| follow(cargo, wakes, false))?;
    let Some(library) = built else { return Ok(end) };
    let mut run = trial::start(&library, arguments)?;
    follow(&mut run, wakes, true)
}

/// Waits for a process. A change ends it where `yields` says so; else it is told when the process has ended.
fn follow(child: &mut Child, wakes: &Receiver<Wake>, yields: bool) -> Result<End, Error> {
    let lost = |error: std::io::Error| Error::said(format!("a process that was started is lost: {error}"));
    let (mut has_changed, mut deadline) = (false, None);
    loop {
        if let Some(status) = child.try_wait().map_err(lost)? {
            return Ok(match (deadline, has_changed) {
                (Some(_), _) => End::Interrupted,
                (None, true) => End::Changed,
                (None, false) => End::Exited(status),
            });
        }
        match wakes.recv_timeout(GLANCE) {
            Ok(Wake::Changed) => has_changed = true,
            Ok(Wake::Interrupted) => deadline = deadline.or(Some(Instant::now() + GRACE)),
            Err(RecvTimeoutError::Timeout) => {}
            // The handler of Ctrl-C keeps its end for as long as this program runs.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(GLANCE),
        }
        if (yields && has_changed) || deadline.is_some_and(|deadline| Instant::now() > deadline) {
            // It may have ended by itself just now.
            let _ = child.kill();
            child.wait().map_err(lost)?;
        }
    }
}

/// Waits until nothing changes any more; false where the user has had enough.
fn settles(wakes: &Receiver<Wake>) -> bool {
    loop {
        match wakes.recv_timeout(QUIET) {
            Ok(Wake::Changed) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Wake::Interrupted) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

fn on_interrupt(sender: Sender<Wake>) -> Result<(), Error> {
    // Nobody listens only when the program ends anyway.
    let handler = move || {
        let _ = sender.send(Wake::Interrupted);
    };
    ctrlc::set_handler(handler).map_err(|error| Error::said(format!("Ctrl-C cannot be handled: {error}")))
}

/// The run's own exit code; failure where a signal ended it.
fn code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
