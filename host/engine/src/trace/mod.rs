//! From components to graphs: one trace per plan, all over the same parameter banks.

mod banks;
mod builder;
mod programs;

pub use banks::{Bank, Banks, Parameter};
pub use builder::{Context, Scalar, Traced, Tracer};
pub use programs::{Program, Programs, Shape};
