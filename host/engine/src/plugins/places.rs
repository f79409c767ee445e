//! Folders of the user: where the lock file of trusted plugins lies, and where copies of libraries and
//! compiled kernels are kept.

use std::path::PathBuf;

/// Environment variable that names another lock file, for tests and for machines that several people share.
pub const LOCK_VARIABLE: &str = "HOST_PLUGIN_LOCK";

/// `plugins.lock.toml` in the user's configuration; None where the system names no such folder.
pub fn lock_file() -> Option<PathBuf> {
    let named = std::env::var_os(LOCK_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(folder("XDG_CONFIG_HOME", ".config", "APPDATA")?.join("host/plugins.lock.toml")))
}

/// Where private copies of libraries are kept; None where the system names no such folder.
pub fn copies() -> Option<PathBuf> {
    Some(folder("XDG_CACHE_HOME", ".cache", "LOCALAPPDATA")?.join("host/plugins"))
}

/// Where kernels that a graphics driver compiled are kept; None where the system names no such folder.
pub fn kernels() -> Option<PathBuf> {
    Some(folder("XDG_CACHE_HOME", ".cache", "LOCALAPPDATA")?.join("host/kernels"))
}

/// The folder of the XDG variable, else the usual one below the home folder; on Windows that of `windows`.
fn folder(variable: &str, below_home: &str, windows: &str) -> Option<PathBuf> {
    // Relative paths are to be ignored, says the XDG base directory specification.
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        return absolute(windows);
    }
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}
