//! Reading a library's metadata section: names and versions without running a line of its code.

use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};
use serde::Deserialize;

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

/// What the file says about itself, or why it is no plugin.
pub fn read(path: &Path) -> Result<PluginInfo, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read ({error})"))?;
    let file = object::File::parse(&bytes[..]).map_err(|error| format!("is not a library ({error})"))?;
    let name = plugin_api::METADATA_SECTION.rsplit(',').next().unwrap_or_default();
    let section =
        file.section_by_name(name).ok_or("is a library but not a plugin: it has no metadata section")?;
    let data = section.data().map_err(|error| format!("has an unreadable metadata section ({error})"))?;
    // The linker may pad between entries with zero bytes.
    let text = String::from_utf8_lossy(data).replace('\0', "\n");
    let (mut header, mut components) = (None, Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Ok(component) = serde_json::from_str::<ComponentInfo>(line) {
            components.push(component);
        } else {
            let line: PluginLine =
                serde_json::from_str(line).map_err(|error| format!("has malformed metadata ({error})"))?;
            header = Some(line);
        }
    }
    let PluginLine { plugin, version, api, rustc, target } =
        header.ok_or("lacks `export_plugin!()`: its metadata names no plugin")?;
    components.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    Ok(PluginInfo { path: path.to_path_buf(), plugin, version, api, rustc, target, components })
}
