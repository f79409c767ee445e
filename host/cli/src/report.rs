//! What a run prints: a head, progress lines, a table, a sample, the next command.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::run::{Evaluation, Event, Group, Started, Step, Summary};

use crate::{eval, output};

/// A line of its own at least this often where output is no terminal.
const INTERVAL: Duration = Duration::from_secs(5);
/// Tensors named of those alive at the peak.
const HELD: usize = 10;
/// How often the line on a terminal is renewed.
const REFRESH: Duration = Duration::from_millis(200);

/// Prints progress: one renewed line on a terminal, a line now and then elsewhere.
pub struct Progress {
    quiet: bool,
    terminal: bool,
    last: Option<Instant>,
    open_line: bool,
    smooth: f64,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let terminal = std::io::stdout().is_terminal();
        Progress { quiet, terminal, last: None, open_line: false, smooth: f64::NAN }
    }

    pub fn tell(&mut self, event: &Event) {
        match event {
            Event::Started(started) => print_lines(&head(started)),
            Event::Step(step) => self.step(step),
            Event::Evaluated { step, bits_per_byte, answers } => {
                let answers = answers.map(|share| format!(", {:.1} % of the answers right", 100.0 * share));
                let answers = answers.unwrap_or_default();
                self.line(&format!("step {step}: validation {bits_per_byte:.3} bits/byte{answers}"));
            }
            Event::Saved { step, path } => self.line(&format!("step {step}: saved {}", path.display())),
            Event::Measuring { task, progress } => {
                let text = format!("{task}: {} of {}", progress.done, progress.total);
                self.renew(&text);
            }
            Event::Warning(text) => self.line(&format!("warning: {text}")),
        }
    }

    fn step(&mut self, step: &Step) {
        // Mean of recent losses, so that the line is readable; metrics.jsonl has each one.
        self.smooth = if self.smooth.is_finite() { 0.9 * self.smooth + 0.1 * step.loss } else { step.loss };
        let due =
            self.last.is_none_or(|last| last.elapsed() >= if self.terminal { REFRESH } else { INTERVAL });
        let last = step.step == step.steps;
        if self.quiet || !(due || last) {
            return;
        }
        self.last = Some(Instant::now());
        let text = format!(
            "step {:>width$}/{}  loss {:.4}  lr {:.2e}  {:.0} tok/s  eta {}",
            step.step,
            step.steps,
            self.smooth,
            step.lr,
            step.tokens_per_second,
            duration(step.seconds_left),
            width = step.steps.to_string().len(),
        );
        if self.terminal && !last {
            self.renew(&text);
        } else {
            self.line(&text);
        }
    }

    /// The one renewed line of a terminal; elsewhere nothing.
    fn renew(&mut self, text: &str) {
        if self.terminal && !self.quiet {
            write(&format!("\r{text}\x1b[K"));
            self.open_line = true;
        }
    }

    fn line(&mut self, text: &str) {
        if self.open_line {
            write("\r\x1b[K");
            self.open_line = false;
        }
        print_lines(text);
    }
}

/// An output that cannot be written is no reason to stop training.
fn write(text: &str) {
    let _ = output::print(text);
}

fn print_lines(text: &str) {
    write(&format!("{text}\n"));
}

fn head(run: &Started) -> String {
    let roles = |group: &Group| {
        let roles = group.roles.iter();
        let parts = roles.map(|each| format!("{} in {} {}", count(each.elements), each.tensors, each.role));
        parts.collect::<Vec<_>>().join(", ")
    };
    let rate =
        |group: &Group| if group.rate == 1.0 { String::new() } else { format!(", lr x {}", group.rate) };
    let parameters = match &run.groups[..] {
        [group] => format!(" ({})", roles(group)),
        groups => {
            let line =
                |group: &Group| format!("\nupdate  {}{}: {}", group.optimizer, rate(group), roles(group));
            groups.iter().map(line).collect()
        }
    };
    let from = if run.first_step > 0 { format!(", from step {}", run.first_step) } else { String::new() };
    let held = run.peak.iter().take(HELD);
    let held: String =
        held.map(|held| format!("{:>20}  {}\n", bytes(held.bytes as u64), held.name)).collect();
    format!(
        "{} with {} attention, {}: {} parameters{parameters}\n\
         data    {}\n\
         device  {}, {} threads, {} kernel launches a step\n\
         memory  {} arena (live set {}), {} state, fixed for the whole run; at the peak\n{held}\
         train   {} steps of {} tokens{from}; ready after {:.1} s\n",
        run.model,
        run.attention,
        run.optimizer,
        count(run.parameters),
        run.data,
        run.device,
        run.threads,
        run.launches,
        bytes(run.arena_bytes as u64),
        bytes(run.live_bytes as u64),
        bytes(run.state_bytes as u64),
        run.steps,
        run.tokens_per_step,
        run.seconds,
    )
}

/// The end of a run that the user stopped.
pub fn stopped(folder: &Path, step: u64) {
    print_lines(&format!(
        "\nstopped and saved at step {step}; go on with\n  host run --resume {}",
        folder.display()
    ));
}

/// The end of a run.
pub fn complete(
    folder: &Path,
    summary: &Summary,
    evaluation: &Evaluation,
    sample: Option<&(String, String)>,
) {
    let mut lines = vec![String::new()];
    let mut row = |name: &str, value: String| lines.push(format!("{name:<28}{value}"));
    row(
        "validation bits/byte",
        format!(
            "{:.3}, 95 % {} ({} windows)",
            summary.val_bits_per_byte,
            range(evaluation.interval),
            evaluation.windows
        ),
    );
    if let Some(floor) = summary.floor_bits_per_byte {
        row("  floor of the corpus", format!("{floor:.3}"));
    }
    row("  bigram", format!("{:.3}", summary.bigram_bits_per_byte));
    row("  unigram", format!("{:.3}", summary.unigram_bits_per_byte));
    row("first loss", summary.init_loss.map_or("unknown".into(), |loss| format!("{loss:.4} nats")));
    if summary.skipped_steps > 0 {
        row("steps not finite", format!("{} (not applied)", summary.skipped_steps));
    }
    row("speed", format!("{:.0} tok/s", summary.tokens_per_second));
    row("arena", bytes(summary.arena_bytes as u64));
    row("peak memory", bytes(summary.peak_rss_bytes));
    if !evaluation.tags.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:<16}{:>8}{:>10}{:>16}{:>10}{:>20}",
            "bits/byte by kind", "share", "model", "95 %", "floor", "floor, no memory"
        ));
        for tag in &evaluation.tags {
            let share = format!("{:.0} %", 100.0 * tag.share);
            lines.push(format!(
                "  {:<14}{share:>9}{:>10.3}{:>16}{:>10.3}{:>20.3}",
                tag.tag,
                tag.model,
                range(tag.interval),
                tag.floor,
                tag.memoryless
            ));
        }
    }
    if !evaluation.answers.is_empty() {
        lines.push(String::new());
        lines
            .push(format!("{:<16}{:>9}{:>10}{:>16}{:>10}", "answers right", "of", "model", "95 %", "chance"));
        for answers in &evaluation.answers {
            lines.push(format!(
                "  {:<14}{:>9}{:>10}{:>16}{:>10}",
                answers.kind,
                answers.count,
                percent(answers.accuracy),
                answers.interval.map(|bound| format!("{:.1}", 100.0 * bound)).join(" to "),
                percent(answers.chance)
            ));
        }
    }
    if !summary.evals.is_empty() {
        lines.push(format!("\n{}", eval::table(&summary.evals).trim_end()));
    }
    if let Some((prompt, text)) = sample {
        lines.push(format!("\nsample (prompt in brackets)\n  [{}]{}", indent(prompt), indent(text)));
    }
    lines.push(format!("\nrun folder  {}", folder.display()));
    lines.push(format!("next        host run --resume {} --steps {}", folder.display(), 2 * summary.steps));
    print_lines(&lines.join("\n"));
}

/// 0.481 to 0.493
fn range(interval: [f64; 2]) -> String {
    interval.map(|bound| format!("{bound:.3}")).join(" to ")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n  ")
}

/// 12,345,678
fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = {
        let first = digits.len() % 3;
        let (head, tail) = digits.split_at(first);
        let tail = (0..tail.len() / 3).map(|group| &tail[3 * group..3 * group + 3]);
        std::iter::once(head).chain(tail).filter(|group| !group.is_empty()).collect()
    };
    groups.join(",")
}

fn bytes(bytes: u64) -> String {
    let mib = bytes as f64 / (1u64 << 20) as f64;
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}
