//! What a level has pending when a trace ends, in a stream or a session: slopes of its period so far, as sums.
//!
//! A level's weights do not change within a period, so the sum of slopes over several traces is the slope of the period.
//! Each row of the batch has its own place in its text, so whether a level is due is asked of each row.

use plugin_api::prelude::*;

use super::Rules;
use super::buffer::Taken;
use super::chain::scope;
use super::gate::GateOf;
use super::level::{Level, Step};

/// What [`carry`] has done, for metrics: f32[] each.
pub(super) struct Carried<'c> {
    /// Share of the rows that were written.
    pub share: Tensor<'c>,
    /// Tokens that wait for a write now, the mean over rows.
    pub waiting: Tensor<'c>,
}

/// Adds what the trace has left over to what is pending, and writes the rows whose period ends with it. `read` is how
/// many tokens each row had read before this trace, i32`[B]`, and how many the trace has.
pub(super) fn carry<'c>(
    cx: &'c Cx<'c>,
    rules: &Rules,
    index: usize,
    level: &Level<'c>,
    (read, tokens): (Tensor<'c>, usize),
    rest: Option<Taken<'c>>,
) -> Option<Carried<'c>> {
    let rest = rest?;
    let period = rules.periods[index];
    if !period.is_multiple_of(tokens) {
        cx.fail(&format!(
            "a period of {period} tokens neither divides the {tokens} tokens read at a time nor is a multiple of them: \
             change periods, or in training train.window"
        ));
        return None;
    }
    let after = read + tokens as f64;
    let left = after.remainder(after.number(period as f64));
    let due = left.equals(left.number(0.0)).cast(DType::F32);
    let share = write_rows(cx, rules, index, level, Some(rest), due);
    Some(Carried { share, waiting: left.cast(DType::F32).mean(&[0]).reshape(&[]) })
}

/// Writes every level of a block from what is pending. In the scope of the block.
pub fn flush<'c>(cx: &'c Cx<'c>, rules: &Rules, width: usize) {
    let Some(read) = cx.stream() else { return };
    for index in 0..rules.periods.len() {
        cx.scope(&scope(index), || {
            let level = Level::new(cx, width, rules.hidden, false);
            let all = cx.constant(1.0, DType::F32, &read.dims());
            let _ = write_rows(cx, rules, index, &level, None, all);
        });
    }
}

/// Writes the rows where `due[B]` is 1 from what is pending and `new`; the others keep it. Returns the share written.
fn write_rows<'c>(
    cx: &'c Cx<'c>,
    rules: &Rules,
    index: usize,
    level: &Level<'c>,
    new: Option<Taken<'c>>,
    due: Tensor<'c>,
) -> Tensor<'c> {
    let batch = due.dim(0);
    let zeros = |dims: &[usize]| cx.constant(0.0, DType::F32, dims);
    let keep = |x: Tensor<'c>| {
        let shape: Vec<usize> =
            x.dims().iter().enumerate().map(|(axis, _)| if axis == 0 { batch } else { 1 }).collect();
        x * (1.0 - due.reshape(&shape))
    };
    let gate = &rules.gate;
    let open = (gate.of != GateOf::Off).then(|| {
        let [sum, count] =
            ["surprise.sum", "surprise.count"].map(|name| cx.fast(name, zeros(&[]), Lifetime::Stream));
        let before = [sum, count].map(|memory| memory.value().repeat(&[batch]));
        let added = new.as_ref().and_then(|new| new.surprise);
        let total = added.map_or(before, |(values, counts)| [before[0] + values, before[1] + counts]);
        let open = gate.writes(cx, total[0], total[1], Some(due));
        [sum, count].into_iter().zip(total).for_each(|(memory, total)| memory.write(keep(total)));
        open
    });
    let due_column = due.reshape(&[batch, 1]);
    let open = open.filter(|_| gate.of == GateOf::Chunk).map_or(due_column, |open| open * due_column);
    let step = Step::new(cx, rules, index, batch, Some(open));
    let slopes = new.map(|new| new.slopes.sums());
    for (part, (memory, name)) in level.weights().into_iter().enumerate() {
        let pending = cx.fast(name, zeros(&memory.start().dims()), Lifetime::Stream);
        let shape = [&[batch], &memory.start().dims()[..]].concat();
        let before = pending.value().repeat(&shape);
        let total = slopes.map_or(before, |slopes| before + slopes[part]);
        level.write_sum(memory, total, step);
        pending.write(keep(total));
    }
    open.mean(&[0, 1]).reshape(&[])
}
