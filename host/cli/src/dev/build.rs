//! `cargo build --release` in a plugin's folder: its errors as they are, and where the library lies.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use engine::Error;
use serde_json::Value;

use super::End;

/// Whether there are a cargo and a crate, before anything is watched.
pub fn check(folder: &Path) -> Result<(), Error> {
    let shown = folder.display();
    if !folder.join("Cargo.toml").is_file() {
        let what = if folder.is_dir() { "holds no Cargo.toml" } else { "is no folder" };
        return Err(Error::said(format!(
            "{shown} {what}: name the folder of a crate; `host plugins new` makes one"
        )));
    }
    let version = Command::new("cargo").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match version {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Error::said(format!("cargo does not work here: `cargo --version` ended with {status}")))
        }
        Err(error) => Err(no_cargo(&error)),
    }
}

fn no_cargo(error: &std::io::Error) -> Error {
    Error::said(format!(
        "cargo cannot be started ({error}); `host dev` builds with it: install Rust, or mend PATH"
    ))
}

/// Builds the crate; `follow` waits for cargo. The library is None where the build was ended before it was done.
pub fn build(
    folder: &Path,
    follow: impl FnOnce(&mut Child) -> Result<End, Error>,
) -> Result<(Option<PathBuf>, End), Error> {
    let mut cargo = Command::new("cargo");
    // Diagnostics go to standard error as always; standard output says what was built.
    cargo.args(["build", "--release", "--message-format=json-render-diagnostics"]);
    let started = cargo.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut cargo = started.map_err(|error| no_cargo(&error))?;
    let mut messages = cargo.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // What could not be read names no library, which is said below.
        let _ = messages.as_mut().map(|messages| messages.read_to_string(&mut text));
        text
    });
    let end = follow(&mut cargo)?;
    let status = cargo.wait().map_err(|error| Error::said(format!("cargo is lost: {error}")))?;
    let messages = reader.join().unwrap_or_default();
    let shown = folder.display();
    match end {
        End::Changed | End::Interrupted => Ok((None, end)),
        End::Exited(_) if !status.success() => Err(Error::said(format!("{shown} does not build"))),
        End::Exited(_) => {
            let none = || {
                Error::said(format!(
                    "{shown} builds no library that a host could open: its Cargo.toml has no [lib] with \
                     crate-type = [\"cdylib\"]"
                ))
            };
            let manifest = folder.join("Cargo.toml");
            library(&messages, &manifest).ok_or_else(none).map(|library| (Some(library), end))
        }
    }
}

/// The dynamic library of the crate with this manifest, by cargo's messages.
fn library(messages: &str, manifest: &Path) -> Option<PathBuf> {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let ours = whole(manifest);
    let of_line = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_library = message["target"]["crate_types"].as_array()?.iter().any(|kind| kind == "cdylib");
        let is_ours = whole(Path::new(message["manifest_path"].as_str()?)) == ours;
        let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
        let is_dynamic =
            |path: &PathBuf| path.extension().is_some_and(|ending| ending == std::env::consts::DLL_EXTENSION);
        files.into_iter().find(|path| is_library && is_ours && is_dynamic(path))
    };
    messages.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_that_of_the_crate() {
        let file =
            |name: &str| format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let artifact = |manifest: &str, kind: &str, name: &str| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": manifest,
                "target": {"crate_types": [kind]}, "filenames": [file(name)],
            })
            .to_string()
        };
        let lines = [
            artifact("/other/Cargo.toml", "cdylib", "other"),
            artifact("/mine/Cargo.toml", "bin", "script"),
            "not a message".into(),
            artifact("/mine/Cargo.toml", "cdylib", "mine"),
        ];
        let found = library(&lines.join("\n"), Path::new("/mine/Cargo.toml"));
        assert_eq!(found, Some(PathBuf::from(file("mine"))));
        assert_eq!(library(&lines[..3].join("\n"), Path::new("/mine/Cargo.toml")), None);
    }
}
