//! Files that are whole or absent: written beside their place, then renamed into it.

use std::io::{Read, Write};
use std::path::Path;

use tempfile::TempDir;

use crate::Error;

/// Writes a file so that a reader, a crash or a full disk never sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let hint = "nothing was changed; check free space and permissions";
    write(path, bytes).map_err(Error::file(path, hint))
}

/// [`write_whole`] for callers with a hint of their own.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = shared(0o666).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// How names of unfinished folders begin.
pub const DRAFT: &str = ".draft-";

/// A folder beside its place, to be renamed into it when it is full.
pub fn draft(parent: &Path) -> std::io::Result<TempDir> {
    shared(0o777).prefix(DRAFT).tempdir_in(parent)
}

/// Temporary files are private by default, but a run is not: permissions are those of the user's umask.
#[cfg(unix)]
fn shared(mode: u32) -> tempfile::Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::fs::Permissions::from_mode(mode));
    builder
}

#[cfg(not(unix))]
fn shared(_: u32) -> tempfile::Builder<'static, 'static> {
    tempfile::Builder::new()
}

/// Hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same of a file's content, which may be larger than memory.
pub fn sha256_of(path: &Path) -> std::io::Result<String> {
    use sha2::Digest;
    let mut file = std::fs::File::open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
