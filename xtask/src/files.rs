//! Putting one file in place so that nobody ever sees half of it, and only when it differs.
//!
//! A new file is written beside the old one and renamed over it. A host that runs keeps the file it has
//! mapped, and macOS, which remembers code signatures per file, sees a new file rather than a changed one.

use std::fs::{self, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// What `copy` found.
pub struct Copied {
    /// SHA-256 of the content, in lower-case hexadecimal digits.
    pub sha256: String,
    /// False when the target already had this content.
    pub changed: bool,
}

/// Copies content and permissions of `from` to `to`, and makes the folder of `to` if needed.
pub fn copy(from: &Path, to: &Path) -> Result<Copied> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let permissions =
        fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?.permissions();
    let changed = write(to, &content, Some(permissions))?;
    Ok(Copied { sha256: hexadecimal(&Sha256::digest(&content)), changed })
}

/// Makes `content` the content of `to`; false when it already was.
pub fn write(to: &Path, content: &[u8], permissions: Option<Permissions>) -> Result<bool> {
    if fs::read(to).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let partial = partial_name(to);
    let written = fs::write(&partial, content)
        .and_then(|()| permissions.map_or(Ok(()), |permissions| fs::set_permissions(&partial, permissions)))
        .and_then(|()| fs::rename(&partial, to));
    written
        .inspect_err(|_| {
            // The first error is the one to report; a partial file that cannot be removed either harms
            // nobody.
            let _ = fs::remove_file(&partial);
        })
        .with_context(|| {
            format!(
                "cannot write {} (is the disk full, the folder read-only, or a host running?)",
                to.display()
            )
        })?;
    Ok(true)
}

/// Removes a file; one that is already gone is no error.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Every file under `folder` with this extension, as sorted paths relative to it; none if there is no such
/// folder.
pub fn list(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let here = folder.join(&relative);
        let entries = match fs::read_dir(&here) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot list {}", here.display()))?,
        };
        for entry in entries {
            let name = entry.with_context(|| format!("cannot list {}", here.display()))?.file_name();
            let path = relative.join(name);
            if folder.join(&path).is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The name carries the process id so that two builds at once do not write into each other's file.
fn partial_name(to: &Path) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    to.with_file_name(format!(".{name}.partial-{}", std::process::id()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_made_once_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("new/b"));
        fs::write(&from, "abc").unwrap();
        let first = copy(&from, &to).unwrap();
        assert_eq!(first.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(first.changed && !copy(&from, &to).unwrap().changed);
        fs::write(&from, "abd").unwrap();
        assert!(copy(&from, &to).unwrap().changed);
        assert_eq!(fs::read(&to).unwrap(), b"abd");
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_copied_program_can_be_run() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&from, "").unwrap();
        fs::set_permissions(&from, Permissions::from_mode(0o755)).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_target_that_cannot_be_written_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("taken");
        fs::create_dir_all(to.join("inside")).unwrap();
        let error = write(&to, b"x", None).unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
