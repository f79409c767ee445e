//! Layers: gated feed-forward network, rotary positions, row look-up.

use super::trace::{Given, Outputs};

pub fn swiglu<'c>(given: &Given<'c>) -> Outputs<'c> {
    let (cx, x) = (given.cx, given.x("x"));
    let [gate, up] = ["Wg", "Wu"].map(|name| cx.linear(name, x, given.x(name).dim(0)));
    vec![("y".into(), cx.linear("Wd", gate.silu() * up, x.dim(-1)))]
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
