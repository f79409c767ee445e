//! `bench NAME [--threads N] [--export DIR]`: our side of a bench, which answers on standard output; `cargo xtask bench`
//! starts it.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use host_tests::bench::Job;

/// Prepares a job, then does N steps for each line N of standard input.
#[derive(Parser)]
struct Arguments {
    /// Name of the job
    name: String,
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Folder that receives weights and batches for the peers
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { name, threads, export } = Arguments::parse();
    let served = Job::prepare(&name, threads, export.as_deref())
        .and_then(|mut job| job.serve(threads, std::io::stdin().lock(), std::io::stdout().lock()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
