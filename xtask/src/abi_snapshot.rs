//! Freezes the present ABI file: from then on `cargo test -p plugin-api` holds every change against it.

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Copies `plugin-api/src/abi.rs` to `plugin-api/snapshots/abi-MAJOR.MINOR.rs`, which must not be there yet.
pub fn command(workspace: &Workspace) -> Result<i32> {
    let folder = workspace.root.join("plugin-api");
    let file = folder.join("src/abi.rs");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let version = version(&text).with_context(|| format!("{} does not say its version", file.display()))?;
    let snapshot = folder.join(format!("snapshots/abi-{version}.rs"));
    let shown = snapshot.strip_prefix(&workspace.root).unwrap_or(&snapshot).display().to_string();
    if snapshot.exists() {
        if std::fs::read_to_string(&snapshot).is_ok_and(|frozen| frozen == text) {
            println!("ABI {version} is frozen already: {shown}");
            return Ok(0);
        }
        bail!(
            "{shown} is there and differs: a frozen version never changes, so say the next minor in API_VERSION"
        );
    }
    std::fs::write(&snapshot, text).with_context(|| format!("writing {}", snapshot.display()))?;
    println!("froze ABI {version}: {shown}");
    Ok(0)
}

/// `1.1` of `API_VERSION_TEXT`.
fn version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("API_VERSION_TEXT: &str = \"")?;
    let (full, _) = rest.split_once('"')?;
    let (minor, _) = full.rsplit_once('.')?;
    Some(minor.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_version_is_major_and_minor() {
        let text = "pub const API_VERSION_TEXT: &str = \"12.3.4\";";
        assert_eq!(super::version(text).as_deref(), Some("12.3"));
        assert_eq!(super::version("pub const OTHER: &str = \"1.2.3\";"), None);
    }
}
