//! What a comparison found, as data: the command line prints it.

/// The outcome for one step.
#[derive(Clone, Debug)]
pub struct Report {
    /// Counted from 1.
    pub step: u64,
    /// Steps done at the checkpoint that the replay began from; 0 where it began from initial values.
    pub from: u64,
    pub tolerance: f64,
    /// Nodes compared.
    pub nodes: usize,
    /// The first node beyond the tolerance, or finite on one side only.
    pub found: Option<Finding>,
    /// The first node with a value that is not finite on the device, up to there.
    pub non_finite: Option<Finding>,
    /// The node with the largest error among those within the tolerance.
    pub worst: Option<Finding>,
}

/// One node at its worst element.
#[derive(Clone, Debug)]
pub struct Finding {
    /// `step`, `accumulate` or `apply`.
    pub plan: &'static str,
    /// Scope path; empty at the top level.
    pub scope: String,
    /// Op, number and type, or the name of an input or State.
    pub node: String,
    /// The parameter that the element belongs to, where the node is a bank of them.
    pub parameter: Option<String>,
    pub operands: Vec<Operand>,
    /// Row-major.
    pub element: usize,
    /// What the op makes of the device's operands in double precision.
    pub expected: f64,
    pub actual: f64,
    /// What the whole step in double precision has there.
    pub exact: f64,
    /// |expected - actual| relative to the largest number of the tensor, or of what is summed in it.
    pub error: f64,
}

#[derive(Clone, Debug)]
pub struct Operand {
    /// Name or op, and type.
    pub node: String,
    /// Smallest and largest finite value on the device.
    pub range: (f64, f64),
    /// Elements that are not finite.
    pub non_finite: usize,
}

impl Report {
    pub(super) fn new(step: u64, from: u64, tolerance: f64) -> Report {
        Report { step, from, tolerance, nodes: 0, found: None, non_finite: None, worst: None }
    }

    /// Whether the step is what it should be: every node within the tolerance and finite.
    pub fn is_clean(&self) -> bool {
        self.found.is_none() && self.non_finite.is_none()
    }
}
