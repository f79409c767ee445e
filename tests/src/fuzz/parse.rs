//! Any text as a graph.

use super::reads_back;

/// Reads the bytes as the text of a graph. What is no graph must be an error; what is one prints and reads back as
/// itself, and verifies or says why it does not.
pub fn parse(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(graph) = graph::parse(&text) else { return };
    reads_back(&graph);
    if graph::verify(&graph).is_ok() {
        let expanded = graph::expand(&graph);
        assert!(expanded.errors.is_empty(), "{}\n{graph}", expanded.errors[0]);
    }
}
