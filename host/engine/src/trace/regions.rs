//! Scan and When as plugins build them: what is begun is ended, by the component that began it, or else an error says
//! where it was begun. The graph does the building; here its callers are mistrusted.

use graph::{Graph, MAX_STEPS, NodeId, Op, ScanOptions};
use plugin_api::abi::Loc;

use super::tracer::State;

/// A region that is open.
pub(super) struct Region {
    pub(super) op: Op,
    /// Number and index of its steps, for a Scan.
    pub(super) steps: Option<(usize, NodeId)>,
    /// Where it was begun.
    scope: String,
    location: String,
    /// Whether the graph has it too. What could not be opened only waits for its end.
    is_open: bool,
}

/// Opens a region. Returns as many tensors as its body expects, poisoned where that failed.
pub(super) fn begin(
    state: &mut State<'_>,
    op: u16,
    inputs: &[NodeId],
    ints: &[i64],
    loc: Loc<'_>,
) -> Vec<NodeId> {
    let is_named = |known: &Op| matches!(known, Op::Scan | Op::When);
    let named = Op::from_code(op).filter(is_named);
    let opened = named.and_then(|op| open_region(&mut state.graph, op, inputs, ints));
    if named.is_none() {
        let message = format!("begins a region with op number {op}, which has no body");
        state.graph.fail(None, message, "a region is a Scan or a When");
    }
    let op = named.unwrap_or(Op::Scan);
    let count = if op == Op::Scan { 1 + inputs.len() } else { inputs.len().saturating_sub(1) };
    let is_open = opened.is_some();
    let inside = opened.unwrap_or_else(|| vec![NodeId::POISON; count]);
    let steps = (op == Op::Scan && is_open).then(|| (ints[0] as usize, inside[0]));
    let scope = state.graph.current_scope().to_string();
    let location = state.location(loc);
    state.regions.push(Region { op, steps, scope, location, is_open });
    inside
}

/// Opens a Scan (`ints`: steps, carries, reverse = 0, recompute = 0) or a When (period, offset = 0) of a graph. Where
/// the attributes say nothing that could be opened, that is an error, and None.
pub fn open_region(graph: &mut Graph, op: Op, inputs: &[NodeId], ints: &[i64]) -> Option<Vec<NodeId>> {
    let number = |index: usize, most: usize| {
        let value = ints.get(index).copied().unwrap_or(0);
        usize::try_from(value).ok().filter(|value| *value <= most)
    };
    if op == Op::Scan && (2..=4).contains(&ints.len()) {
        let attributes = (number(0, MAX_STEPS), number(1, inputs.len()), number(2, 1), number(3, 1));
        if let (Some(length @ 1..), Some(carries), Some(reverse), Some(recompute)) = attributes {
            let (carries, xs) = inputs.split_at(carries);
            let options = ScanOptions { reverse: reverse == 1, recompute: recompute == 1 };
            return Some(graph.open_scan(length, carries, xs, options));
        }
    }
    if op == Op::When && (1..=2).contains(&ints.len()) {
        let most = i32::MAX as usize;
        if let (Some(period @ 1..), Some(offset), Some((counter, olds))) =
            (number(0, most), number(1, most), inputs.split_first())
        {
            return Some(graph.open_when(*counter, period, offset, olds));
        }
    }
    let message = format!("cannot begin with attributes {ints:?} over {} tensors", inputs.len());
    let hint = match op {
        Op::Scan => {
            format!("they are steps (1 to {MAX_STEPS}), number of carries, reverse and recompute (0 or 1)")
        }
        _ => "they are period (at least 1) and offset, over a counter and the old values".into(),
    };
    graph.fail(Some(op), message, hint);
    None
}

/// Ends the region opened last, if the running component opened it.
pub(super) fn end(state: &mut State<'_>, results: &[NodeId]) -> Vec<NodeId> {
    let poison = vec![NodeId::POISON; results.len()];
    let outer = state.frames.last().map_or(0, |frame| frame.regions);
    let Some(region) = (state.regions.len() > outer).then(|| state.regions.pop()).flatten() else {
        let hint = "each region is ended once, by the component that began it";
        state.graph.fail(None, "ends a region that was not begun", hint);
        return poison;
    };
    if !region.is_open {
        return poison;
    }
    state.graph.close_region(results)
}

/// Takes back the regions that a component left open, beyond the first `outer`. They are an error of their own unless
/// the component failed, which is one already.
pub(super) fn unwind(state: &mut State<'_>, outer: usize, is_fault: bool) {
    while state.regions.len() > outer
        && let Some(region) = state.regions.pop()
    {
        if region.is_open {
            // Without results nothing is built.
            state.graph.close_region(&[NodeId::POISON]);
        }
        if is_fault {
            let hint = "end it with its results where its body is complete";
            state.graph.in_scope(&region.scope, |graph| {
                graph.fail(Some(region.op), "is begun here and never ended", hint)
            });
            if let Some(error) = state.graph.errors.last_mut() {
                error.location = region.location;
            }
        }
    }
}
