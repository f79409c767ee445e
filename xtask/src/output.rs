//! Writing to the terminal without panicking: `println!` panics when `cargo xtask size | head` closes the
//! pipe early.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Writes one line to standard output: the result of a command.
pub fn line(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output as they are and shows them at once.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes one line to standard error: progress and errors. If that fails there is nowhere left to say so.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether an error only says that nobody reads our output any more, which is the reader's choice and needs
/// no message.
pub fn reader_is_gone(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
