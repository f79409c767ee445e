//! `cargo xtask new-plugin`: a folder in plugins/ from the templates of `host/scaffold`.
//!
//! Every folder of plugins/ is a member of the workspace and is built and staged, so nothing else has to be told.

use anyhow::{Context, Result};
use scaffold::{Kind, Place, Plugin};

use crate::output;
use crate::workspace::Workspace;

/// Makes the folder and says what to type next.
pub fn command(workspace: &Workspace, word: &str, name: &str) -> Result<i32> {
    let kind = Kind::named(word).with_context(|| format!("there is no kind of plugin `{word}`"))?;
    let plugin = Plugin::new(kind, name, Place::Workspace)?;
    plugin.write(&workspace.root.join("plugins").join(&plugin.package))?;
    let (package, trial) = (&plugin.package, kind.trial(name));
    output::line(&format!("made plugins/{package}: Cargo.toml and src/lib.rs, {word} `{name}`"))?;
    output::line(&format!("\nnext  cargo test --release -p {package}"))?;
    if trial.starts_with("run ") {
        output::line(&format!("      cargo xtask {trial}"))?;
    } else {
        output::line(&format!("      cargo xtask build && target/release/host {trial}"))?;
    }
    Ok(0)
}
