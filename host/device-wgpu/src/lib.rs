//! Executes plans on Vulkan, Metal and DX12 through wgpu.
//!
//! Each launch is printed as WGSL (`wgsl`), from the plan data that the CPU device runs; pipelines and bind groups are
//! made once, and a replay is one command buffer. What is not the same bits everywhere is stated by the conformance
//! suite; one adapter gives the same bits each time.

mod adapters;
mod cache;
mod device;
mod gpu;
mod loaded;
mod memory;
mod readback;
mod sources;
mod step;
mod timing;
mod wgsl;

#[cfg(test)]
mod tests;

pub use adapters::{Adapter, adapters, automatic, choose};
pub use device::Wgpu;
pub use sources::{Source, sources};
pub use wgsl::Tiles;
