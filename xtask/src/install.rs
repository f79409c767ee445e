//! `cargo xtask install`: the layout of a finished installation. The host finds its plugins and presets in
//! `../lib/host/` relative to its binary, so a prefix can be moved as a whole.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{build, files, output, stage};

/// Builds and installs under `prefix`, `~/.local` if none is given.
pub fn command(workspace: &Workspace, prefix: Option<PathBuf>) -> Result<i32> {
    let prefix = match prefix {
        Some(prefix) => prefix,
        None => env::home_dir().context("cannot find your home folder: say `--prefix DIR`")?.join(".local"),
    };
    let built = build::build_and_stage(workspace, |_, _| Ok(()))?;
    let name = built.binary.file_name().context("cargo named a binary without a file name")?;
    let (bin, lib) = (prefix.join("bin"), prefix.join("lib").join("host"));

    // The binary goes last: whoever finds the new one also finds its plugins.
    let plugins = stage::plugins(&built.libraries, &lib.join("plugins"), |_, _| Ok(()))?;
    // Presets of the user may lie beside ours; nothing tells them apart, so none is removed.
    let presets = stage::configs(&workspace.root.join("configs"), &lib.join("configs"), stage::Extra::Keep)?;
    files::copy(&built.binary, &bin.join(name))?;

    output::line(&format!("installed  {}", bin.join(name).display()))?;
    output::line(&format!(
        "installed  {} plugins and {presets} presets in {}",
        plugins.len(),
        lib.display()
    ))?;
    let in_path = env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder == bin));
    if !in_path {
        output::note(&format!("note: {} is not in PATH; add it to run `host` from anywhere", bin.display()));
    }
    Ok(0)
}
