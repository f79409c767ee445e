//! Executes plans on the CPU.
//!
//! Matrix products go to our own kernel or the `gemm` crate, fused clusters to a vector machine over tiles, all as tasks of our own
//! pool. Results have the same bits for any number of threads and any instruction set of the tile machine.

mod abreast;
mod attention;
mod cross_entropy;
mod delta;
mod device;
mod gemm;
mod groups;
mod held;
mod lanes;
mod math;
mod memory;
mod panel;
mod place;
mod pool;
mod product;
mod scatter;
mod team;
mod tile;

#[cfg(test)]
mod tests;

pub use device::Cpu;
