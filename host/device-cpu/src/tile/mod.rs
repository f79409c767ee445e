//! Executes tile kernels: a small vector machine whose registers are tiles of some thousand elements.
//!
//! A kernel is compiled at load (`shape`: axes regrouped; `compile`: steps; `registers`: memory reused) and run as tasks
//! over tiles (`run`), each step being one pass over registers that stay in the first-level cache (`transfer`, `apply`,
//! `reduce` on `lanes`). Three builds of the steps (`isa`) give the same bits. How the work is cut depends on the kernel
//! alone, never on the number of threads.

mod apply;
mod compile;
mod isa;
mod lanes;
mod program;
mod random;
mod reduce;
mod registers;
mod run;
mod shape;
mod transfer;

#[cfg(test)]
pub use apply::supports;
pub use compile::{MAX_ROW, compile};
pub use isa::Isa;
pub use program::Program;
pub use run::{Workspace, run};
