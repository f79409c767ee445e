//! Errors as a person reads them: what happened, where, and what to do.

use std::path::{Path, PathBuf};

use graph::GraphError;

/// Anything that stops a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A whole sentence: what, where, what to do.
    #[error("{0}")]
    Said(String),
    #[error("{}: {source}; {hint}", path.display())]
    File { path: PathBuf, source: std::io::Error, hint: &'static str },
    #[error(transparent)]
    Data(#[from] data::DataError),
    #[error(transparent)]
    Compile(#[from] compiler::CompileError),
    #[error(transparent)]
    Device(#[from] plan::DeviceError),
    #[error("the trace of {plan} failed:\n{}", list(errors))]
    Trace { plan: String, errors: Vec<GraphError> },
}

/// The first few errors; what follows them is mostly their consequence.
fn list(errors: &[GraphError]) -> String {
    const SHOWN: usize = 3;
    let mut lines: Vec<String> = errors.iter().take(SHOWN).map(|error| format!("  {error}")).collect();
    if errors.len() > SHOWN {
        lines.push(format!("  and {} more", errors.len() - SHOWN));
    }
    lines.join("\n")
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
