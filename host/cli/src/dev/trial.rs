//! The run of a plugin that was just built: trusted, alone in a folder of the search path, with what its components are for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use engine::Error;
use engine::plugins::{Accepted, Kind, PluginInfo, Registry};

use crate::output;

/// Steps of a run, where its arguments do not say.
const STEPS: &str = "20";

/// Trusts the library, which is the user's own, and starts `host run` with it.
pub fn start(library: &Path, arguments: &[String]) -> Result<Child, Error> {
    let registry = Registry::discover();
    let info = registry.named(&library.display().to_string())?;
    // At the place where cargo builds it, so that the next build takes the place of this one in the list.
    if registry.standing(&info).ok() != Some(Accepted::Build) {
        registry.trust.add(&info)?;
    }
    let words = words(&info, &registry, arguments);
    output::note(&format!("trusts {}; host {}", info.path.display(), words.join(" ")));
    let lost = |error: std::io::Error| Error::said(format!("the host cannot be started: {error}"));
    let mut host = Command::new(std::env::current_exe().map_err(lost)?);
    host.args(words).env("HOST_PLUGIN_PATH", search_path(library, &alone(&info)?)?);
    host.stdin(Stdio::null()).spawn().map_err(lost)
}

/// A folder beside the library that holds no other: a target folder may be that of a workspace with many plugins, which
/// the host would find twice.
fn alone(info: &PluginInfo) -> Result<PathBuf, Error> {
    let (Some(target), Some(file)) = (info.path.parent(), info.path.file_name()) else {
        return Err(Error::said(format!("{} lies in no folder", info.path.display())));
    };
    let folder = target.join("host-dev").join(&info.plugin);
    let failed =
        |error: std::io::Error| Error::said(format!("{} cannot be written: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    // Under another name first: a run that is just ending may read the old one.
    let draft = folder.join("draft");
    std::fs::copy(&info.path, &draft).map_err(failed)?;
    std::fs::rename(&draft, folder.join(file)).map_err(failed)?;
    Ok(folder)
}

/// `folder` before what the user has set, but for the folder that cargo builds in.
fn search_path(library: &Path, folder: &Path) -> Result<std::ffi::OsString, Error> {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let built = library.parent().map(whole);
    let set = std::env::var_os("HOST_PLUGIN_PATH").unwrap_or_default();
    let others = std::env::split_paths(&set).filter(|path| Some(whole(path)) != built);
    std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(others))
        .map_err(|error| Error::said(format!("{} cannot be searched: {error}", folder.display())))
}

/// `run` with the first component of each kind, a few steps and no sample, where the arguments do not say otherwise.
fn words(info: &PluginInfo, registry: &Registry, arguments: &[String]) -> Vec<String> {
    let mut words = vec!["run".to_string()];
    let given = |flag: &str| {
        arguments
            .iter()
            .any(|word| word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
    };
    // A resumed run keeps its configuration.
    if !given("--resume") {
        for kind in Kind::ALL {
            let Some(component) = info.components.iter().find(|component| component.kind == kind.name())
            else {
                continue;
            };
            let of_others = registry
                .components(kind)
                .any(|(plugin, other)| plugin.plugin != info.plugin && other.name == component.name);
            let name = match of_others {
                true => format!("{}/{}", info.plugin, component.name),
                false => component.name.clone(),
            };
            let flag = match kind {
                Kind::Model => "--plugin",
                Kind::Attention => "--attention",
                Kind::Optimizer => "--optim",
                Kind::Eval => {
                    if !arguments.iter().any(|word| word.contains("evals=")) {
                        words.push(format!("--set=train.evals=[\"{name}\"]"));
                    }
                    continue;
                }
            };
            if !given(flag) {
                words.extend([flag.to_string(), name]);
            }
        }
        if !given("--steps") {
            words.extend(["--steps".to_string(), STEPS.to_string()]);
        }
        if !arguments.iter().any(|word| word.contains("sample.tokens=")) {
            words.push("--set=sample.tokens=0".to_string());
        }
    }
    words.extend(arguments.iter().cloned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::plugins::ComponentInfo;

    fn spoken(components: &[(&str, &str)], arguments: &[&str]) -> String {
        let component = |(kind, name): &(&str, &str)| ComponentInfo {
            kind: kind.to_string(),
            name: name.to_string(),
            summary: String::new(),
        };
        let word = String::new;
        let info = PluginInfo {
            path: "libmine.so".into(),
            plugin: "mine".into(),
            version: word(),
            api: word(),
            rustc: word(),
            target: word(),
            components: components.iter().map(component).collect(),
        };
        let arguments: Vec<String> = arguments.iter().map(|word| word.to_string()).collect();
        words(&info, &Registry::of(Vec::new()), &arguments).join(" ")
    }

    #[test]
    fn a_run_tries_what_the_crate_holds() {
        let attention = [("attention", "first"), ("attention", "second")];
        assert_eq!(spoken(&attention, &[]), "run --attention first --steps 20 --set=sample.tokens=0");
        assert_eq!(
            spoken(&attention, &["--attention=second", "--steps", "5", "--set=sample.tokens=9"]),
            "run --attention=second --steps 5 --set=sample.tokens=9"
        );
        assert_eq!(spoken(&attention, &["--resume", "runs/a", "--steps=5"]), "run --resume runs/a --steps=5");
        assert_eq!(
            spoken(&[("eval", "e"), ("model", "m")], &["--steps=2"]),
            "run --plugin m --set=train.evals=[\"e\"] --set=sample.tokens=0 --steps=2"
        );
    }
}
