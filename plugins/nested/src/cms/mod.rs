//! Continuum memory systems (Behrouz et al. 2025, eq. 70 and 71): a chain of levels, each a small network whose weights
//! are a memory, written at its own pace from what it has read and was taught.
//!
//! B sequences, C tokens of a chunk, D width, H hidden width. `level` is the network and its weights, `matrix` a weight
//! matrix that is written by outer products, `gate` the surprise that lets a write happen, `buffer` what a level has
//! pending, `carry` what is pending when a trace ends, `chain` the levels of a block in their order.

mod buffer;
mod carry;
mod chain;
mod gate;
mod level;
mod matrix;

pub use carry::flush;
pub use chain::{Chain, Reading, Stats};
pub use gate::{Gate, GateOf, Metric, Surprise};

use plugin_api::options;

options! {
    /// What the outer gradient sees of a write.
    #[derive(Default)]
    pub enum WriteGrad {
        /// Nothing: weights in use count as the initial ones.
        None,
        /// The last write of each level.
        Chunk,
        /// All writes.
        #[default]
        Full,
    }
}

options! {
    /// How written matrices are held.
    #[derive(Default)]
    pub enum Form {
        /// Whichever needs fewer operations.
        #[default]
        Auto,
        /// As a matrix for each sequence.
        Dense,
        /// As the shared matrix and the outer products that were written to it.
        Factored,
    }
}

/// How the levels of a chain are made and written.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Hidden width H.
    pub hidden: usize,
    /// Tokens between two writes of each level, from the fastest to the slowest.
    pub periods: Vec<usize>,
    /// Step of each level's writes.
    pub rates: Vec<f64>,
    /// Whether steps are trained: each level then has a parameter `log_rate`.
    pub learn_rates: bool,
    /// What a write leaves of all earlier ones.
    pub retain: f64,
    pub write_grad: WriteGrad,
    pub form: Form,
    pub gate: Gate,
}
