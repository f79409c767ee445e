//! The engine: from a command to a trained model in a run folder.
//!
//! `config` layers what the user asked for, `plugins` finds and opens libraries, `trace` turns components into
//! graphs, `machine` runs graphs on one of the `devices`, `run` trains, evaluates, samples, saves and reports, `session`
//! is a trained model that reads on, `evals` measures one, `bisect` compares one step with the interpreter,
//! `profile` says where the time of a step goes. Nothing here prints: progress leaves as events.

#![deny(unsafe_code)]

pub mod bisect;
pub mod config;
pub mod devices;
mod dump;
mod error;
pub mod evals;
mod files;
pub mod machine;
mod nearest;
pub mod plugins;
pub mod profile;
mod resources;
pub mod run;
pub mod session;
pub mod trace;

pub use error::Error;
pub use nearest::suggest;
