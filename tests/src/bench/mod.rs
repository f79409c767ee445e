//! Our side of `cargo xtask bench`: a program that prepares one job, then does it whenever it is told to.
//!
//! A job and its peers in `bench/peers` are alive at the same time and are asked by turns, so that whatever else the
//! machine does slows all of them. Each line of standard input is answered by a line of JSON: a number N by the mean
//! seconds of N steps and the loss of the last, `end` by what is known at the end.

mod kernels;
mod trace;
mod train;

use std::io::{BufRead, Write};
use std::path::Path;

use device_cpu::Cpu;
use engine::profile::{Peaks, measure_peaks};
use plan::{Cost, Plan};
use serde_json::{Value, json};

pub use trace::plans;
pub use train::request;

/// What is measured, ready to be repeated.
pub enum Job {
    Train(Box<train::Training>),
    Kernel(Box<kernels::Kernel>),
    Trace(Box<trace::Tracing>),
}

/// One step.
pub struct Step {
    pub seconds: f64,
    /// A number that the peers must agree with; NaN where there is none.
    pub loss: f64,
}

/// Names of all jobs.
pub const NAMES: [&str; 13] = [
    "craft-1m",
    "craft-1m-dropout",
    "30m",
    "tiny",
    "hope",
    "muon",
    "linear-ce",
    "attention-1024",
    "attention-2048",
    "attention-4096",
    "attention-8192",
    "delta-rule",
    "trace",
];

impl Job {
    /// With `export`, weights and batches are left in this folder for the peers.
    pub fn prepare(name: &str, threads: usize, export: Option<&Path>) -> Result<Job, String> {
        if name == "trace" {
            return Ok(Job::Trace(Box::new(trace::Tracing::prepare()?)));
        }
        if let Some(training) = train::Training::prepare(name, threads, export)? {
            return Ok(Job::Train(Box::new(training)));
        }
        let kernel = kernels::Kernel::prepare(name, threads)?;
        kernel
            .map(|kernel| Job::Kernel(Box::new(kernel)))
            .ok_or_else(|| format!("no job {name:?}: {}", NAMES.join(", ")))
    }

    fn step(&mut self) -> Result<Step, String> {
        match self {
            Job::Train(training) => training.step(),
            Job::Kernel(kernel) => kernel.step(),
            Job::Trace(tracing) => tracing.step(),
        }
    }

    /// Work of a step; None where it is no plan.
    fn costs(&self) -> Vec<Cost> {
        match self {
            Job::Train(training) => training.costs(),
            Job::Kernel(kernel) => kernel.costs.clone(),
            Job::Trace(_) => Vec::new(),
        }
    }

    /// Answers until told to end, or until nobody asks any more.
    pub fn serve(
        &mut self,
        threads: usize,
        questions: impl BufRead,
        mut answers: impl Write,
    ) -> Result<(), String> {
        let mut tell = |value: Value| {
            writeln!(answers, "{value}").and_then(|()| answers.flush()).map_err(|error| error.to_string())
        };
        tell(json!({ "ready": true }))?;
        for line in questions.lines() {
            let line = line.map_err(|error| error.to_string())?;
            let Ok(steps) = line.trim().parse::<usize>() else { break };
            let (mut seconds, mut loss) = (0.0, f64::NAN);
            for _ in 0..steps {
                let step = self.step()?;
                seconds += step.seconds;
                loss = step.loss;
            }
            // NaN becomes null.
            tell(json!({ "seconds": seconds / steps.max(1) as f64, "loss": loss }))?;
        }
        // Before peaks are measured, which takes memory of its own.
        let peak = peak_bytes();
        let costs = self.costs();
        let peaks = if costs.is_empty() { None } else { Some(peaks(threads)?) };
        let bound = peaks.map(|peaks| costs.iter().map(|cost| cost.bound(&peaks)).sum::<f64>());
        tell(json!({
            "peak_bytes": peak,
            "import_bytes": 0,
            "bound_seconds": bound,
            "flops_per_second": peaks.map(|peaks| peaks.flops_per_second),
            "bytes_per_second": peaks.map(|peaks| peaks.bytes_per_second),
        }))
    }
}

fn peaks(threads: usize) -> Result<Peaks, String> {
    measure_peaks(&mut Cpu::new(threads)).map_err(|error| error.to_string())
}

/// Costs of the launches whose label begins so.
fn costs(plans: &[Plan], prefix: &str) -> Vec<Cost> {
    let of = |plan: &Plan| {
        let costs = plan.costs().into_iter().zip(&plan.launches);
        costs.filter(|(_, launch)| launch.label.starts_with(prefix)).map(|(cost, _)| cost).collect::<Vec<_>>()
    };
    plans.iter().flat_map(of).collect()
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
