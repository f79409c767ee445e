//! `host eval`.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use engine::Error;
use engine::evals::{Outcome, Tasks, evaluate};
use engine::plugins::Registry;

use crate::output;

/// Measures a run; a table, or with `json` the whole result as one JSON array.
pub fn run(folder: &Path, tasks: &Tasks, json: bool) -> Result<ExitCode, Error> {
    // How far it is, for someone who watches; a log keeps the table alone.
    let watched = !json && std::io::stderr().is_terminal();
    let mut tell = |task: &str, progress: engine::evals::Progress| {
        if watched {
            output::note(&format!("{task}: {} of {}", progress.done, progress.total));
        }
    };
    let outcomes = evaluate(folder, tasks, &Registry::discover(), &mut tell)?;
    if json {
        let text = serde_json::to_string_pretty(&outcomes).map_err(|error| Error::said(error.to_string()))?;
        output::print(&format!("{text}\n"))?;
    } else {
        output::print(&table(&outcomes))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each metric, with its interval and the items it rests on.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!("{:<14} {:<18} {:>10}  {:>21}  {:>7}\n", "task", "metric", "value", "95 %", "n");
    for outcome in outcomes {
        for metric in &outcome.metrics {
            let (low, high) = (format!("{:.3}", metric.low), format!("{:.3}", metric.high));
            text += &format!(
                "{:<14} {:<18} {:>10.3}  {:>9} to {:>8}  {:>7}  {}\n",
                outcome.task, metric.name, metric.value, low, high, metric.n, metric.unit
            );
        }
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
