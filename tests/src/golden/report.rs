//! What a comparison tells: one line a case and device, and a last line that counts.

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
    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.lines.iter().filter(|line| is(&line.verdict)).count()
    }

    pub fn passed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Pass(_)))
    }

    pub fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Fail(_)))
    }

    pub fn unsupported(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Unsupported(_)))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.map_or("-", Device::name);
        let (measure, text) = match &self.verdict {
            Verdict::Pass(measure) if measure.missing.is_empty() => (Some(measure), "pass".to_string()),
            Verdict::Pass(measure) => {
                (Some(measure), format!("pass (without {})", measure.missing.join(", ")))
            }
            Verdict::Fail(Failure { reason, measure }) => (measure.as_ref(), format!("fail: {reason}")),
            Verdict::Unsupported(why) => (None, format!("unsupported ({why})")),
        };
        let (error, tolerance) = match measure {
            Some(measure) => (format!("{:.1e}", measure.error), format!("{:.1e}", measure.tolerance)),
            None => ("-".into(), "-".into()),
        };
        write!(f, "{:<40} {device:<11} {error:>8} {tolerance:>8}  {text}", self.case)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, unsupported) = (self.passed(), self.failed(), self.unsupported());
        write!(f, "golden values: {passed} passed, {failed} failed, {unsupported} unsupported")
    }
}
