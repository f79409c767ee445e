//! What every device has to pass: for each op of the table, random cases against the f64 interpreter, fed with the same
//! numbers.
//!
//! A row says how cases of an op are made and how far a device may be from the interpreter, with the reason. The first
//! entry of a kind of device is compared with the interpreter; the others of the kind, and plans compiled without
//! optional passes, must give its bits.

mod composite;
mod elementwise;
mod fold;
mod indexing;
mod maker;
mod movement;
mod report;
mod structure;
mod values;

use graph::interp::Tensor;
use graph::{Class, Graph, NodeId, Op};

pub use maker::Maker;
pub use report::check;

use crate::replay;

/// How far a float may be from the interpreter's. Integers and truth values are always exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// The nearest f32; both zeros are one, and so are all NaNs.
    Exact,
    /// Units in the last place of the interpreter's number. Below the smallest normal number its unit stands.
    Ulps(f64),
    /// Half units in the last place of the largest number of the result (at least 1), for each term of the sum behind
    /// an element and four more: an addition errs by half a unit of what it returns.
    Terms,
    /// A part of the largest number of the result, at least of 1.
    Scaled(f64),
}

/// One op: its cases and their tolerances.
pub struct Row {
    pub op: Op,
    /// How many cases; their seeds count from 0.
    pub cases: u64,
    pub make: fn(&mut Maker, Op) -> Vec<NodeId>,
    /// How often its result is differentiated, in cases of even seeds.
    pub order: usize,
    /// Of the value and of each derivative.
    pub tolerances: [Tolerance; 3],
    pub reason: &'static str,
}

/// Ops without cases of their own, and why.
pub const EXEMPT: [(Op, &str); 2] =
    [(Op::Input, "every case has inputs"), (Op::Output, "every case has outputs")];

/// Derivatives of an op whose value is near exact: a few roundings, and sums over the elements that a view repeats.
/// Such a sum may have a thousand terms that cancel, and its error is that of the partial sums.
const DERIVATIVES: [Tolerance; 2] = [Tolerance::Scaled(2e-5), Tolerance::Scaled(1e-4)];

pub fn table() -> Vec<Row> {
    [
        elementwise::rows(),
        movement::rows(),
        indexing::rows(),
        fold::rows(),
        structure::rows(),
        composite::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Rows of one class of op.
pub fn rows_of(class: Class) -> Vec<Row> {
    table().into_iter().filter(|row| row.op.row().class == class).collect()
}

/// A graph with the values it runs on.
pub struct Case {
    /// Op and seed, for reports.
    pub label: String,
    pub seed: u64,
    pub graph: Graph,
    pub inputs: Vec<Tensor>,
    pub states: Vec<Tensor>,
    /// Of each output, then of each State.
    pub tolerances: Vec<Tolerance>,
    pub reason: &'static str,
    /// For [`Tolerance::Terms`].
    pub terms: usize,
}

/// The case of a row for a seed.
pub fn case(row: &Row, seed: u64) -> Case {
    let order = if seed.is_multiple_of(2) { row.order } else { 0 };
    let mut maker = Maker::new(seed, row.op, order > 0);
    let results = (row.make)(&mut maker, row.op);
    let orders = maker.finish(&results, order);
    let tolerances =
        orders.into_iter().chain(maker.states.iter().map(|_| 0)).map(|order| row.tolerances[order]).collect();
    let Maker { graph, inputs, states, terms, .. } = maker;
    // Drops the nodes that regions were traced from: their bodies are graphs of their own now. A case with errors is
    // shown as it is.
    let graph = if graph.errors.is_empty() { graph::compact(&graph) } else { graph };
    let label = format!("{} seed {seed}", row.op);
    Case { label, seed, graph, inputs, states, tolerances, reason: row.reason, terms }
}

/// A graph of many ops on numbers below 1.
pub fn mixed(label: &str, graph: Graph, seed: u64) -> Case {
    let (inputs, states) = replay::inputs(&graph, seed);
    let tolerances = vec![Tolerance::Scaled(2e-4); graph.outputs.len() + graph.states.len()];
    let reason = "sums of some hundred terms of size one, through a few ops";
    Case { label: format!("{label} seed {seed}"), seed, graph, inputs, states, tolerances, reason, terms: 1 }
}

fn row(
    op: Op,
    cases: u64,
    make: fn(&mut Maker, Op) -> Vec<NodeId>,
    value: Tolerance,
    order: usize,
    reason: &'static str,
) -> Row {
    let [first, second] = DERIVATIVES;
    Row { op, cases, make, order, tolerances: [value, first, second], reason }
}
