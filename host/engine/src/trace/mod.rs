//! From components to graphs: one trace per plan, all over the same parameter banks.

mod alone;
mod banks;
mod builder;
mod carry;
mod model;
mod programs;
mod random;
mod regions;
mod sequence;
mod session;
mod split;
mod tracer;
mod update;

pub use alone::{Window, loss_alone};
pub use banks::{Bank, Banks, Parameter, Place};
pub use carry::{CONTEXT_START, Lasting, MEMORY, ROWS, STREAM_FRESH, STREAM_READ};
pub use programs::{Program, Programs, Shape};
pub use random::key;
pub use regions::open_region;
pub use sequence::{Sequence, path as memory_path};
pub use session::{POSITION, SessionPrograms, SessionShape};
pub use tracer::{Context, STEP_INDEX, Scalar, Traced, Tracer};
pub use update::{GlobalNorm, banks_alone, clipped, global_norm, update_alone};
