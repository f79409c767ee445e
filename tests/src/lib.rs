//! What the cross-crate tests share.

#![forbid(unsafe_code)]

pub mod bench;
pub mod conformance;
pub mod devices;
mod fixtures;
pub mod fuzz;
pub mod golden;
pub mod presets;
pub mod programs;
pub mod replay;
mod sandbox;
pub mod windows;

pub use fixtures::{fixture, library};
pub use sandbox::{Outcome, Run, SMALL, Sandbox, host, root, says};
