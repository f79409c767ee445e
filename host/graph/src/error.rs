//! What went wrong at one emit, in the words of the person who wrote the layer.

use std::fmt;

use ops::Op;

/// An operation that cannot be built. Displays as `scope: Op message`, then the hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphError {
    /// Layer path, innermost last: `layers.3.attn`.
    pub scope: String,
    pub op: Option<Op>,
    /// Names the operands with dtype and dims.
    pub message: String,
    pub hint: String,
    /// Where the plugin called, when known: `src/lib.rs:31`.
    pub location: String,
}

impl std::error::Error for GraphError {}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", if self.scope.is_empty() { "top level" } else { &self.scope })?;
        if let Some(op) = self.op {
            write!(f, "{op} ")?;
        }
        f.write_str(&self.message)?;
        if !self.location.is_empty() {
            write!(f, " (at {})", self.location)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}
