//! What a comparison tells: one line a case and device, what was left out and why, and a last line that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Device;

/// How far a case is from its values.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Largest error over all tensors.
    pub error: f64,
    pub tolerance: f64,
    /// Tensors of the case that the computation has no name for.
    pub missing: Vec<String>,
}

/// Why a case failed, with its numbers where it got that far.
#[derive(Clone, Debug)]
pub struct Failure {
    pub reason: String,
    pub measure: Option<Measure>,
}

/// How a case ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    Pass(Measure),
    Fail(Failure),
    Unsupported(String),
}

/// A case on a device; no device where it ended before one was needed.
#[derive(Clone, Debug)]
pub struct Line {
    pub case: String,
    pub device: Option<Device>,
    pub verdict: Verdict,
}

/// All lines.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub lines: Vec<Line>,
}

/// How many cases are named for one reason to leave them out.
const NAMED: usize = 3;

impl Verdict {
    pub(super) fn broken(reason: String) -> Verdict {
        Verdict::Fail(Failure { reason, measure: None })
    }
}

impl Line {
    pub(super) fn of(case: &str, device: Option<Device>, verdict: Verdict) -> Line {
        Line { case: case.into(), device, verdict }
    }
}

impl Report {
    pub fn passed(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Pass(_))).count()
    }

    pub fn failed(&self) -> usize {
        self.failures().count()
    }

    pub fn failures(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Fail(_)))
    }

    /// Cases that nothing computes yet.
    pub fn unsupported(&self) -> usize {
        self.left_out().into_values().map(|cases| cases.len()).sum()
    }

    /// One line for each reason to leave cases out, the most frequent first.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self.left_out().into_iter().collect();
        reasons.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
        let line = |(why, cases): (&str, Vec<&str>)| {
            let more = if cases.len() > NAMED { ", ..." } else { "" };
            format!("{:>4} {why}: {}{more}", cases.len(), cases[..cases.len().min(NAMED)].join(", "))
        };
        reasons.into_iter().map(line).collect()
    }

    /// Cases by the reason to leave them out, each once though every device says it.
    fn left_out(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for line in &self.lines {
            if let Verdict::Unsupported(why) = &line.verdict
                && seen.insert(&line.case)
            {
                reasons.entry(why).or_default().push(&line.case);
            }
        }
        reasons
    }
}

/// Tensors without a value that a line names.
const MOST_MISSING: usize = 4;

/// What stands above the lines.
pub fn heading() -> String {
    columns("case", "device", "error", "allowed", "")
}

fn columns(case: &str, device: &str, error: &str, tolerance: &str, text: &str) -> String {
    let line = format!("{case:<40} {device:<11} {error:>8} {tolerance:>8}  {text}");
    line.trim_end().into()
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.map_or("-", Device::name);
        let (measure, text) = match &self.verdict {
            Verdict::Pass(measure) if measure.missing.is_empty() => (Some(measure), "pass".to_string()),
            Verdict::Pass(measure) => {
                let named = measure.missing[..measure.missing.len().min(MOST_MISSING)].join(", ");
                let more = measure.missing.len().saturating_sub(MOST_MISSING);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                (Some(measure), format!("pass (without {named}{more})"))
            }
            Verdict::Fail(Failure { reason, measure }) => (measure.as_ref(), format!("fail: {reason}")),
            Verdict::Unsupported(why) => (None, format!("unsupported ({why})")),
        };
        let (error, tolerance) = match measure {
            Some(measure) => (format!("{:.1e}", measure.error), format!("{:.1e}", measure.tolerance)),
            None => ("-".into(), "-".into()),
        };
        f.write_str(&columns(&self.case, device, &error, &tolerance, &text))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "golden values:")?;
        for device in Device::ALL {
            let count = |is: fn(&Verdict) -> bool| {
                let own = self.lines.iter().filter(|line| line.device == Some(device));
                own.filter(|line| is(&line.verdict)).count()
            };
            let passed = count(|verdict| matches!(verdict, Verdict::Pass(_)));
            let failed = count(|verdict| matches!(verdict, Verdict::Fail(_)));
            if passed + failed > 0 {
                write!(f, " {} {passed} passed, {failed} failed;", device.name())?;
            }
        }
        let unread = |line: &&Line| line.device.is_none() && matches!(line.verdict, Verdict::Fail(_));
        match self.lines.iter().filter(unread).count() {
            0 => {}
            count => write!(f, " {count} could not be read;")?,
        }
        write!(f, " {} not supported", self.unsupported())
    }
}
