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
    let folders: Vec<String> = registry.folders.iter().map(|folder| folder.display().to_string()).collect();
    let components: usize = registry.plugins.iter().map(|plugin| plugin.components.len()).sum();
    say(components > 0, "plugins", format!("{components} components in {}", folders.join(", ")));
    for (path, reason) in &registry.rejected {
        say(false, "plugin", format!("{} {reason}", path.display()));
    }
    let presets = config::presets();
    say(!presets.is_empty(), "presets", presets.join(", "));
    let folder = std::env::current_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
    let writable = std::fs::metadata(".").is_ok_and(|metadata| !metadata.permissions().readonly());
    say(writable, "runs", format!("{folder}/runs is where run folders go"));
    output::print(&text)?;
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
