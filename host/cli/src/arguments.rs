//! The flag list. A test of the workspace freezes it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use engine::bisect::TOLERANCE;
use engine::config::Request;
use engine::evals::Tasks;
use scaffold::Kind;

/// An engine for architecture research on language models.
#[derive(Parser)]
#[command(name = "host", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Train a model, evaluate it and print a sample.
    Run(Box<RunArguments>),
    /// What plugins there are.
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// What a run would be configured with.
    #[command(subcommand)]
    Config(Box<ConfigCommand>),
    /// Compare one step of a run with the f64 interpreter, node by node, and name the first that is wrong.
    Bisect {
        /// Run folder.
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// Step as in metrics.jsonl, counted from 1.
        #[arg(value_name = "STEP", value_parser = whole::<u64>, allow_negative_numbers = true)]
        step: u64,
        /// Error of one op, relative to the size of its tensor, from which it is wrong.
        #[arg(long, value_name = "X", default_value_t = TOLERANCE, value_parser = positive)]
        tolerance: f64,
    },
    /// Measure a trained run.
    Eval {
        /// Run folder.
        #[arg(value_name = "RUN")]
        run: PathBuf,
        #[command(flatten)]
        tasks: TaskArguments,
        /// Prints JSON in place of a table.
        #[arg(long)]
        json: bool,
    },
    /// Build a plugin of your own, trust it and run it, and again after each change.
    Dev {
        /// Folder of its crate.
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Builds and runs it once.
        #[arg(long)]
        once: bool,
        /// Arguments of `host run`; without them, 20 steps with the crate's component and no sample.
        #[arg(value_name = "ARGS", last = true)]
        args: Vec<String>,
    },
    /// Where the time of a training step goes, launch by launch, and what this machine would need at least.
    Profile(Box<ProfileArguments>),
    /// What this machine offers and what is missing.
    Doctor,
}

#[derive(Subcommand)]
pub enum PluginsCommand {
    /// Every component in the search path; runs none of their code.
    List,
    /// Options of a component, with type, default, range and doc.
    Info {
        /// `name` or `plugin/name`.
        name: String,
    },
    /// Opens a library in a process of its own and says what it holds, or how it failed.
    Check {
        /// Library file, or the name of a plugin in the search path.
        #[arg(value_name = "PATH|NAME")]
        library: String,
        /// How long it may take.
        #[arg(long, value_name = "X", default_value_t = 10.0, value_parser = positive)]
        seconds: f64,
    },
    /// Accepts a library as it is now; a changed one is refused until it is trusted again.
    Trust {
        /// Library file, or the name of a plugin in the search path.
        #[arg(value_name = "PATH|NAME")]
        library: String,
    },
    /// Takes back what `trust` accepted.
    Untrust {
        /// Name of the plugin.
        name: String,
    },
    /// The other side of `check`.
    #[command(hide = true)]
    Inspect { library: PathBuf, report: PathBuf },
    /// A crate for a plugin of your own, which builds and does something small.
    New {
        /// What the component is.
        #[arg(value_name = "KIND", value_parser = Kind::ALL.map(Kind::word))]
        kind: String,
        /// Its name: small letters, digits and hyphens.
        #[arg(value_name = "NAME")]
        name: String,
        /// New folder; without it, KIND-NAME here.
        #[arg(long, value_name = "DIR")]
        path: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Every value, with where it came from.
    Show(Box<ConfigArguments>),
    /// Everything that a run does before its first step: options are judged, plugins traced, plans made.
    Check(Box<ConfigArguments>),
}

/// What decides a configuration.
#[derive(Args)]
pub struct ConfigArguments {
    /// Model.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Optimizer.
    #[arg(long, value_name = "NAME")]
    optim: Option<String>,
    /// Attention backbone.
    #[arg(long, value_name = "NAME")]
    attention: Option<String>,
    /// Named configuration to start from.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// TOML file over the preset; may be given again.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// One value over all files, `train.lr=0.001` or just `lr=0.001`; may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Text file, folder or JSONL; without it, the embedded story corpus.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Optimizer steps.
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true)]
    steps: Option<u64>,
    /// Decides initial values, data order and draws.
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// auto, cpu, wgpu or wgpu:N (Vulkan, Metal, DX12) or interpreter (f64, slow, the oracle).
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Threads of the CPU device; 0 means all cores.
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
    /// Most memory of State and arena, `512MiB` or bytes: values are computed again where that is less than they take.
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<String>,
}

#[derive(Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// New run folder; without it, runs/MODEL-OPTIMIZER-NNN.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Goes on with the run in this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    pub resume: Option<PathBuf>,
    /// Prints no progress lines.
    #[arg(long)]
    pub quiet: bool,
}

#[derive(Args)]
pub struct ProfileArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Steps to measure, after two to warm up: as many with a clock around each launch as without.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub replays: u64,
    /// Kernels to list; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// Prints JSON in place of tables, with every launch.
    #[arg(long)]
    pub json: bool,
}

/// What to measure.
#[derive(Args)]
pub struct TaskArguments {
    /// Evals, `perplexity,recall`; `plugins list` names those there are.
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',', required = true)]
    task: Vec<String>,
    /// Items of each task at most; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<usize>, allow_negative_numbers = true)]
    limit: usize,
    /// An option of a task, `recall.learn=false`; may be given again.
    #[arg(long, value_name = "TASK.KEY=VALUE")]
    set: Vec<String>,
}

impl TaskArguments {
    pub fn tasks(self) -> Tasks {
        Tasks { names: self.task, limit: self.limit, sets: self.set }
    }
}

/// As `parse`, in the words of a person who mistyped a number.
fn whole<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "not a whole number from 0 up")
}

fn positive(text: &str) -> Result<f64, &'static str> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or("not a number above 0")
}

impl ConfigArguments {
    pub fn request(self) -> Request {
        Request {
            model: self.plugin,
            optimizer: self.optim,
            attention: self.attention,
            preset: self.preset,
            files: self.config,
            sets: self.set,
            data: self.data,
            steps: self.steps,
            seed: self.seed,
            device: self.device,
            threads: self.threads,
            memory_budget: self.memory_budget,
            no_preset: false,
            no_evals: false,
        }
    }
}
