//! What the fuzzers in `tests/fuzz` run on one byte string, and what a plain test runs on some thousands.
//!
//! A function returns when the engine behaved and panics when it did not, which is what both kinds of caller look
//! for. Sizes are capped here where the engine itself would ask for memory, so that a long input is no finding.

mod bytes;
mod emit;
mod parse;
mod passes;

pub use emit::emit;
pub use parse::parse;
pub use passes::passes;

use graph::{Graph, Op};

/// Elements that a graph may have in all of its nodes together and still be run.
const AFFORDABLE: usize = 200_000;

/// Elements of all live nodes, composites taken apart.
fn elements(graph: &Graph) -> usize {
    fn of(graph: &Graph) -> usize {
        graph.nodes.iter().fold(0, |sum: usize, node| {
            let steps = match node.op {
                Op::Scan => node.scan_shape().length,
                _ => 1,
            };
            let inside = match node.op {
                Op::Scan | Op::When => of(&graph.bodies[node.ints[0] as usize]).saturating_mul(steps),
                _ => 0,
            };
            sum.saturating_add(node.ty.elements()).saturating_add(inside)
        })
    }
    of(&graph::expand(graph))
}

/// The text says all of a graph: what is read back prints the same.
fn reads_back(graph: &Graph) {
    let text = graph.to_string();
    let again = graph::parse(&text).unwrap_or_else(|error| panic!("cannot read back: {error}\n{text}"));
    assert_eq!(again.to_string(), text);
}
