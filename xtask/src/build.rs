//! `cargo xtask build`: one cargo call builds the host and every plugin, then the results are staged.
//!
//! One call, because cargo then shares dependencies and uses all cores; and because it fails as a whole,
//! nothing is staged when one plugin does not compile. Where the files lie is read from cargo's own messages,
//! not guessed from the platform's naming rules and the many ways to move a target folder.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::stage::Library;
use crate::workspace::{Package, Workspace, cannot_start, cargo};
use crate::{output, stage};

/// Package and binary name of the command line.
const HOST: &str = "host";

/// Where cargo left the results.
#[derive(Debug, PartialEq)]
pub struct Built {
    pub binary: PathBuf,
    pub libraries: Vec<Library>,
}
/// Builds, stages, and prints what was staged.
pub fn command(workspace: &Workspace) -> Result<i32> {
    let built = build_and_stage(workspace, |plugin, copied| {
        let state = if copied { "staged" } else { "up to date" };
        output::line(&format!("{state:<10}  {:<28} {} {}", plugin.name, &plugin.sha256[..12], plugin.file))
    })?;
    output::line(&format!("{:<10}  {}", HOST, built.binary.display()))?;
    Ok(0)
}

/// Builds and stages; `report` hears of each plugin and whether its staged file changed.
pub fn build_and_stage(
    workspace: &Workspace,
    report: impl FnMut(&stage::Plugin, bool) -> Result<()>,
) -> Result<Built> {
    let built = build(workspace)?;
    let beside = built.binary.parent().context("cargo named a binary without a folder")?;
    stage::plugins(&built.libraries, &beside.join("plugins"), report)?;
    stage::configs(&workspace.root.join("configs"), &beside.join("configs"), stage::Extra::Remove)?;
    Ok(built)
}

fn build(workspace: &Workspace) -> Result<Built> {
    let host = workspace.packages.iter().find(|package| package.name == HOST);
    let host =
        host.with_context(|| format!("the workspace has no package `{HOST}`: its folder is host/cli"))?;
    let plugins = plugins(workspace)?;

    let mut command = cargo();
    command.args(["build", "--release", "--message-format", "json-render-diagnostics"]);
    for package in plugins.iter().chain([&host]) {
        command.args(["--package", &package.id]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| cannot_start(&command))?;
    let mut artifacts = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            artifacts.extend(artifact(&line.context("cannot read cargo's messages")?)?);
        }
    }
    if !child.wait().context("cannot wait for cargo")?.success() {
        bail!("`cargo build` failed: its errors are above; nothing was staged");
    }
    collect(host, &plugins, &artifacts)
}

/// The plugins of plugins/, in the order of their names. Each must make one library, under a file name of its own.
fn plugins(workspace: &Workspace) -> Result<Vec<&Package>> {
    let folder = workspace.root.join("plugins");
    let is_plugin = |package: &&Package| package.folder().parent() == Some(&folder) && !package.is_shared();
    let mut plugins: Vec<&Package> = workspace.packages.iter().filter(is_plugin).collect();
    plugins.sort_by(|a, b| a.name.cmp(&b.name));

    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for plugin in &plugins {
        let library = plugin.targets.iter().find(|target| target.is("cdylib")).with_context(|| {
            let manifest = plugin.manifest_path.display();
            format!(
                "plugin `{}` builds no library: add `[lib] crate-type = [\"cdylib\"]` to {manifest}, or \
                 `[package.metadata.host] shared = true` if it is code that plugins share",
                plugin.name
            )
        })?;
        let stem = library.name.replace('-', "_");
        if let Some(other) = owners.insert(stem.clone(), &plugin.name) {
            bail!(
                "plugins `{other}` and `{}` build one library name, `{stem}`: rename a package or its [lib]",
                plugin.name
            );
        }
    }
    Ok(plugins)
}

/// The message cargo prints for everything it built or found up to date.
#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

/// Reads one line of cargo's messages; other reasons than a finished artifact are of no interest here.
fn artifact(line: &str) -> Result<Option<Artifact>> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
    }
    let describe = || format!("cargo printed a message that xtask cannot read: {line}");
    let message: Message = serde_json::from_str(line).with_context(describe)?;
    if message.reason != "compiler-artifact" {
        return Ok(None);
    }
    serde_json::from_str(line).with_context(describe).map(Some)
}

fn collect(host: &Package, plugins: &[&Package], artifacts: &[Artifact]) -> Result<Built> {
    let binary = of(host, artifacts)
        .filter_map(|artifact| artifact.executable.clone())
        .find(|path| path.file_stem().is_some_and(|stem| stem == HOST));
    let binary =
        binary.with_context(|| format!("package `{HOST}` built no binary of that name: see host/cli"))?;
    let mut libraries = Vec::new();
    for plugin in plugins {
        let path =
            of(plugin, artifacts).flat_map(|artifact| &artifact.filenames).find(|path| is_library(path));
        let path = path.with_context(|| format!("cargo named no library for plugin `{}`", plugin.name))?;
        libraries.push(Library { plugin: plugin.name.clone(), path: path.clone() });
    }
    Ok(Built { binary, libraries })
}

fn of<'a>(package: &'a Package, artifacts: &'a [Artifact]) -> impl Iterator<Item = &'a Artifact> {
    artifacts.iter().filter(|artifact| artifact.package_id == package.id)
}

/// Beside the library itself a cdylib may leave an import library, debug information and an rlib.
fn is_library(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["so", "dylib", "dll"].iter().any(|known| extension == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with the host and the given plugins: (package, library name, kind).
    fn workspace(plugins: &[(&str, &str, &str)]) -> Workspace {
        let member = |folder: &str, package: &str, target: &str, kind: &str| {
            serde_json::json!({
                "id": format!("{package}#1"), "name": package,
                "manifest_path": format!("/w/{folder}/Cargo.toml"),
                "targets": [{"name": target, "kind": [kind]}],
            })
        };
        let mut packages =
            vec![member("host/cli", "host", "host", "bin"), member("plugin-api", "api", "api", "lib")];
        packages.extend(plugins.iter().map(|(p, t, kind)| member(&format!("plugins/{p}"), p, t, kind)));
        serde_json::from_value(serde_json::json!({"workspace_root": "/w", "packages": packages})).unwrap()
    }

    #[test]
    fn plugins_are_the_packages_of_the_folder() {
        let workspace =
            workspace(&[("optim-b", "optim_b", "cdylib"), ("attention-a", "attention_a", "cdylib")]);
        let names: Vec<_> = plugins(&workspace).unwrap().iter().map(|package| package.name.clone()).collect();
        assert_eq!(names, ["attention-a", "optim-b"]);
    }

    #[test]
    fn one_library_name_twice_names_both_plugins() {
        let workspace = workspace(&[("a-b", "a_b", "cdylib"), ("other", "a_b", "cdylib")]);
        let error = plugins(&workspace).err().unwrap().to_string();
        assert!(error.contains("`a-b`") && error.contains("`other`") && error.contains("`a_b`"), "{error}");
    }

    #[test]
    fn a_plugin_without_a_library_says_what_to_add() {
        let workspace = workspace(&[("evil", "evil", "lib")]);
        let error = plugins(&workspace).err().unwrap().to_string();
        assert!(
            error.contains("`evil`") && error.contains("cdylib") && error.contains("Cargo.toml"),
            "{error}"
        );
    }

    /// The message of a finished artifact.
    fn finished(package: &str, files: &[&str], executable: Option<&str>) -> String {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "package_id": format!("{package}#1"), "filenames": files,
            "executable": executable,
        });
        message.to_string()
    }

    #[test]
    fn results_are_read_from_messages_of_every_platform() {
        let workspace = workspace(&[("a-b", "a_b", "cdylib")]);
        for (library, files) in [
            ("/t/liba_b.so", &["/t/liba_b.so"][..]),
            ("/t/liba_b.dylib", &["/t/liba_b.rlib", "/t/liba_b.dylib"]),
            ("/t/a_b.dll", &["/t/a_b.dll.lib", "/t/a_b.dll", "/t/a_b.pdb"]),
        ] {
            let lines = [
                r#"{"reason":"build-script-executed","package_id":"x"}"#.to_owned(),
                finished("a-b", files, None),
                finished("host", &["/t/host"], Some("/t/host")),
                r#"{"reason":"build-finished","success":true}"#.to_owned(),
            ];
            let artifacts: Vec<_> = lines.iter().filter_map(|line| artifact(line).unwrap()).collect();
            let built = collect(&workspace.packages[0], &plugins(&workspace).unwrap(), &artifacts).unwrap();
            let expected = Library { plugin: "a-b".into(), path: library.into() };
            assert_eq!(built, Built { binary: "/t/host".into(), libraries: vec![expected] });
        }
    }

    #[test]
    fn a_missing_library_names_its_plugin() {
        let workspace = workspace(&[("a-b", "a_b", "cdylib")]);
        let artifacts = [artifact(&finished("host", &[], Some("/t/host.exe"))).unwrap().unwrap()];
        let error = collect(&workspace.packages[0], &plugins(&workspace).unwrap(), &artifacts).unwrap_err();
        assert!(error.to_string().contains("`a-b`"), "{error}");
    }
}
