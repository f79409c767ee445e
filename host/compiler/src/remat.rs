//! Placeholder.
use plan::DeviceCaps;
use crate::Module;
pub fn run(_module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> { Ok(()) }
