//! From components to graphs: one trace per plan, all over the same parameter banks.

mod banks;
mod builder;
mod programs;
mod tracer;
mod update;

pub use banks::{Bank, Banks, Parameter};
pub use programs::{Program, Programs, Shape};
pub use tracer::{Context, Scalar, Traced, Tracer};
pub use update::{GlobalNorm, clipped, global_norm, update_alone};
