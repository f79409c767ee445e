//! The devices that the conformance suite runs on: one entry each. A device is added here and nowhere else in the
//! tests.

use device_cpu::Cpu;
use device_wgpu::Wgpu;
use plan::{CrossEntropyCaps, Device, DeviceCaps};

/// A way to open a device. Entries whose caps have one name must give equal bits on one plan.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub caps: fn() -> DeviceCaps,
    /// None where the machine lacks what the device needs; its name then says so in a notice.
    pub open: fn() -> Option<Box<dyn Device>>,
    /// Its own compiler may fuse a product with a sum and divide with an error of a few units: a number has three times
    /// the units in the last place that an op's row allows, and bits may depend on what else a kernel computes.
    pub rounds_freely: bool,
    /// Takes the cases whose seed is a multiple of this, and of larger programs a fifth of those: a software adapter
    /// compiles for longer than it computes. An odd number meets every dtype, with derivatives and without.
    pub every: u64,
}

pub const DEVICES: &[Entry] = &[
    Entry {
        name: "cpu",
        caps: Cpu::caps,
        open: || Some(Box::new(Cpu::new(1))),
        rounds_freely: false,
        every: 1,
    },
    Entry {
        name: "cpu with 2 threads",
        caps: Cpu::caps,
        open: || Some(Box::new(Cpu::new(2))),
        rounds_freely: false,
        every: 1,
    },
    Entry {
        name: "cpu with 3 threads",
        caps: Cpu::caps,
        open: || Some(Box::new(Cpu::new(3))),
        rounds_freely: false,
        every: 1,
    },
    Entry {
        name: "cpu with small kernels",
        caps: small_kernels,
        open: || Some(Box::new(Cpu::new(1))),
        rounds_freely: false,
        every: 1,
    },
    Entry {
        name: "cpu with small kernels, 3 threads",
        caps: small_kernels,
        open: || Some(Box::new(Cpu::new(3))),
        rounds_freely: false,
        every: 1,
    },
    Entry { name: "wgpu", caps: Wgpu::caps, open: wgpu, rounds_freely: true, every: 5 },
    Entry {
        name: "wgpu with small kernels",
        caps: wgpu_small_kernels,
        open: wgpu,
        rounds_freely: true,
        every: 15,
    },
];

/// The first adapter, software too.
pub fn wgpu() -> Option<Box<dyn Device>> {
    let adapter = device_wgpu::adapters().into_iter().next()?;
    Some(Box::new(Wgpu::new(adapter)))
}

/// The graphics device with hand kernels also where operands are small.
pub fn wgpu_small_kernels() -> DeviceCaps {
    let cross_entropy = Some(CrossEntropyCaps { min_logits: 1, min_vocabulary: 1 });
    DeviceCaps { name: "wgpu with small kernels", cross_entropy, ..Wgpu::caps() }
}

/// The CPU with hand kernels also where operands are as small as those of tests.
pub fn small_kernels() -> DeviceCaps {
    let cross_entropy = Some(CrossEntropyCaps { min_logits: 1, min_vocabulary: 1 });
    DeviceCaps { name: "cpu with small kernels", cross_entropy, ..Cpu::caps() }
}

/// Kinds of device that are there, in order, each with its entries.
pub fn kinds() -> Vec<(&'static str, Vec<Entry>)> {
    let mut kinds: Vec<(&'static str, Vec<Entry>)> = Vec::new();
    for entry in DEVICES {
        if (entry.open)().is_none() {
            println!("skipped: {} is not there", entry.name);
            continue;
        }
        let name = (entry.caps)().name;
        match kinds.iter_mut().find(|(kind, _)| *kind == name) {
            Some((_, entries)) => entries.push(*entry),
            None => kinds.push((name, vec![*entry])),
        }
    }
    kinds
}
