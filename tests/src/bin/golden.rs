//! `golden DIR [--device interpreter|cpu]`: runs the golden values of a folder; `cargo xtask golden` starts it.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use engine::plugins::Registry;
use host_tests::golden::{self, Device};

/// Compares everything in a folder of golden values with what this workspace computes.
#[derive(Parser)]
struct Arguments {
    /// Folder with NAME.json and NAME.safetensors
    folder: PathBuf,
    /// Only on this device: interpreter or cpu
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    device: Option<Device>,
}

fn device(name: &str) -> Result<Device, String> {
    Device::from_name(name).ok_or_else(|| "is not one of interpreter, cpu".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let devices = arguments.device.map_or(Device::ALL.to_vec(), |device| vec![device]);
    // A closed pipe is the reader's choice: what is left to say stays unsaid, the exit code tells.
    let tell = |text: String| drop(writeln!(std::io::stdout(), "{text}"));
    let plugins = Registry::discover();
    let report = golden::run(&arguments.folder, &devices, &plugins, |line| tell(line.to_string()));
    tell(report.to_string());
    ExitCode::from(u8::from(report.failed() > 0))
}
