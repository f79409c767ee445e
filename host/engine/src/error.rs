//! Errors as a person reads them: what happened, where, and what to do.

use std::path::{Path, PathBuf};

use graph::GraphError;
use plan::DeviceError;

/// Anything that stops a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A whole sentence: what, where, what to do.
    #[error("{0}")]
    Said(String),
    #[error("{}: {}; {hint}", path.display(), reason(source))]
    File { path: PathBuf, source: std::io::Error, hint: &'static str },
    #[error(transparent)]
    Data(#[from] data::DataError),
    #[error(transparent)]
    Compile(#[from] compiler::CompileError),
    #[error("{device}{remedy}", device = .0, remedy = remedy(.0))]
    Device(#[from] DeviceError),
    #[error("the trace of {plan} failed{}", first(errors))]
    Trace { plan: String, errors: Vec<GraphError> },
}

/// What to do about a device that refuses; its other errors say enough.
fn remedy(error: &DeviceError) -> &'static str {
    match error {
        DeviceError::OutOfMemory { .. } => {
            "; lower train.batch and raise train.accumulate instead, or lower train.window or the model's size"
        }
        DeviceError::Lost { .. } => {
            "; checkpoints are kept: go on from the last with --resume, and --device cpu if the device stays away"
        }
        _ => "",
    }
}

/// ` in scope: the first error`; what follows it is mostly its consequence.
fn first(errors: &[GraphError]) -> String {
    let first = errors.first().map(GraphError::to_string).unwrap_or_default();
    let first = match first.strip_prefix("top level: ") {
        Some(message) => format!(": {message}"),
        None => format!(" in {first}"),
    };
    match errors.len() {
        0 | 1 => first,
        count => format!("{first} ({} more after it; HOST_LOG=engine=debug shows them)", count - 1),
    }
}

/// What the system says, without its number and without the name of a file that only we know.
pub(crate) fn reason(source: &std::io::Error) -> String {
    let text = source.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

impl Error {
    pub fn said(text: impl Into<String>) -> Error {
        Error::Said(text.into())
    }

    pub fn file(path: &Path, hint: &'static str) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_path_buf();
        move |source| Error::File { path, source, hint }
    }
}
