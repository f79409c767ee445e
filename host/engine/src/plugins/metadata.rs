//! What a library says of itself, read as bytes: its header and its metadata section. Not a line of its code runs, and
//! of the file only these parts are read.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use object::{Architecture, Object, ObjectSection};
use plugin_api::abi::{HEADER_SYMBOL, MAGIC};
use serde::Deserialize;

/// A metadata section is some lines; one of another size is no such section.
const MOST_METADATA: u64 = 1 << 20;

/// First line of the section.
#[derive(Clone, Debug, Deserialize)]
struct PluginLine {
    plugin: String,
    version: String,
    api: String,
    rustc: String,
    target: String,
}

/// A component as its library announces it.
#[derive(Clone, Debug, Deserialize)]
pub struct ComponentInfo {
    pub kind: String,
    pub name: String,
    pub summary: String,
}

/// A library in the search path.
#[derive(Clone, Debug)]
pub struct PluginInfo {
    pub path: PathBuf,
    pub plugin: String,
    pub version: String,
    pub api: String,
    pub rustc: String,
    pub target: String,
    pub components: Vec<ComponentInfo>,
}

/// What the file says about itself, or why it is no plugin of this machine: the rest of a sentence after its path.
pub fn read(path: &Path) -> Result<PluginInfo, String> {
    let unread = |error: std::io::Error| format!("cannot be read ({})", crate::error::reason(&error));
    // A pipe would wait for a writer that never comes.
    if !std::fs::metadata(path).map_err(unread)?.is_file() {
        return Err("cannot be read (it is not a file)".into());
    }
    let cache = ReadCache::new(File::open(path).map_err(unread)?);
    let file = object::File::parse(&cache).map_err(|error| no_library(path, error))?;
    let (theirs, ours) = (file.architecture(), native());
    if theirs != ours {
        let name = |architecture: Architecture| format!("{architecture:?}").to_lowercase();
        return Err(format!(
            "is built for another processor ({}, this host {}); build it on this machine",
            name(theirs),
            name(ours)
        ));
    }
    let name = plugin_api::METADATA_SECTION.rsplit(',').next().unwrap_or_default();
    let section =
        file.section_by_name(name).ok_or("is a library but not a plugin: it has no metadata section")?;
    if section.size() > MOST_METADATA {
        return Err(format!(
            "has a metadata section of {} bytes, where some lines are expected",
            section.size()
        ));
    }
    let data = section.data().map_err(|error| format!("has an unreadable metadata section ({error})"))?;
    check_header(&file)?;
    parse(path, &String::from_utf8_lossy(data))
}

/// Whether a file that cannot be parsed is another kind of file, or was a library once.
fn no_library(path: &Path, error: object::Error) -> String {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    let library =
        read.is_ok() && (start == *b"\x7fELF" || start[..2] == *b"MZ" || start == [0xcf, 0xfa, 0xed, 0xfe]);
    if library {
        format!("is not a library: it begins like one but is cut short or damaged ({error}); build it again")
    } else {
        format!("is not a library ({error})")
    }
}

/// The header must be exported and begin as ours; the loader reads the rest of it where it lies in memory.
fn check_header<'d>(file: &object::File<'d, &'d ReadCache<File>>) -> Result<(), String> {
    let damaged = |error: object::Error| format!("has an unreadable table of symbols ({error})");
    let exports = file.exports().map_err(damaged)?;
    let is_header = |name: &[u8]| name.strip_prefix(b"_").unwrap_or(name) == HEADER_SYMBOL.as_bytes();
    let header = exports.iter().find(|export| is_header(export.name()));
    let address = header.ok_or("exports no plugin header; add `export_plugin!()`")?.address();
    let magic = file.sections().find_map(|section| section.data_range(address, MAGIC.len() as u64).ok()?);
    if magic != Some(&MAGIC) {
        return Err(
            "has a header that this host does not know; rebuild it against this host's plugin-api".into()
        );
    }
    Ok(())
}

fn parse(path: &Path, text: &str) -> Result<PluginInfo, String> {
    let malformed = |what: String| format!("has malformed metadata ({what})");
    let (mut header, mut components) = (None, Vec::new());
    // The linker may pad between entries with zero bytes.
    for line in text.split(['\0', '\n']).filter(|line| !line.is_empty()) {
        if let Ok(component) = serde_json::from_str::<ComponentInfo>(line) {
            components.push(component);
        } else {
            let line: PluginLine =
                serde_json::from_str(line).map_err(|error| malformed(error.to_string()))?;
            header = Some(line);
        }
    }
    let PluginLine { plugin, version, api, rustc, target } =
        header.ok_or("lacks `export_plugin!()`: its metadata names no plugin")?;
    let mut seen = HashSet::new();
    for ComponentInfo { kind, name, .. } in &components {
        if !seen.insert((kind, name)) {
            return Err(format!("has two components called {kind} {name:?}; rename one of them"));
        }
    }
    // They are printed, typed and part of paths.
    let names = components.iter().flat_map(|component| [&component.kind, &component.name]).chain([&plugin]);
    if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
        return Err(malformed(format!("{name:?} is not a name of letters, digits, - and _")));
    }
    let prose = components.iter().map(|component| &component.summary);
    if prose.chain([&version, &api, &rustc, &target]).any(|text| text.contains(char::is_control)) {
        return Err(malformed("control characters".into()));
    }
    components.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    Ok(PluginInfo { path: path.to_path_buf(), plugin, version, api, rustc, target, components })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter))
}

/// The processor of this host, as object files call it.
fn native() -> Architecture {
    match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "x86" => Architecture::I386,
        "aarch64" => Architecture::Aarch64,
        "arm" => Architecture::Arm,
        "riscv64" => Architecture::Riscv64,
        "powerpc64" => Architecture::PowerPc64,
        "s390x" => Architecture::S390x,
        "loongarch64" => Architecture::LoongArch64,
        _ => Architecture::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: &str = r#"{"plugin":"mine","version":"1.0.0","api":"1.1.0","rustc":"r","target":"t"}"#;

    fn refused(lines: &[&str]) -> String {
        parse(Path::new("a.so"), &lines.join("\n")).unwrap_err()
    }

    #[test]
    fn padding_is_skipped_and_components_are_sorted() {
        let component = |name: &str| format!(r#"{{"kind":"model","name":"{name}","summary":"A model."}}"#);
        let text = format!("{}\n\0\0\0{PLUGIN}\n\0{}\n", component("b"), component("a"));
        let info = parse(Path::new("a.so"), &text).unwrap();
        let names: Vec<&str> = info.components.iter().map(|component| component.name.as_str()).collect();
        assert_eq!((info.plugin.as_str(), &names[..]), ("mine", &["a", "b"][..]));
    }

    #[test]
    fn metadata_that_would_mislead_is_refused() {
        assert!(refused(&[]).contains("export_plugin!"));
        assert!(refused(&["{"]).contains("malformed"));
        let component = r#"{"kind":"model","name":"a","summary":"A model."}"#;
        assert!(refused(&[PLUGIN, component, component]).contains("two components called model \"a\""));
        for bad in ["a/b", "", "a b", "\\u001b[31m"] {
            let component = format!(r#"{{"kind":"model","name":"{bad}","summary":""}}"#);
            assert!(refused(&[PLUGIN, &component]).contains("is not a name"), "{bad}");
        }
        let escape = r#"{"kind":"model","name":"a","summary":"\u001b[2J"}"#;
        assert!(refused(&[PLUGIN, escape]).contains("control characters"));
    }
}
