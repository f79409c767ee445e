//! The devices that the conformance suite runs on: one entry each. A device is added here and nowhere else in the
//! tests.

use device_cpu::Cpu;
use plan::{CrossEntropyCaps, Device, DeviceCaps};

/// A way to open a device. Entries whose caps have one name must give equal bits on one plan.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub caps: fn() -> DeviceCaps,
    pub open: fn() -> Box<dyn Device>,
}

pub const DEVICES: &[Entry] = &[
    Entry { name: "cpu", caps: Cpu::caps, open: || Box::new(Cpu::new(1)) },
    Entry { name: "cpu with 2 threads", caps: Cpu::caps, open: || Box::new(Cpu::new(2)) },
    Entry { name: "cpu with 3 threads", caps: Cpu::caps, open: || Box::new(Cpu::new(3)) },
    Entry { name: "cpu with small kernels", caps: small_kernels, open: || Box::new(Cpu::new(1)) },
    Entry { name: "cpu with small kernels, 3 threads", caps: small_kernels, open: || Box::new(Cpu::new(3)) },
];

/// The CPU with hand kernels also where operands are as small as those of tests.
pub fn small_kernels() -> DeviceCaps {
    let cross_entropy = Some(CrossEntropyCaps { min_logits: 1, min_vocabulary: 1 });
    DeviceCaps { name: "cpu with small kernels", cross_entropy, ..Cpu::caps() }
}

/// Kinds of device, in order, each with its entries.
pub fn kinds() -> Vec<(&'static str, Vec<Entry>)> {
    let mut kinds: Vec<(&'static str, Vec<Entry>)> = Vec::new();
    for entry in DEVICES {
        let name = (entry.caps)().name;
        match kinds.iter_mut().find(|(kind, _)| *kind == name) {
            Some((_, entries)) => entries.push(*entry),
            None => kinds.push((name, vec![*entry])),
        }
    }
    kinds
}
