//! The op table: every operation a plugin can emit, with its number, name, arity and attributes.
//!
//! This is the one vocabulary that the plugin façade, the graph and the op reference share. Numbers are part of
//! the ABI: rows are only ever appended, and a number is never reused. The crate depends on nothing; what an operation
//! *means* is said once, in `graph`'s interpreter. The one thing computed here is the random word, which several
//! crates must agree on to the bit.

#![forbid(unsafe_code)]

pub mod attention;
mod dtype;
mod table;
mod threefry;

pub use dtype::DType;
pub use table::{Class, Op, Row};
pub use threefry::{random_word, threefry, threefry_abreast};

/// Version of the op set. A plugin states the one it was built with; it grows with every appended row.
pub const OP_SET_VERSION: u32 = 2;

/// How many axes a tensor may have.
pub const MAX_RANK: usize = 8;
