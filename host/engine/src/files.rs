//! Files that are whole or absent: written beside their place, then renamed into it.

use std::io::Write;
use std::path::Path;

use crate::Error;

/// Writes a file so that a reader, a crash or a full disk never sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let hint = "nothing was changed; check free space and permissions";
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::file(path, hint))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(Error::file(path, hint))?;
    file.persist(path).map_err(|error| Error::file(path, hint)(error.error))?;
    Ok(())
}

/// Hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
