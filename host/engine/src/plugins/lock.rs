//! `plugins.lock.toml`: the libraries that the user trusts, by the SHA-256 of their bytes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, files};

const HEAD: &str = "# Libraries that `host plugins trust` accepted, by the SHA-256 of their bytes.\n\n";

/// A trusted library.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub plugin: String,
    /// Where it lay when it was trusted. Its bytes are trusted wherever they lie.
    pub file: PathBuf,
    pub sha256: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    #[serde(default)]
    library: Vec<Entry>,
}

/// The entries of a lock file; none if there is no file.
pub fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(Error::file(path, "no plugin but the build's own can be used without it"))?,
    };
    let lock: Lock = toml::from_str(&text).map_err(|error| {
        let reason = error.message().lines().next().unwrap_or_default().to_string();
        Error::said(format!(
            "{}: {reason}; mend the file, or remove it and trust your plugins again",
            path.display()
        ))
    })?;
    Ok(lock.library)
}

/// Trusts a library. What was trusted at the same place before it is not trusted any more.
pub fn add(path: &Path, entry: Entry) -> Result<(), Error> {
    let mut library = read(path)?;
    library.retain(|old| old.file != entry.file && old.sha256 != entry.sha256);
    library.push(entry);
    library.sort_by(|a, b| (&a.plugin, &a.file).cmp(&(&b.plugin, &b.file)));
    write(path, library)
}

/// Trusts nothing of a plugin any more; returns what was trusted.
pub fn remove(path: &Path, plugin: &str) -> Result<Vec<Entry>, Error> {
    let (gone, left): (Vec<Entry>, Vec<Entry>) =
        read(path)?.into_iter().partition(|entry| entry.plugin == plugin);
    if !gone.is_empty() {
        write(path, left)?;
    }
    Ok(gone)
}

fn write(path: &Path, library: Vec<Entry>) -> Result<(), Error> {
    let text = toml::to_string_pretty(&Lock { library })
        .map_err(|error| Error::said(format!("{}: {error}", path.display())))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Error::file(folder, "nothing was trusted"))?;
    }
    // Beside its place by an absolute path: a bare file name has no folder.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    files::write_whole(&path, format!("{HEAD}{text}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(plugin: &str, file: &str, sha256: &str) -> Entry {
        Entry { plugin: plugin.into(), file: file.into(), sha256: sha256.into() }
    }

    #[test]
    fn trust_is_given_replaced_and_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("new/plugins.lock.toml");
        assert_eq!(read(path).unwrap(), []);
        let (b, old, new) = (entry("b", "/b.so", "1"), entry("a", "/a.so", "2"), entry("a", "/a.so", "3"));
        for each in [&b, &old, &new] {
            add(path, each.clone()).unwrap();
        }
        assert_eq!(read(path).unwrap(), [new.clone(), b.clone()]);
        assert_eq!(remove(path, "a").unwrap(), [new]);
        assert_eq!(remove(path, "a").unwrap(), []);
        assert_eq!(read(path).unwrap(), [b]);
    }

    #[test]
    fn a_damaged_file_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("plugins.lock.toml");
        for text in ["[[library]", "[[library]]\nplugin = 1", "[[libraries]]"] {
            std::fs::write(path, text).unwrap();
            let error = read(path).unwrap_err().to_string();
            assert!(
                error.contains("plugins.lock.toml") && error.contains("trust your plugins again"),
                "{error}"
            );
            assert!(add(path, entry("a", "/a.so", "1")).is_err());
            assert_eq!(std::fs::read_to_string(path).unwrap(), text);
        }
    }
}
