//! One side of a bench: a process that answers questions, or one that is started anew each time.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

/// Everything that one side has shown.
#[derive(Default)]
pub struct Shown {
    /// Seconds of a step, one for each question.
    pub seconds: Vec<f64>,
    /// NaN where there is none.
    pub losses: Vec<f64>,
    pub peak_bytes: u64,
    /// Of that, what importing its libraries alone takes.
    pub import_bytes: u64,
    pub bound_seconds: Option<f64>,
    /// Of the machine, as our side found it: FLOP/s and bytes/s.
    pub peaks: Option<(f64, f64)>,
}

/// A process that has said it is ready.
pub struct Side {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where its standard error goes.
    log: PathBuf,
    pub shown: Shown,
}

impl Side {
    /// Waits until it is ready. The error is the last thing it said; all of it is in `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Side, String> {
        let errors = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let name = command.get_program().display().to_string();
        let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{name}: it has no pipes"));
        };
        let answers = BufReader::new(answers);
        let mut side = Side { child, questions, answers, log: log.into(), shown: Shown::default() };
        side.answer()?;
        Ok(side)
    }

    /// Asks for `steps` steps; where they are `counted`, their mean time is kept.
    pub fn ask(&mut self, steps: usize, counted: bool) -> Result<(), String> {
        self.tell(&steps.to_string())?;
        let answer = self.answer()?;
        let number = |key: &str| answer[key].as_f64().unwrap_or(f64::NAN);
        self.shown.losses.push(number("loss"));
        if counted {
            self.shown.seconds.push(number("seconds"));
        }
        Ok(())
    }

    /// Lets it end.
    pub fn end(mut self) -> Result<Shown, String> {
        self.tell("end")?;
        let answer = self.answer()?;
        let bytes = |key: &str| answer[key].as_u64().unwrap_or(0);
        self.shown.peak_bytes = bytes("peak_bytes");
        self.shown.import_bytes = bytes("import_bytes");
        self.shown.bound_seconds = answer["bound_seconds"].as_f64();
        self.shown.peaks = answer["flops_per_second"].as_f64().zip(answer["bytes_per_second"].as_f64());
        self.child.wait().map_err(|error| error.to_string())?;
        Ok(std::mem::take(&mut self.shown))
    }

    fn tell(&mut self, line: &str) -> Result<(), String> {
        let told = writeln!(self.questions, "{line}").and_then(|()| self.questions.flush());
        told.map_err(|error| self.failure(&error.to_string()))
    }

    /// The next line of JSON; libraries may print others.
    fn answer(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).map_err(|error| error.to_string())?;
            if read == 0 {
                return Err(self.failure("it ended"));
            }
            if let Ok(value @ Value::Object(_)) = serde_json::from_str(&line) {
                return Ok(value);
            }
        }
    }

    /// What a process that has failed said last.
    fn failure(&mut self, otherwise: &str) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        last.unwrap_or(otherwise).trim().to_string()
    }
}

/// Seconds from the start of a process to the answer to its first question, and that answer's loss.
pub fn first_step(command: &mut Command, log: &Path) -> Result<(f64, Shown), String> {
    let clock = Instant::now();
    let mut side = Side::start(command, log)?;
    side.ask(1, false)?;
    let seconds = clock.elapsed().as_secs_f64();
    Ok((seconds, side.end()?))
}

/// Seconds that a process takes from start to end.
pub fn whole(command: &mut Command) -> Result<f64, String> {
    let clock = Instant::now();
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let seconds = clock.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it failed").to_string();
    if output.status.success() { Ok(seconds) } else { Err(last) }
}

impl Drop for Side {
    /// Nobody is left behind where a bench fails half-way.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
