//! Random numbers of a trace: an input with the key of a stream, and `Rand` over it.
//!
//! A draw is named by its scope, so adding a layer changes no draw of the others. Its key changes with every
//! micro-batch; the iteration of the Scans around it is the second word of the counter, so a body that runs many times
//! draws anew each time. Nothing is kept: a resumed run finds the same keys.

use data::{stream_number, threefry};
use graph::{Builder, DType, NodeId, Op, Ty};

use super::tracer::State;

/// Inputs of this prefix are keys, u32[2], followed by the path of the draw.
const PREFIX: &str = "random.";

/// The key of an input in the micro-batch of this number, counted through all steps; None for an input that is no key.
pub fn key(input: &str, seed: u64, micro_batch: u64) -> Option<[u32; 2]> {
    let path = input.strip_prefix(PREFIX)?;
    let seed = [seed as u32, (seed >> 32) as u32];
    // The number has 32 bits there: draws repeat after four billion micro-batches.
    Some(threefry(seed, [stream_number(path), micro_batch as u32]))
}

/// Words of the extents `dims`, of a stream of their own.
pub(super) fn draw(state: &mut State<'_>, dims: &[usize]) -> NodeId {
    let count = dims.iter().map(|dim| *dim as u128).fold(1, u128::saturating_mul);
    let Some(count) = u32::try_from(count).ok().filter(|count| *count > 0) else {
        let message = format!("draws random numbers of extents {dims:?}");
        return state.graph.fail(Some(Op::Rand), message, "one draw has 1 to 2^32 - 1 words");
    };
    let path = next_path(state);
    let key = state.graph.input(&format!("{PREFIX}{path}"), Ty::new(DType::U32, &[2]));
    let loops: Vec<(usize, NodeId)> = state.regions.iter().filter_map(|region| region.steps).collect();
    Builder::with(&mut state.graph, |b| {
        let index = b.iota(0, DType::U32, &[count as usize]);
        let first = b.constant(0.0, &Ty::scalar(DType::I32));
        let iteration =
            loops.into_iter().fold(first, |outer, (length, step)| outer.scale(length as f64) + b.var(step));
        let word = |place: usize| b.var(key).slice(&[(place, 1)]).like(index);
        let operands = [index, word(0), word(1), iteration.cast(DType::U32).like(index)].map(|x| x.id);
        b.var(b.emit(Op::Rand, &operands, &[], &[])).reshape(dims).id
    })
}

/// The scope's path; from its second draw on with `#1`, `#2`, ...
fn next_path(state: &mut State<'_>) -> String {
    let scope = state.graph.current_scope().to_string();
    let drawn = state.draws.entry(scope.clone()).or_insert(0);
    *drawn += 1;
    if *drawn == 1 { scope } else { format!("{scope}#{}", *drawn - 1) }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn keys_differ_by_seed_path_and_micro_batch() {
        let keys = [
            ("random.a", 1, 0),
            ("random.a", 2, 0),
            ("random.a", 1 << 32, 0),
            ("random.b", 1, 0),
            ("random.a", 1, 1),
        ];
        let mut keys: Vec<_> = keys.map(|(input, seed, index)| key(input, seed, index)).into();
        assert!(keys.iter().all(Option::is_some));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 5);
        assert_eq!(key("learning_rate", 1, 0), None);
    }
}
