//! Opening a library in a process of its own, to see whether it can be: one that exits, crashes or never comes back
//! takes that process with it and becomes a sentence. It is no cage: what the library does, it does as the user.
//!
//! The child says what it is about to do before it does it, in a file, since standard output is the library's too.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plugin_api::abi::kind;
use serde::{Deserialize, Serialize};

use super::{Library, PluginInfo, copies, metadata};
use crate::Error;
use crate::files::sha256;

/// Longest text of a library's own that is passed on.
const MOST_SAID: usize = 200;

/// One line of the child's report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Doing(String),
    Holds(Held),
    Refused(String),
    Done,
}

/// A component that the library holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Held {
    pub kind: String,
    pub name: String,
    /// How many options it has.
    pub options: usize,
}

/// What a library that can be opened holds.
pub struct Checked {
    pub info: PluginInfo,
    pub components: Vec<Held>,
}

/// Opens the library in the child that `command` makes, given the path of the report, for at most `limit`.
pub fn check(
    path: &Path,
    limit: Duration,
    command: impl FnOnce(&Path) -> Result<Command, Error>,
) -> Result<Checked, Error> {
    let refuse = |reason: String| Error::said(format!("{} {reason}", path.display()));
    let info = metadata::read(path).map_err(&refuse)?;
    let hint = "nothing was checked; look at the system's folder for temporary files";
    let folder = tempfile::tempdir().map_err(Error::file(&std::env::temp_dir(), hint))?;
    let [report, said] = ["report", "said"].map(|name| folder.path().join(name));
    let errors = File::create(&said).map_err(Error::file(&said, hint))?;
    // In a folder that goes away, as a crash may leave a dump.
    let mut child = command(&report)?;
    child.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let mut child =
        child.spawn().map_err(|error| refuse(format!("was not checked: no process for it ({error})")))?;
    let ended = wait(&mut child, limit)
        .map_err(|error| refuse(format!("was not checked: its process was lost ({error})")))?;

    let (mut doing, mut components, mut done) = ("started".to_string(), Vec::new(), false);
    let text = std::fs::read(&report).unwrap_or_default();
    // The last line may be half written.
    for line in String::from_utf8_lossy(&text).lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match line {
            Line::Doing(what) => doing = what,
            Line::Holds(held) => components.push(held),
            Line::Refused(reason) => return Err(Error::said(reason)),
            Line::Done => done = true,
        }
    }
    let how = match ended {
        None => format!("did not come back within {} s", limit.as_secs_f64()),
        Some(status) if status.success() && done => return Ok(Checked { info, components }),
        Some(status) => fate(status),
    };
    Err(refuse(format!("{how} while it was {doing}{}", last_words(&said))))
}

/// Opens the library here and reports it. For the child of [`check`] alone.
pub fn inspect(path: &Path, report: &Path) -> Result<(), Error> {
    let hint = "the check has no place for its report";
    let mut file = File::create(report).map_err(Error::file(report, hint))?;
    let mut say = |line: Line| {
        let text = serde_json::to_string(&line).map_err(|error| Error::said(error.to_string()))?;
        writeln!(file, "{text}").map_err(Error::file(report, hint))
    };
    match examine(path, &mut say) {
        Err(error) => say(Line::Refused(error.to_string()))?,
        Ok(()) => say(Line::Doing("closed, its results already in".into()))?,
    }
    say(Line::Done)
}

fn examine(path: &Path, say: &mut dyn FnMut(Line) -> Result<(), Error>) -> Result<(), Error> {
    let info = metadata::read(path).map_err(|reason| Error::said(format!("{} {reason}", path.display())))?;
    let bytes = std::fs::read(path).map_err(Error::file(path, "nothing was checked"))?;
    let copy = copies::private(&bytes, &sha256(&bytes))
        .map_err(Error::file(path, "no copy of it could be made; check free space"))?;
    say(Line::Doing("opened".into()))?;
    let library = Library::open(&info, &copy.path)?;
    say(Line::Doing("asked for its components".into()))?;
    let mut held = Vec::new();
    for component in library.components() {
        let kind = kind::NAMES.get(usize::from(component.kind())).copied().unwrap_or("component").to_string();
        let name = component.name();
        say(Line::Doing(format!("asked for the options of {kind} {name}")))?;
        let schema = component.schema()?;
        component.resolve(&serde_json::json!({}))?;
        let options = schema["properties"].as_object().map_or(0, serde_json::Map::len);
        held.push((kind.clone(), name.clone()));
        say(Line::Holds(Held { kind, name, options }))?;
    }
    let gone = |component: &&super::ComponentInfo| {
        !held.iter().any(|(kind, name)| *kind == component.kind && *name == component.name)
    };
    info.components.iter().find(gone).map_or(Ok(()), |component| {
        Err(Error::said(format!(
            "plugin {} ({}) announces {} {} but does not have it; rebuild it",
            info.plugin,
            path.display(),
            component.kind,
            component.name
        )))
    })
}

/// How the child ended; None if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    // A limit beyond the end of time is none.
    let until = Instant::now().checked_add(limit);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn fate(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let what = match signal {
            4 => "illegal instruction",
            6 => "abort",
            7 | 10 => "bus error",
            8 => "arithmetic fault",
            9 => "killed",
            11 => "segmentation fault",
            _ => "signal",
        };
        return format!("crashed ({what}, signal {signal})");
    }
    match status.code() {
        Some(code) => format!("ended its process with exit code {code}"),
        None => "crashed".into(),
    }
}

/// The last line that the child wrote to standard error.
fn last_words(said: &Path) -> String {
    let text = std::fs::read(said).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let Some(line) = text.lines().rfind(|line| !line.trim().is_empty()) else { return String::new() };
    let line: String = line.trim().chars().filter(|letter| !letter.is_control()).take(MOST_SAID).collect();
    format!("; it said: {line}")
}
