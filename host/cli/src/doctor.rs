//! `host doctor`.

use std::process::ExitCode;

use engine::Error;
use engine::config::{self, DeviceName};
use engine::machine::Machine;
use engine::plugins::Registry;

use crate::output;

pub fn run() -> Result<ExitCode, Error> {
    let registry = Registry::discover();
    let mut problems = 0;
    let mut text = String::new();
    let mut say = |good: bool, what: &str, detail: String| {
        problems += usize::from(!good);
        text += &format!("{} {what:<10} {detail}\n", if good { "ok  " } else { "MISS" });
    };
    say(true, "host", format!("{} for {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH));
    let machine = Machine::load(DeviceName::Cpu, 0, &[])?;
    say(true, "cpu", format!("{}, {} threads", machine.facts.device, machine.facts.threads));
    let adapters = engine::devices::adapters();
    for listed in &adapters {
        let unused = listed.unused.map(|reason| format!("; not taken by --device auto: {reason}"));
        say(true, &listed.name, format!("{}{}", listed.what, unused.unwrap_or_default()));
    }
    if adapters.is_empty() {
        let hint = "no adapter, so runs use the CPU; on Linux a graphics card needs its Vulkan driver";
        say(true, "wgpu", hint.to_string());
    }
    let components: usize = registry.plugins.iter().map(|plugin| plugin.components.len()).sum();
    say(components > 0, "plugins", format!("{components} components in {} folders", registry.folders.len()));
    for (index, folder) in registry.folders.iter().enumerate() {
        let path = folder.path.display();
        let place = format!("{}. {path} ({})", index + 1, folder.origin);
        let there = folder.path.is_dir();
        say(there, "folder", if there { place } else { format!("{place} is no folder") });
    }
    for (path, reason) in &registry.rejected {
        say(false, "plugin", format!("{} {reason}", path.display()));
    }
    for refusal in registry.refusals() {
        say(false, "plugin", refusal.to_string());
    }
    match registry.trust.lock().and_then(|path| Ok((path.display().to_string(), registry.trust.names()?))) {
        Ok((path, names)) => say(true, "trust", format!("{} plugins in {path}", names.len())),
        Err(error) => say(false, "trust", error.to_string()),
    }
    let presets = config::presets();
    say(!presets.is_empty(), "presets", presets.join(", "));
    let folder = std::env::current_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
    let writable = std::fs::metadata(".").is_ok_and(|metadata| !metadata.permissions().readonly());
    say(writable, "runs", format!("{folder}/runs is where run folders go"));
    output::print(&text)?;
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
