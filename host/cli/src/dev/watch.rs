//! What of a crate's folder is watched: its files and those of its folders, but for what builds and runs write.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use engine::Error;
use notify::event::EventKind;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::Wake;

/// Names that are written while nobody edits: `host dev` would wake itself.
const OUTPUT: [&str; 3] = ["target", "runs", "Cargo.lock"];

/// A folder that is watched.
pub struct Watched {
    folder: PathBuf,
    watcher: RecommendedWatcher,
}

impl Watched {
    pub fn new(folder: &Path, sender: Sender<Wake>) -> Result<Watched, Error> {
        let folder = folder.canonicalize().map_err(|error| refused(folder, &error))?;
        let root = folder.clone();
        let tell = move |event: notify::Result<notify::Event>| {
            let is_change = event.is_ok_and(|event| {
                let kind =
                    matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
                kind && event.paths.iter().any(|path| is_source(&root, path))
            });
            if is_change {
                // Nobody listens only when the program ends anyway.
                let _ = sender.send(Wake::Changed);
            }
        };
        let watcher = notify::recommended_watcher(tell).map_err(|error| refused(&folder, &error))?;
        Ok(Watched { folder, watcher })
    }

    /// Watches folders that have come since, too. The folders of builds are left out: they hold thousands of others.
    pub fn look_again(&mut self) -> Result<(), Error> {
        let Watched { folder, watcher } = self;
        watcher.watch(folder, RecursiveMode::NonRecursive).map_err(|error| refused(folder, &error))?;
        let entries = std::fs::read_dir(&*folder).map_err(|error| refused(folder, &error))?;
        let paths = entries.flatten().map(|entry| entry.path());
        for path in paths.filter(|path| path.is_dir() && is_source(folder, path)) {
            watcher.watch(&path, RecursiveMode::Recursive).map_err(|error| refused(&path, &error))?;
        }
        Ok(())
    }
}

fn refused(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::said(format!(
        "{} cannot be watched ({error}); `host dev --once` builds and runs it",
        path.display()
    ))
}

/// Whether a path below the folder is one that an author writes.
fn is_source(folder: &Path, path: &Path) -> bool {
    let Some(first) = path.strip_prefix(folder).ok().and_then(|path| path.components().next()) else {
        return false;
    };
    let first = first.as_os_str().to_string_lossy();
    !first.starts_with('.') && !first.ends_with('~') && !OUTPUT.contains(&first.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builds_and_runs_write_is_no_change() {
        let is_source = |path: &str| is_source(Path::new("/crate"), Path::new(path));
        for path in ["/crate/src/lib.rs", "/crate/Cargo.toml", "/crate/build.rs", "/crate/src/target/x.rs"] {
            assert!(is_source(path), "{path}");
        }
        for path in
            ["/crate", "/crate/target", "/crate/target/release/x", "/crate/Cargo.lock", "/crate/.git/x"]
        {
            assert!(!is_source(path), "{path}");
        }
        assert!(!is_source("/crate/runs/a-001/metrics.jsonl") && !is_source("/other/src/lib.rs"));
    }
}
