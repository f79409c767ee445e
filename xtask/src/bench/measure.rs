//! One bench: all its sides started, warmed up, asked by turns, ended.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::side::{Shown, Side, first_step, whole};
use super::table::{Bench, Ours, Peer, WAYS, Way};
use super::venv::Python;

/// Questions before those that count: memory is touched, code is compiled.
const WARM_UP: usize = 2;

/// Where time is short, a bench that has taken this long ends after [`FEWEST`] rounds.
const PATIENCE: Duration = Duration::from_secs(60);
const FEWEST: usize = 3;

/// What all benches are run with.
pub struct Machine {
    pub host: PathBuf,
    pub worker: PathBuf,
    /// `bench/peers`
    pub peers: PathBuf,
    /// Weights, batches and logs.
    pub folder: PathBuf,
    pub python: Option<Python>,
    pub rounds: usize,
    pub quick: bool,
    pub threads: usize,
    /// Programs that wanted a core before the first bench.
    pub load: Option<f64>,
}

/// What a bench came to.
pub struct Measured {
    pub bench: &'static Bench,
    pub ours: Shown,
    pub peers: Vec<PeerShown>,
    /// Peers that did not run, and why.
    pub absent: Vec<String>,
}

pub struct PeerShown {
    /// `avx512`, `stock, shared state`
    pub name: String,
    /// Whether it does the same thing as ours, and so may be the one to beat.
    pub plain: bool,
    /// Whether its losses must be ours.
    pub agrees: bool,
    pub shown: Shown,
}

/// A peer that is to be started, or started anew each time.
struct Candidate {
    name: String,
    peer: &'static Peer,
    way: &'static Way,
}

pub fn bench(bench: &'static Bench, machine: &Machine) -> Result<Measured> {
    let folder = machine.folder.join(bench.name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    match bench.ours {
        Ours::Job(job) => alive(bench, job, machine, &folder),
        Ours::FirstStep(_) | Ours::Command(_) => anew(bench, machine, &folder),
    }
}

/// All sides live through the bench.
fn alive(bench: &'static Bench, job: &str, machine: &Machine, folder: &Path) -> Result<Measured> {
    let mut command = Command::new(&machine.worker);
    command.arg(job).arg("--export").arg(folder).arg("--threads").arg(machine.threads.to_string());
    let started = Side::start(&mut command, &folder.join("ours.log"));
    let mut ours = started.map_err(|reason| anyhow::anyhow!("{}: {reason}", bench.name))?;
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for candidate in candidates(bench, machine) {
        let log = folder.join(format!("{}.log", candidate.name));
        let side =
            command_of(&candidate, machine, folder).and_then(|mut command| Side::start(&mut command, &log));
        match side {
            Ok(side) => peers.push((candidate, side)),
            Err(reason) => absent.push(format!("{}: {reason}", candidate.name)),
        }
    }
    let start = Instant::now();
    for round in 0..WARM_UP + machine.rounds {
        if machine.quick && round >= WARM_UP + FEWEST && start.elapsed() > PATIENCE {
            break;
        }
        let counted = round >= WARM_UP;
        if let Err(reason) = ours.ask(bench.steps, counted) {
            bail!("{}: {reason}", bench.name);
        }
        let mut left = Vec::new();
        for (candidate, mut side) in peers {
            match side.ask(bench.steps, counted) {
                Ok(()) => left.push((candidate, side)),
                Err(reason) => absent.push(format!("{}: {reason}", candidate.name)),
            }
        }
        peers = left;
    }
    let ours = ours.end().map_err(|reason| anyhow::anyhow!("{}: {reason}", bench.name))?;
    let mut shown = Vec::new();
    for (candidate, side) in peers {
        match side.end() {
            Ok(side) => shown.push(peer_shown(candidate, side)),
            Err(reason) => absent.push(format!("{}: {reason}", candidate.name)),
        }
    }
    Ok(Measured { bench, ours, peers: shown, absent })
}

/// All sides are started for each question.
fn anew(bench: &'static Bench, machine: &Machine, folder: &Path) -> Result<Measured> {
    let mut measured = Measured { bench, ours: Shown::default(), peers: Vec::new(), absent: Vec::new() };
    let log = folder.join("anew.log");
    if let Ours::FirstStep(job) = bench.ours {
        let mut command = Command::new(&machine.worker);
        command.arg(job).arg("--export").arg(folder);
        first_step(&mut command, &log).map_err(|reason| anyhow::anyhow!("{}: {reason}", bench.name))?;
    }
    let mut left: Vec<(Candidate, Shown)> =
        candidates(bench, machine).into_iter().map(|candidate| (candidate, Shown::default())).collect();
    for _ in 0..machine.rounds {
        let (mut command, is_step) = match bench.ours {
            Ours::Job(job) | Ours::FirstStep(job) => {
                let mut command = Command::new(&machine.worker);
                command.arg(job).arg("--threads").arg(machine.threads.to_string());
                (command, true)
            }
            Ours::Command(arguments) => {
                let mut command = Command::new(&machine.host);
                command.args(arguments);
                (command, false)
            }
        };
        once(&mut measured.ours, &mut command, is_step, &log)
            .map_err(|reason| anyhow::anyhow!("{}: {reason}", bench.name))?;
        let mut still = Vec::new();
        for (candidate, mut shown) in left {
            let asked = command_of(&candidate, machine, folder)
                .and_then(|mut command| once(&mut shown, &mut command, is_step, &log));
            match asked {
                Ok(()) => still.push((candidate, shown)),
                Err(reason) => measured.absent.push(format!("{}: {reason}", candidate.name)),
            }
        }
        left = still;
    }
    measured.peers = left.into_iter().map(|(candidate, shown)| peer_shown(candidate, shown)).collect();
    // What a first step needs is no question of peaks.
    measured.ours.bound_seconds = None;
    Ok(measured)
}

fn once(into: &mut Shown, command: &mut Command, is_step: bool, log: &Path) -> Result<(), String> {
    let seconds = if is_step {
        let (seconds, shown) = first_step(command, log)?;
        let earlier = std::mem::replace(into, shown);
        into.seconds = earlier.seconds;
        seconds
    } else {
        whole(command)?
    };
    into.seconds.push(seconds);
    Ok(())
}

fn peer_shown(Candidate { name, peer, .. }: Candidate, shown: Shown) -> PeerShown {
    PeerShown { name, plain: peer.note.is_empty(), agrees: peer.agrees, shown }
}

fn candidates(bench: &'static Bench, machine: &Machine) -> Vec<Candidate> {
    let mut all = Vec::new();
    for peer in if machine.python.is_some() { bench.peers } else { &[] } {
        for way in &WAYS {
            if way.compile && (machine.quick || !peer.compiles) {
                continue;
            }
            let name =
                if peer.note.is_empty() { way.name.into() } else { format!("{}, {}", way.name, peer.note) };
            all.push(Candidate { name, peer, way });
        }
    }
    all
}

fn command_of(candidate: &Candidate, machine: &Machine, folder: &Path) -> Result<Command, String> {
    let Candidate { peer, way, .. } = candidate;
    let python = machine.python.as_ref().ok_or("there is no Python")?;
    let command = python.command(way.avx512);
    let mut command = command.ok_or("no C compiler for the library that MKL is to be asked by")?;
    command.arg(machine.peers.join(peer.file)).args(peer.arguments);
    if peer.exported {
        command.arg("--weights").arg(folder);
    }
    if way.compile {
        command.arg("--compile");
    }
    Ok(command)
}
