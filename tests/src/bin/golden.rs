//! `golden DIR [--device interpreter|cpu] [--verbose]`: runs the golden values of a folder; `cargo xtask golden` starts it.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use engine::plugins::Registry;
use host_tests::golden::{self, Device, Verdict};

/// Compares everything in a folder of golden values with what this workspace computes.
#[derive(Parser)]
struct Arguments {
    /// Folder with NAME.json and NAME.safetensors
    folder: PathBuf,
    /// Only on this device: interpreter or cpu
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    device: Option<Device>,
    /// A line for each case that nothing computes yet, too
    #[arg(long)]
    verbose: bool,
}

fn device(name: &str) -> Result<Device, String> {
    Device::from_name(name).ok_or_else(|| "is not one of interpreter, cpu, wgpu".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let devices = arguments.device.map_or_else(Device::available, |device| vec![device]);
    // A closed pipe is the reader's choice: what is left to say stays unsaid, the exit code tells.
    let tell = |text: String| drop(writeln!(std::io::stdout(), "{text}"));
    let plugins = Registry::discover();
    tell(golden::heading());
    let report = golden::run(&arguments.folder, &devices, &plugins, |line| {
        if arguments.verbose || !matches!(line.verdict, Verdict::Unsupported(_)) {
            tell(line.to_string());
        }
    });
    let reasons = report.reasons();
    if !reasons.is_empty() && !arguments.verbose {
        tell("\ncases that nothing computes yet (--verbose lists all of them):".into());
        reasons.into_iter().for_each(&tell);
    }
    // Repeated where a reader looks, since they stand among many that passed.
    let failures: Vec<String> = report.failures().map(|line| format!("\n{line}")).collect();
    if !failures.is_empty() {
        tell(format!("\nfailures:{}", failures.concat()));
    }
    tell(format!("\n{report}"));
    ExitCode::from(u8::from(report.failed() > 0))
}
