//! Private copies of libraries, named by their SHA-256. What is mapped must not change: a plugin that is rebuilt while
//! a run uses it overwrites its own file and never the copy, and what was judged is what is opened.

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::places;

/// Copies that no host has used for so long are removed when another is made.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// A copy to open. Where it could not be kept in the user's folder, it goes away with this value; a system that can
/// remove an open file leaves it mapped.
pub struct Copy {
    pub path: PathBuf,
    _temporary: Option<TempDir>,
}

/// A file with these bytes that only the user can write. `sha256` is theirs.
pub fn private(bytes: &[u8], sha256: &str) -> Result<Copy> {
    let name = format!("{sha256}.{}", std::env::consts::DLL_EXTENSION);
    if let Some(folder) = places::copies() {
        match keep(&folder, &name, bytes) {
            Ok(path) => return Ok(Copy { path, _temporary: None }),
            Err(error) => tracing::debug!("no copies are kept in {}: {error}", folder.display()),
        }
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(name);
    std::fs::write(&path, bytes)?;
    Ok(Copy { path, _temporary: Some(folder) })
}

/// The copy of that name in `folder`, made if it is not there or not as it should be.
fn keep(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    close(folder)?;
    let path = folder.join(name);
    if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file())
        && std::fs::read(&path)? == bytes
    {
        // So that a copy in use is not taken for a forgotten one. A date that cannot be set costs a copy later.
        let _ = std::fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        return Ok(path);
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(&path).map_err(|error| error.error)?;
    remove_forgotten(folder);
    Ok(path)
}

/// Makes the folder the user's alone; one that belongs to somebody else is refused.
fn close(folder: &Path) -> Result<()> {
    if !std::fs::symlink_metadata(folder)?.is_dir() {
        return Err(Error::new(ErrorKind::NotADirectory, "not a folder"));
    }
    #[cfg(unix)]
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

fn remove_forgotten(folder: &Path) {
    let forgotten = |path: &Path| {
        let age = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT))
    };
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if forgotten(&path) {
            // Another host may have been quicker.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_kept_mended_and_one_day_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("host/plugins");
        let path = keep(folder, "a.so", b"one").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        std::fs::write(&path, b"two").unwrap();
        assert_eq!(keep(folder, "a.so", b"one").unwrap(), path);
        assert_eq!(std::fs::read(&path).unwrap(), b"one", "a copy that was tampered with is made again");

        let long_ago = SystemTime::now() - 2 * KEPT;
        std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
        keep(folder, "a.so", b"one").unwrap();
        keep(folder, "b.so", b"b").unwrap();
        assert!(path.exists(), "it was used just now");
        std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
        keep(folder, "c.so", b"c").unwrap();
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_write_where_copies_lie() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        keep(&open, "a.so", b"a").unwrap();
        assert_eq!(std::fs::metadata(&open).unwrap().permissions().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(&open, folder.path().join("link")).unwrap();
        assert!(keep(&folder.path().join("link"), "a.so", b"a").is_err());
    }
}
