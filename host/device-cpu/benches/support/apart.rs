//! Times of launches as they are in a step, where operands come from memory.

use plan::*;

use crate::support::times;

/// Median time of a launch whose operands have not been used for a while, as they are found in a step: it is repeated over
/// others that take as much memory as a third cache, or over eight.
pub fn time_apart(threads: usize, lengths: &[usize], op: impl Fn(&[Slot]) -> LaunchOp) -> f64 {
    const CACHES: usize = 96 << 20;
    let bytes = 4 * lengths.iter().sum::<usize>();
    let times = times(threads, Vec::new(), lengths, (CACHES / bytes).clamp(2, 8), op);
    times[times.len() / 2]
}
