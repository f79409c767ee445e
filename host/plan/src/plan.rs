//! A plan and a set of plans over one State slab.

use ops::DType;

use crate::{Launch, Slot, TileKernel};

/// What one replay does, from uploaded inputs to outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `step`, `accumulate`, `apply`, `eval`, `logits`, ...
    pub name: String,
    pub inputs: Vec<IoSlot>,
    pub outputs: Vec<IoSlot>,
    /// Conditions that launches may name, by index.
    pub guards: Vec<Guard>,
    /// Distinct kernels; launches refer to them by index, so equal layers share one.
    pub kernels: Vec<TileKernel>,
    pub launches: Vec<Launch>,
    /// Bytes of the arena this plan needs.
    pub arena_bytes: usize,
    /// The first bytes of the arena hold the small inputs, in order, so that one copy fills them all.
    pub block_bytes: usize,
    /// The largest sum of live buffers over the launches: no planner can go below it.
    pub live_bytes: usize,
    /// What is alive where that is, the largest first. No part of the digest.
    pub peak: Vec<Held>,
    /// Names of the States it reads and of those it writes.
    pub reads: Vec<String>,
    pub writes: Vec<String>,
}

/// A tensor in the arena, for people who wonder what takes the memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Scope path, op and extents: `layers.3.mlp: Erf [64,256,512]`.
    pub name: String,
    pub bytes: usize,
}

/// Holds where the number in an input, plus `shift`, is `offset` modulo `period`. The host uploaded that number, so it
/// skips launches without asking the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Index of an i32[] input.
    pub input: usize,
    pub shift: i64,
    pub period: i64,
    pub offset: i64,
}

impl Guard {
    pub fn holds(&self, counter: i32) -> bool {
        (i64::from(counter) + self.shift).rem_euclid(self.period) == self.offset
    }
}

/// A named tensor that the host uploads before or downloads after a replay. It lives in the arena.
#[derive(Clone, Debug, PartialEq)]
pub struct IoSlot {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub slot: Slot,
}

/// Where each State lies in the slab.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateLayout {
    pub slots: Vec<StateSlot>,
    pub bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StateSlot {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub slot: Slot,
}

/// The plans of a run. They share one State slab and take turns in one arena.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanSet {
    pub states: StateLayout,
    pub plans: Vec<Plan>,
}

impl StateLayout {
    pub fn find(&self, name: &str) -> Option<&StateSlot> {
        self.slots.iter().find(|slot| slot.name == name)
    }
}

impl PlanSet {
    /// The arena of a run: the largest of its plans'.
    pub fn arena_bytes(&self) -> usize {
        self.plans.iter().map(|plan| plan.arena_bytes).max().unwrap_or(0)
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.plans.iter().position(|plan| plan.name == name)
    }

    /// Hash over the text of all plans and the State layout: equal digests compute equal bits on one device.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.to_string().as_bytes());
        hasher.finalize().to_hex()[..32].to_string()
    }
}
