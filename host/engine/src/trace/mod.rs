//! From components to graphs: one trace per plan, all over the same parameter banks.

mod alone;
mod banks;
mod builder;
mod programs;
mod random;
mod regions;
mod sequence;
mod split;
mod tracer;
mod update;

pub use alone::{Window, loss_alone};
pub use banks::{Bank, Banks, Parameter, Place};
pub use programs::{Program, Programs, Shape};
pub use random::key;
pub use regions::open_region;
pub use tracer::{Context, STEP_INDEX, Scalar, Traced, Tracer};
pub use update::{GlobalNorm, banks_alone, clipped, global_norm, update_alone};
