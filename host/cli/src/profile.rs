//! `host profile`: a step's time by kind, by layer and by kernel, beside what the machine would need at least.

use std::alloc::System;
use std::process::ExitCode;

use engine::Error;
use engine::plugins::Registry;
use engine::profile::{Profile, Row, profile};
use engine::run::prepare;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::arguments::ProfileArguments;
use crate::output;

/// Two additions for each request: what a replay asks for is a handful.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocations() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.allocations + stats.reallocations) as u64
}

pub fn run(arguments: ProfileArguments) -> Result<ExitCode, Error> {
    let registry = Registry::discover();
    let mut prepared = prepare(&arguments.config.request(), &registry)?;
    let profile = profile(&mut prepared, arguments.replays, Some(allocations))?;
    let text = if arguments.json {
        let text = serde_json::to_string_pretty(&profile);
        format!("{}\n", text.map_err(|error| Error::said(error.to_string()))?)
    } else {
        let resolved = &prepared.resolved;
        let names = [&resolved.model, &resolved.attention, &resolved.optimizer];
        let [model, attention, optimizer] = names.map(|choice| choice.component.name());
        format!("{model} with {attention} attention, {optimizer}\n{}", tables(&profile, arguments.top))
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn tables(profile: &Profile, top: usize) -> String {
    let mut text = head(profile);
    text += &table("kind", &profile.kinds, usize::MAX, false);
    text += &table("layer", &profile.layers, usize::MAX, false);
    text += &table("kernel", &profile.kernels, if top == 0 { usize::MAX } else { top }, true);
    text
}

fn head(profile: &Profile) -> String {
    let count: f64 = profile.launches.iter().map(|launch| launch.launches).sum();
    let replay = profile.replay_seconds;
    let beside = profile.step_seconds - replay;
    let allocations =
        profile.allocations.map_or(String::new(), |count| format!(", {count:.0} heap allocations"));
    format!(
        "device    {}\n\
         machine   {:.0} GFLOP/s, {:.1} GB/s: the best of a product and of a sum, measured just now\n\
         memory    {:.1} MB arena, {:.1} MB state\n\
         step      {} of {} tokens ({:.0} tok/s), of which {} beside the replay: data, uploads, downloads\n\
         replay    {} (median of {}), {count:.0} launches{allocations}\n\
         launches  {} with a clock around each (their medians), and {} between them\n\
         bound     {} if each launch ran at the machine's peak or bandwidth: {:.0} % of it reached\n",
        profile.device,
        profile.peak_flops_per_second / 1e9,
        profile.peak_bytes_per_second / 1e9,
        profile.arena_bytes as f64 / 1e6,
        profile.state_bytes as f64 / 1e6,
        time(profile.step_seconds),
        profile.tokens,
        profile.tokens as f64 / profile.step_seconds,
        time(beside),
        time(replay),
        profile.replays,
        time(profile.launch_seconds),
        time(profile.overhead_seconds),
        time(profile.bound_seconds),
        100.0 * profile.bound_seconds / replay,
    )
}

/// Columns are per step; `reached` is the share of the bound, and `to win` the time above it.
fn table(title: &str, rows: &[Row], most: usize, notes: bool) -> String {
    let width = rows.iter().take(most).map(|row| row.name.len()).max().unwrap_or(0).max(title.len());
    let mut text = format!(
        "\n{title:<width$}  {:>8}  {:>10}  {:>6}  {:>7}  {:>6}  {:>7}  {:>10}{}\n",
        "launches",
        "time",
        "share",
        "GFLOP/s",
        "GB/s",
        "reached",
        "to win",
        if notes { "  where" } else { "" }
    );
    for row in rows.iter().take(most) {
        text += &format!(
            "{:<width$}  {:>8}  {:>10}  {:>4.1} %  {:>7.1}  {:>6.1}  {:>5.0} %  {:>10}{}\n",
            row.name,
            count(row.launches),
            time(row.seconds),
            100.0 * row.share,
            rate(row.flops, row.seconds),
            rate(row.bytes, row.seconds),
            100.0 * row.reached(),
            time(row.seconds - row.bound_seconds),
            if notes { format!("  {}", row.note) } else { String::new() }
        );
    }
    if rows.len() > most {
        let rest: f64 = rows[most..].iter().map(|row| row.share).sum();
        let left = rows.len() - most;
        text += &format!("{left} more with {:.1} % of the time: --top 0 lists all\n", 100.0 * rest);
    }
    text
}

/// Whole where it is; else a launch is skipped in some steps.
fn count(launches: f64) -> String {
    if launches.fract() == 0.0 { format!("{launches:.0}") } else { format!("{launches:.1}") }
}

fn rate(amount: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount / seconds * 1e-9 } else { 0.0 }
}

/// In the unit that leaves three or four digits.
fn time(seconds: f64) -> String {
    match seconds.abs() {
        size if size >= 1.0 => format!("{seconds:.3} s"),
        size if size >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{:.1} us", seconds * 1e6),
    }
}
