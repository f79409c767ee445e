//! Where the time of a step goes, launch by launch, and what the machine would need at least.
//!
//! A step is replayed with a clock around every launch, and again without, since clocks cost something and what the
//! launches leave of the time is overhead. Nothing is written to disk.

pub mod name;
mod peaks;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use device_cpu::Cpu;
use plan::{Cost, Plan};
use serde::Serialize;

use crate::Error;
use crate::machine::{Machine, Watch};
use crate::run::{Prepared, learning_rate};

pub use peaks::measure as measure_peaks;
pub use plan::Peaks;

/// Steps before anything is measured: memory is touched, branches are learnt.
const WARM_UP: u64 = 2;

/// Where the time goes, per step. A launch's time is the median of those it took, times how often it runs in a step: one
/// that was interrupted by another program tells nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    pub device: String,
    pub threads: usize,
    /// Of the machine, measured just now.
    pub peak_flops_per_second: f64,
    pub peak_bytes_per_second: f64,
    /// Steps measured with clocks, and as many without.
    pub replays: u64,
    pub tokens: usize,
    pub arena_bytes: usize,
    pub state_bytes: usize,
    /// Median seconds of a whole step: data, uploads, replays without clocks, downloads.
    pub step_seconds: f64,
    /// Median seconds of its replays without clocks.
    pub replay_seconds: f64,
    /// Sum of all launches, from replays with clocks.
    pub launch_seconds: f64,
    /// What a replay with clocks took besides, the mean: between launches, and for the clocks.
    pub overhead_seconds: f64,
    /// Sum over launches of what peak and bandwidth need.
    pub bound_seconds: f64,
    /// Heap allocations within the replays, where somebody counts them.
    pub allocations: Option<f64>,
    pub kinds: Vec<Row>,
    pub layers: Vec<Row>,
    pub kernels: Vec<Row>,
    pub launches: Vec<Row>,
}

/// Launches under one name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub name: String,
    /// What they have in common besides: a kernel's labels, a launch's kernel.
    pub note: String,
    /// How many run in a step; not a whole number where guards skip some steps.
    pub launches: f64,
    pub seconds: f64,
    /// Of the seconds of all launches.
    pub share: f64,
    pub flops: f64,
    pub bytes: f64,
    pub bound_seconds: f64,
}

impl Row {
    /// Share of the bound that is reached: 1 where nothing is left to win.
    pub fn reached(&self) -> f64 {
        share(self.bound_seconds, self.seconds)
    }

    fn add(&mut self, other: &Row) {
        self.launches += other.launches;
        self.seconds += other.seconds;
        self.share += other.share;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.bound_seconds += other.bound_seconds;
    }
}

/// Takes steps of a prepared run: some to warm up, `replays` without clocks on the launches, then as many with
/// them. `allocations` tells how often the heap was asked so far.
pub fn profile(
    prepared: &mut Prepared<'_>,
    replays: u64,
    allocations: Option<fn() -> u64>,
) -> Result<Profile, Error> {
    if prepared.machine.plans().is_empty() {
        return Err(Error::said("the interpreter has no launches to profile; choose --device cpu"));
    }
    let mut device = Cpu::new(prepared.machine.facts.threads);
    let before = measure_peaks(&mut device)?;
    let replays = replays.max(1);
    let mut plain = Watch { count: allocations, ..Watch::default() };
    let mut timed = Watch { launches: true, ..Watch::default() };
    let (mut steps, mut replay) = (Vec::new(), Vec::new());
    let train = prepared.resolved.settings.train.clone();
    let mut number = 0;
    let mut take = |prepared: &mut Prepared<'_>, watch: &mut Watch| -> Result<(f64, f64), Error> {
        let (clock, before) = (Instant::now(), watch.seconds);
        prepared.step(number, learning_rate(&train, number, train.steps), Some(watch))?;
        number += 1;
        Ok((clock.elapsed().as_secs_f64(), watch.seconds - before))
    };
    for _ in 0..WARM_UP {
        take(prepared, &mut timed)?;
    }
    (plain.allocations, timed.seconds) = (0, 0.0);
    timed.times.clear();
    // Not by turns: what a plan does may depend on whether the step is even.
    for _ in 0..replays {
        let (step, within) = take(prepared, &mut plain)?;
        steps.push(step);
        replay.push(within);
    }
    for _ in 0..replays {
        take(prepared, &mut timed)?;
    }
    // Again, since a machine may have been busy with something else the first time.
    let peaks = best(before, measure_peaks(&mut device)?);
    let launches = launches(&prepared.machine, &timed.times, replays, &peaks);
    let shape = prepared.shape;
    let within: u64 = timed.times.iter().map(|(_, _, nanoseconds)| nanoseconds).sum();
    Ok(Profile {
        device: prepared.machine.facts.device.clone(),
        threads: prepared.machine.facts.threads,
        peak_flops_per_second: peaks.flops_per_second,
        peak_bytes_per_second: peaks.bytes_per_second,
        replays,
        tokens: shape.batch * shape.window * shape.accumulate,
        arena_bytes: prepared.machine.facts.arena_bytes,
        state_bytes: prepared.machine.facts.state_bytes,
        step_seconds: median(&mut steps),
        replay_seconds: median(&mut replay),
        launch_seconds: launches.iter().map(|launch| launch.row.seconds).sum(),
        overhead_seconds: (timed.seconds - within as f64 * 1e-9) / replays as f64,
        bound_seconds: launches.iter().map(|launch| launch.row.bound_seconds).sum(),
        allocations: allocations.map(|_| plain.allocations as f64 / replays as f64),
        kinds: grouped(&launches, |launch| name::KINDS[launch.kind].to_string(), Order::Plan),
        layers: grouped(&launches, |launch| name::layer(&launch.row.name), Order::Plan),
        kernels: grouped(&launches, |launch| launch.row.note.clone(), Order::Time),
        launches: launches.into_iter().map(|launch| launch.row).collect(),
    })
}

/// A launch that ran at least once; its row is named by its label, and the note is its kernel.
struct Measured {
    row: Row,
    kind: usize,
}

fn launches(machine: &Machine, times: &[(usize, usize, u64)], replays: u64, peaks: &Peaks) -> Vec<Measured> {
    let mut of: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    for (plan, launch, nanoseconds) in times {
        of.entry((*plan, *launch)).or_default().push(*nanoseconds as f64 * 1e-9);
    }
    let costs: Vec<Vec<Cost>> = machine.plans().iter().map(Plan::costs).collect();
    let measured = |((index, launch), mut times): ((usize, usize), Vec<f64>)| {
        let (plan, cost) = (&machine.plans()[index], costs[index][launch]);
        let (launch, per_step) = (&plan.launches[launch], times.len() as f64 / replays as f64);
        let row = Row {
            name: launch.label.clone(),
            note: name::kernel(plan, launch),
            launches: per_step,
            seconds: median(&mut times) * per_step,
            share: 0.0,
            flops: cost.flops * per_step,
            bytes: cost.bytes * per_step,
            bound_seconds: cost.bound(peaks) * per_step,
        };
        Measured { row, kind: name::kind(launch) }
    };
    let mut all: Vec<Measured> = of.into_iter().map(measured).collect();
    let whole: f64 = all.iter().map(|launch| launch.row.seconds).sum();
    all.iter_mut().for_each(|launch| launch.row.share = share(launch.row.seconds, whole));
    all
}

#[derive(PartialEq)]
enum Order {
    /// As the plan first has them.
    Plan,
    /// The longest first.
    Time,
}

/// Sums under one name each; the note tells the labels that they come from.
fn grouped(launches: &[Measured], key: impl Fn(&Measured) -> String, order: Order) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut labels: Vec<Vec<String>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for launch in launches {
        let name = key(launch);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            rows.push(Row { name, ..Row::default() });
            labels.push(Vec::new());
            rows.len() - 1
        });
        rows[place].add(&launch.row);
        let label = name::pattern(&launch.row.name);
        if !labels[place].contains(&label) {
            labels[place].push(label);
        }
    }
    for (row, labels) in rows.iter_mut().zip(&labels) {
        let more = labels.len() - 1;
        row.note = if more == 0 { labels[0].clone() } else { format!("{} and {more} more", labels[0]) };
    }
    if order == Order::Time {
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    }
    rows
}

fn best(a: Peaks, b: Peaks) -> Peaks {
    Peaks {
        flops_per_second: a.flops_per_second.max(b.flops_per_second),
        bytes_per_second: a.bytes_per_second.max(b.bytes_per_second),
    }
}

/// A part of a whole; 0 of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The middle of the values, which are sorted on the way; of an even number of them the lower.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
