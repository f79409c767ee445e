//! The one seam between the engine and a device.

use crate::PlanSet;

/// What the compiler has to know about a device.
#[derive(Clone, Debug)]
pub struct DeviceCaps {
    /// `cpu`, `wgpu`, `cuda`.
    pub name: &'static str,
    /// Most memory operands of one kernel.
    pub max_bindings: usize,
    /// Longest row whose elements a RowReduce kernel may use again after a reduction; a longer row is reduced in a
    /// kernel of its own.
    pub max_row: usize,
    /// Which attentions it has hand kernels for, forward and backward; None: each is decomposed.
    pub attention: Option<AttentionCaps>,
    /// Which cross-entropies from hidden states it has a hand kernel for; None: each is decomposed.
    pub cross_entropy: Option<CrossEntropyCaps>,
    /// Which gated delta rules it has hand kernels for, forward and backward; None: each is decomposed.
    pub delta: Option<DeltaCaps>,
}

/// Attentions that hand kernels take; others are decomposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionCaps {
    /// Largest width of a head, of keys and of values.
    pub max_width: usize,
}

/// LinearCrossEntropy and its derivative that a hand kernel takes; others are decomposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossEntropyCaps {
    /// Fewest logits: tokens times vocabulary.
    pub min_logits: usize,
    /// Smallest vocabulary.
    pub min_vocabulary: usize,
}

/// Gated delta rules that hand kernels take; others are decomposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaCaps {
    /// Largest width of a head, of keys and of values.
    pub max_width: usize,
}

/// A device error: what happened and where. The engine adds what to do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("{what}: the device could not allocate {bytes} bytes")]
    OutOfMemory { what: String, bytes: usize },
    #[error("plan {plan}: {reason}")]
    BadPlan { plan: String, reason: String },
    #[error("plan {plan}, {launch}: {reason}")]
    Launch { plan: String, launch: String, reason: String },
    #[error("no {kind} named {name:?}")]
    Unknown { kind: &'static str, name: String },
    #[error("{name}: got {got} bytes where the tensor has {want}")]
    WrongSize { name: String, got: usize, want: usize },
    /// The device is not there, or lacks what the plans need.
    #[error("{device}: {reason}")]
    Unavailable { device: String, reason: String },
    /// It was there and is gone: reset, pulled out, or taken by its driver. What it held is gone, too.
    #[error("{device} was lost: {reason}")]
    Lost { device: String, reason: String },
}

/// What a replay computed, one after another as in `Plan::outputs`: there, or on its way.
#[derive(Debug, PartialEq)]
pub enum Outputs {
    Here(Vec<Vec<u8>>),
    /// The device's own number of them.
    Coming(u64),
}

/// Executes plans. Bytes are little-endian, row-major.
pub trait Device {
    /// Name and model of the hardware, for the run's record.
    fn describe(&self) -> String;

    /// Checks the plans, maps both memories, compiles kernels. State starts as zeros.
    fn load(&mut self, set: PlanSet) -> Result<(), DeviceError>;

    fn write_state(&mut self, name: &str, bytes: &[u8]) -> Result<(), DeviceError>;

    fn read_state(&self, name: &str) -> Result<Vec<u8>, DeviceError>;

    /// Sets some bytes of a State, those from `start` on: a large one need never be held a second time.
    fn write_state_part(&mut self, name: &str, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut whole = self.read_state(name)?;
        let want = whole.len().saturating_sub(start);
        let part = whole.get_mut(start..start + bytes.len());
        let wrong = || DeviceError::WrongSize { name: name.to_string(), got: bytes.len(), want };
        part.ok_or_else(wrong)?.copy_from_slice(bytes);
        self.write_state(name, &whole)
    }

    /// Reads bytes of a State, those from `start` on.
    fn read_state_part(&self, name: &str, start: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let whole = self.read_state(name)?;
        let want = whole.len().saturating_sub(start);
        let wrong = || DeviceError::WrongSize { name: name.to_string(), got: bytes.len(), want };
        let part = whole.get(start..start + bytes.len()).ok_or_else(wrong)?;
        bytes.copy_from_slice(part);
        Ok(())
    }

    /// Sets an input of a plan by its index in `Plan::inputs`. Uploads hold until another plan is replayed.
    fn upload(&mut self, plan: usize, input: usize, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Runs a plan once.
    fn replay(&mut self, plan: usize) -> Result<(), DeviceError>;

    /// As `replay`, with a clock around each launch: tells the index and the nanoseconds of those whose guards hold.
    fn replay_timed(&mut self, plan: usize, sink: &mut dyn FnMut(usize, u64)) -> Result<(), DeviceError>;

    /// Reads an output of the plan replayed last, by its index in `Plan::outputs`.
    fn download(&self, plan: usize, output: usize) -> Result<Vec<u8>, DeviceError>;

    /// All outputs of the plan replayed last, `count` of them. A device that works on its own need not have computed them:
    /// other plans may be replayed before they are fetched. By default a replay is over when it returns.
    fn outputs(&mut self, plan: usize, count: usize) -> Result<Outputs, DeviceError> {
        let all = (0..count).map(|output| self.download(plan, output));
        Ok(Outputs::Here(all.collect::<Result<_, _>>()?))
    }

    /// Waits for outputs, which are fetched once.
    fn fetch(&mut self, outputs: Outputs) -> Result<Vec<Vec<u8>>, DeviceError> {
        match outputs {
            Outputs::Here(all) => Ok(all),
            Outputs::Coming(number) => Err(DeviceError::Unknown { kind: "replay", name: number.to_string() }),
        }
    }
}
