//! Which libraries may run: those of the build by its manifest, all others by the user's lock file. Both name bytes, by
//! their SHA-256; where a file lies and what it calls itself makes no difference.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use super::lock::{self, Entry};
use super::{PluginInfo, beside_executable, places};
use crate::Error;
use crate::files::sha256;

/// Why a library may run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accepted {
    /// The build's manifest lists it.
    Build,
    /// The user's lock file lists it.
    User,
    /// The program that looked for plugins vouches for its folders.
    Caller,
}

/// A library that may run: the bytes that were judged.
pub struct Judged {
    pub bytes: Vec<u8>,
    pub sha256: String,
    pub accepted: Accepted,
}

/// What a registry accepts.
pub struct Trust {
    /// Everything: the caller has chosen the folders.
    everything: bool,
    /// Folders with a manifest of the build.
    staged: Vec<PathBuf>,
    lock: Option<PathBuf>,
    known: OnceLock<Known>,
}

/// What manifests and lock file say, read when it is first asked.
#[derive(Default)]
struct Known {
    /// Hash of each staged library, by its path.
    manifest: HashMap<PathBuf, String>,
    locked: Vec<Entry>,
}

#[derive(Deserialize)]
struct Manifest {
    plugins: Vec<Staged>,
}

#[derive(Deserialize)]
struct Staged {
    file: String,
    sha256: String,
}

impl Trust {
    /// Libraries that were staged with the running program, and those that its user trusts. A manifest in any other
    /// folder means nothing: whoever can put a library there could write one.
    pub fn of_user() -> Trust {
        Trust::of(beside_executable("plugins"), places::lock_file())
    }

    /// Everything.
    pub fn everything() -> Trust {
        Trust { everything: true, ..Trust::of(Vec::new(), None) }
    }

    fn of(staged: Vec<PathBuf>, lock: Option<PathBuf>) -> Trust {
        Trust { everything: false, staged, lock, known: OnceLock::new() }
    }

    /// Reads and judges a library. A refusal is a sentence that says what to type.
    pub fn judge(&self, info: &PluginInfo) -> Result<Judged, Error> {
        let path = &info.path;
        let bytes = std::fs::read(path).map_err(Error::file(path, "the plugin cannot be used"))?;
        let sha256 = sha256(&bytes);
        if self.everything {
            return Ok(Judged { bytes, sha256, accepted: Accepted::Caller });
        }
        let known = self.known()?;
        if known.manifest.values().any(|hash| *hash == sha256) {
            return Ok(Judged { bytes, sha256, accepted: Accepted::Build });
        }
        if known.locked.iter().any(|entry| entry.sha256 == sha256) {
            return Ok(Judged { bytes, sha256, accepted: Accepted::User });
        }
        Err(refusal(info, known, &sha256))
    }

    fn known(&self) -> Result<&Known, Error> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let mut known = Known::default();
        for folder in &self.staged {
            known.manifest.extend(manifest(folder));
        }
        if let Some(path) = &self.lock {
            known.locked = lock::read(path)?;
        }
        Ok(self.known.get_or_init(|| known))
    }

    /// The lock file.
    pub fn lock(&self) -> Result<&Path, Error> {
        self.lock.as_deref().ok_or_else(|| {
            Error::said(format!(
                "there is no folder for the list of trusted plugins: this system names neither a home folder nor \
                 a configuration folder; name a file in {}",
                places::LOCK_VARIABLE
            ))
        })
    }

    /// Trusts a library as it is now; returns its hash. None of its code runs.
    pub fn add(&self, info: &PluginInfo) -> Result<String, Error> {
        let path = &info.path;
        let bytes = std::fs::read(path).map_err(Error::file(path, "nothing was trusted"))?;
        let entry = Entry { plugin: info.plugin.clone(), file: whole(path), sha256: sha256(&bytes) };
        lock::add(self.lock()?, entry.clone())?;
        Ok(entry.sha256)
    }

    /// Trusts a plugin no more; returns where its libraries lay.
    pub fn remove(&self, plugin: &str) -> Result<Vec<PathBuf>, Error> {
        Ok(lock::remove(self.lock()?, plugin)?.into_iter().map(|entry| entry.file).collect())
    }

    /// Names of the plugins that the lock file lists.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        Ok(lock::read(self.lock()?)?.into_iter().map(|entry| entry.plugin).collect())
    }
}

/// What a folder's manifest lists. One that is absent or damaged lists nothing: its libraries are nobody's.
fn manifest(folder: &Path) -> Vec<(PathBuf, String)> {
    let path = folder.join("manifest.json");
    let Ok(bytes) = std::fs::read(&path) else { return Vec::new() };
    match serde_json::from_slice::<Manifest>(&bytes) {
        Ok(manifest) => manifest
            .plugins
            .into_iter()
            .map(|staged| (whole(&folder.join(staged.file)), staged.sha256))
            .collect(),
        Err(error) => {
            tracing::warn!(
                "{} cannot be read ({error}); `cargo xtask build` writes it again",
                path.display()
            );
            Vec::new()
        }
    }
}

fn refusal(info: &PluginInfo, known: &Known, sha256: &str) -> Error {
    let path = whole(&info.path);
    let words = quoted(&info.path);
    let is = short(sha256);
    let trust = format!("`host plugins trust {words}`");
    let reason = if let Some(staged) = known.manifest.get(&path) {
        format!(
            "is not the library that the build staged (SHA-256 {}..., now {is}...); stage it again with \
             `cargo xtask build`, or accept it as it is with {trust}",
            short(staged)
        )
    } else if let Some(entry) = known.locked.iter().find(|entry| entry.file == path) {
        format!(
            "has changed since it was trusted (SHA-256 {}..., now {is}...); if that was you, type {trust}",
            short(&entry.sha256)
        )
    } else {
        format!(
            "is not trusted; `host plugins check {words}` opens it in a process of its own, {trust} accepts it"
        )
    };
    Error::said(format!("plugin {} ({}) {reason}", info.plugin, info.path.display()))
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// A path by which a file is known from every folder.
fn whole(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+=:@%\\".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(path: &Path) -> PluginInfo {
        let word = String::new;
        PluginInfo {
            path: path.to_path_buf(),
            plugin: "mine".into(),
            version: word(),
            api: word(),
            rustc: word(),
            target: word(),
            components: Vec::new(),
        }
    }

    #[test]
    fn bytes_are_trusted_not_places() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let trust = || Trust::of(vec![at("staged")], Some(at("plugins.lock.toml")));
        std::fs::create_dir(at("staged")).unwrap();
        let (ours, theirs) = (at("staged/ours.so"), at("it's theirs.so"));
        std::fs::write(&ours, "ours").unwrap();
        std::fs::write(&theirs, "theirs").unwrap();
        let manifest = format!(r#"{{"plugins":[{{"file":"ours.so","sha256":"{}"}}]}}"#, sha256(b"ours"));
        std::fs::write(at("staged/manifest.json"), manifest).unwrap();
        let judge = |path: &Path| trust().judge(&info(path)).map(|judged| judged.accepted);
        let refused = |path: &Path| judge(path).unwrap_err().to_string();

        assert_eq!(judge(&ours).unwrap(), Accepted::Build);
        let sentence = refused(&theirs);
        assert!(
            sentence.contains("is not trusted") && sentence.contains(r"it'\''s theirs.so'`"),
            "{sentence}"
        );
        trust().add(&info(&theirs)).unwrap();
        assert_eq!(judge(&theirs).unwrap(), Accepted::User);

        std::fs::copy(&theirs, at("copy.so")).unwrap();
        assert_eq!(judge(&at("copy.so")).unwrap(), Accepted::User);
        std::fs::write(&theirs, "other").unwrap();
        assert!(refused(&theirs).contains("has changed since it was trusted"), "{}", refused(&theirs));
        std::fs::write(&ours, "other").unwrap();
        assert!(refused(&ours).contains("`cargo xtask build`"), "{}", refused(&ours));

        trust().add(&info(&theirs)).unwrap();
        assert_eq!(judge(&ours).unwrap(), Accepted::User);
        assert_eq!(trust().remove("mine").unwrap(), [theirs.canonicalize().unwrap()]);
        assert!(judge(&theirs).is_err());
        assert_eq!(Trust::everything().judge(&info(&theirs)).unwrap().accepted, Accepted::Caller);
    }

    #[test]
    fn a_manifest_elsewhere_means_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs.so");
        std::fs::write(&theirs, "theirs").unwrap();
        let manifest = format!(r#"{{"plugins":[{{"file":"theirs.so","sha256":"{}"}}]}}"#, sha256(b"theirs"));
        std::fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        let trust = Trust::of(vec![folder.path().join("other")], None);
        assert!(trust.judge(&info(&theirs)).is_err());
        assert!(trust.add(&info(&theirs)).unwrap_err().to_string().contains(places::LOCK_VARIABLE));
    }
}
