//! Putting plugins and presets where the host looks for them: `plugins/` and `configs/` beside its binary, or
//! the same two folders under `lib/host/` of an installation.
//!
//! `plugins/manifest.json` names each library and its SHA-256. The host accepts what the manifest lists, and
//! xtask removes only what an earlier manifest listed: a library that someone put there by hand is not ours
//! to delete.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::files;

const MANIFEST: &str = "manifest.json";

/// The library of one plugin.
#[derive(Debug, PartialEq)]
pub struct Library {
    /// Name of the package, which is also its folder under plugins/.
    pub plugin: String,
    pub path: PathBuf,
}

/// A plugin as it lies in the plugin folder.
pub struct Plugin {
    pub name: String,
    pub file: String,
    pub sha256: String,
}

/// What to do with a preset in the target folder that configs/ does not have.
#[derive(PartialEq)]
pub enum Extra {
    Remove,
    Keep,
}

#[derive(Default, Serialize, Deserialize)]
struct Manifest {
    plugins: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    file: String,
    sha256: String,
}

/// Copies `libraries` into `folder`, removes what is no longer among them, and writes the manifest.
///
/// Libraries go first and the manifest last: whoever is interrupted in between leaves a manifest whose hashes
/// do not match, which the host refuses, and the next call repairs.
pub fn plugins(
    libraries: &[Library],
    folder: &Path,
    mut report: impl FnMut(&Plugin, bool) -> Result<()>,
) -> Result<Vec<Plugin>> {
    let mut staged = Vec::new();
    for library in libraries {
        let file = library.path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        let file = file.with_context(|| format!("cannot use the file name of {}", library.path.display()))?;
        let copied = files::copy(&library.path, &folder.join(&file))
            .with_context(|| format!("cannot stage plugin `{}`", library.plugin))?;
        let plugin = Plugin { name: library.plugin.clone(), file, sha256: copied.sha256 };
        report(&plugin, copied.changed)?;
        staged.push(plugin);
    }

    let entry = |plugin: &Plugin| Entry { file: plugin.file.clone(), sha256: plugin.sha256.clone() };
    let mut manifest = Manifest { plugins: staged.iter().map(entry).collect() };
    manifest.plugins.sort_by(|a, b| a.file.cmp(&b.file));
    let path = folder.join(MANIFEST);
    remove_gone(&previous(&path), &manifest, folder)?;
    let text = serde_json::to_string_pretty(&manifest).context("cannot write the plugin manifest as JSON")?;
    files::write(&path, format!("{text}\n").as_bytes(), None)?;
    Ok(staged)
}

/// A manifest that is absent or damaged lists nothing: it is about to be replaced, and nothing is removed on
/// its word.
fn previous(path: &Path) -> Manifest {
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn remove_gone(old: &Manifest, new: &Manifest, folder: &Path) -> Result<()> {
    let kept: BTreeSet<&str> = new.plugins.iter().map(|entry| entry.file.as_str()).collect();
    for Entry { file, .. } in &old.plugins {
        // Only a plain name: no manifest may lead out of the folder.
        let plain = Path::new(file).file_name() == Some(OsStr::new(file));
        if plain && !kept.contains(file.as_str()) {
            files::remove(&folder.join(file))?;
        }
    }
    Ok(())
}

/// Copies every preset (*.toml, in subfolders too) from `from` to `to`; returns how many there are.
pub fn configs(from: &Path, to: &Path, extra: Extra) -> Result<usize> {
    let presets = files::list(from, "toml")?;
    for preset in &presets {
        files::copy(&from.join(preset), &to.join(preset))?;
    }
    if extra == Extra::Remove {
        for staged in files::list(to, "toml")? {
            if presets.binary_search(&staged).is_err() {
                files::remove(&to.join(staged))?;
            }
        }
    }
    Ok(presets.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(folder: &Path, file: &str) -> Library {
        let path = folder.join(file);
        fs::write(&path, file).unwrap();
        Library { plugin: file.replace('_', "-"), path }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Stages and returns which libraries were copied.
    fn copied(libraries: &[Library], to: &Path) -> Vec<bool> {
        let mut copied = Vec::new();
        let report = |_: &Plugin, changed| {
            copied.push(changed);
            Ok(())
        };
        plugins(libraries, to, report).unwrap();
        copied
    }

    #[test]
    fn only_our_own_stale_libraries_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("plugins");
        let both = [library(folder.path(), "b.so"), library(folder.path(), "a.so")];
        assert_eq!(copied(&both, &to), [true, true]);
        let manifest = previous(&to.join(MANIFEST));
        let files: Vec<_> = manifest.plugins.iter().map(|entry| entry.file.as_str()).collect();
        assert_eq!(files, ["a.so", "b.so"]);

        fs::write(to.join("theirs.so"), "x").unwrap();
        assert_eq!(copied(&both[1..], &to), [false]);
        assert_eq!(names(&to), ["a.so", MANIFEST, "theirs.so"]);
    }

    #[test]
    fn a_manifest_cannot_remove_files_elsewhere_or_stop_a_build() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("plugins");
        let one = [library(folder.path(), "a.so")];
        fs::create_dir(&to).unwrap();
        fs::write(folder.path().join("mine"), "x").unwrap();
        for manifest in [r#"{"plugins":[{"file":"../mine","sha256":""}]}"#, "{", ""] {
            fs::write(to.join(MANIFEST), manifest).unwrap();
            plugins(&one, &to, |_, _| Ok(())).unwrap();
            assert!(folder.path().join("mine").exists());
            assert_eq!(previous(&to.join(MANIFEST)).plugins.len(), 1);
        }
    }

    #[test]
    fn presets_are_mirrored() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("data")).unwrap();
        fs::create_dir_all(&to).unwrap();
        for (path, text) in [
            ("from/tiny.toml", "1"),
            ("from/data/web.toml", "2"),
            ("from/notes.md", "3"),
            ("to/old.toml", "4"),
        ] {
            fs::write(folder.path().join(path), text).unwrap();
        }
        assert_eq!(configs(&from, &to, Extra::Keep).unwrap(), 2);
        assert_eq!(names(&to), ["data", "old.toml", "tiny.toml"]);
        configs(&from, &to, Extra::Remove).unwrap();
        assert_eq!(names(&to), ["data", "tiny.toml"]);
        assert_eq!(names(&to.join("data")), ["web.toml"]);
        assert_eq!(configs(&folder.path().join("none"), &to, Extra::Remove).unwrap(), 0);
    }
}
