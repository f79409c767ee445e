//! Layers: gated feed-forward network, rotary positions, row look-up, convolution over time, running sums.

use plugin_api::{Op, causal_conv as convolve};

use super::trace::{Given, Outputs};

pub fn swiglu<'c>(given: &Given<'c>) -> Outputs<'c> {
    let (cx, x) = (given.cx, given.x("x"));
    let [gate, up] = ["Wg", "Wu"].map(|name| cx.linear(name, x, given.x(name).dim(0)));
    vec![("y".into(), cx.linear("Wd", gate.swiglu(up), x.dim(-1)))]
}

pub fn rope<'c>(given: &Given<'c>) -> Outputs<'c> {
    let x = given.x("x");
    let positions = given.cx.range(x.dim(2)) + given.number("position_offset");
    vec![("y".into(), given.cx.rope(x, positions, given.number("theta")))]
}

pub fn embedding<'c>(given: &Given<'c>) -> Outputs<'c> {
    let table = given.x("table");
    let table = given.cx.embedding("table", table.dim(0), table.dim(1));
    vec![("y".into(), table.rows(given.x("ids")))]
}

/// Where the case says so, a second time in two calls, the tail of the first handed to the second.
pub fn causal_conv<'c>(given: &Given<'c>) -> Outputs<'c> {
    let [x, weight, tail] = ["x", "weight", "tail"].map(|name| given.x(name));
    given.fixed("kernel", weight.dim(1) as f64);
    let (y, tail_out) = convolve(x, weight, tail);
    let mut outputs: Outputs<'c> = vec![("y".into(), y), ("tail_out".into(), tail_out)];
    if let Some(split) = given.optional("split") {
        let split = split as usize;
        let (first, between) = convolve(x.slice(1, 0, split), weight, tail);
        let rest = x.dim(1).saturating_sub(split);
        let (second, last) = convolve(x.slice(1, split, rest), weight, between);
        let both = given.cx.emit(Op::Concat, &[first, second], &[1], &[]);
        outputs.extend([("tail_at_split".into(), between), ("y".into(), both), ("tail_out".into(), last)]);
    }
    outputs
}

pub fn running_sums<'c>(given: &Given<'c>) -> Outputs<'c> {
    let x = given.x("x");
    vec![("y_last".into(), x.cumsum(x.rank().saturating_sub(1))), ("y_axis1".into(), x.cumsum(1))]
}
