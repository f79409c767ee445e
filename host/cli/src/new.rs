//! `host plugins new`: a crate of its own for a plugin, outside of the host's workspace.

use std::path::{Path, PathBuf};

use engine::Error;
use engine::plugins::Registry;
use plugin_api::abi::API_VERSION_TEXT;
use scaffold::{Kind, Place, Plugin};

/// Makes the folder and says what to type next.
pub fn run(registry: &Registry, word: &str, name: &str, path: Option<PathBuf>) -> Result<String, Error> {
    let kind =
        Kind::named(word).ok_or_else(|| Error::said(format!("there is no kind of plugin {word:?}")))?;
    let taken = engine::plugins::Kind::ALL.into_iter().filter(|kind| kind.name() == word);
    if let Some((plugin, _)) =
        taken.flat_map(|kind| registry.components(kind)).find(|(_, component)| component.name == name)
    {
        let owner = &plugin.plugin;
        return Err(Error::said(format!("plugin {owner} has {word} {name:?} already; choose another name")));
    }
    // Cargo reads the version beside the path, so a source that has moved on is refused by name.
    let source = scaffold::source().ok_or_else(|| {
        Error::said(
            "the source that this host was built from is gone, and plugin-api with it; build the host again",
        )
    })?;
    let refused = |error: scaffold::Refused| Error::said(error.to_string());
    let plugin = Plugin::new(kind, name, Place::Outside { source: &source, api: API_VERSION_TEXT })
        .map_err(refused)?;
    let folder = path.unwrap_or_else(|| PathBuf::from(&plugin.package));
    plugin.write(&folder).map_err(refused)?;
    Ok(next(kind, name, &plugin.package, &folder))
}

fn next(kind: Kind, name: &str, package: &str, folder: &Path) -> String {
    let shown = folder.display();
    format!(
        "made {shown}: Cargo.toml and src/lib.rs, {word} {name:?} against plugin-api {API_VERSION_TEXT}\n\n\
         next  cd {shown}\n      \
         cargo test                 # its own test\n      \
         cargo build --release\n      \
         export HOST_PLUGIN_PATH=target/release\n      \
         host plugins trust {package}    # again after each change: a library is known by its bytes\n      \
         host {trial}\n\n\
         or    host dev {shown}    # builds, trusts and runs it, again after each change\n",
        word = kind.word(),
        trial = kind.trial(name),
    )
}
