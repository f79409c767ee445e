//! Writing to the terminal without panicking: `println!` does when `host config show | head` closes the pipe early.

use std::io::{ErrorKind, Write};

use engine::Error;

/// Writes the result of a command. A reader who has seen enough is no error; a full disk is.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::said(format!("standard output cannot be written ({error}); check where it goes")))
        }
        _ => Ok(()),
    }
}

/// Writes to standard error; if that fails, nothing is left to say it with.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
