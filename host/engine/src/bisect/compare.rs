//! The comparison: windows of nodes as extra outputs of the plan, each node beside the interpreter.
//!
//! A plan keeps few of its values, so the graph is compiled again for every window, with the window's nodes and their
//! operands as outputs: the rest is fused as it was. The interpreter runs once and hands over its values as it goes.

use std::collections::BTreeMap;

use graph::interp::{self, Tensor};
use graph::{DType, Graph, NodeId, Op};

use super::report::{Finding, Operand, Report};
use crate::Error;
use crate::machine::{Feed, Machine};
use crate::trace::Banks;

/// Nodes compared with one compilation: more would leave little of the plan's fusion, fewer take longer.
const WINDOW: usize = 32;

/// A plan and what it starts from.
pub struct Given<'g> {
    pub plan: &'static str,
    /// Without composites.
    pub graph: &'g Graph,
    /// Values of its States, in their order.
    pub states: Vec<Vec<f32>>,
    pub feed: &'g dyn Fn(&str) -> Option<Feed<'g>>,
    /// Compiles a graph for the device.
    pub load: &'g dyn Fn(&Graph) -> Result<Machine, Error>,
    pub banks: &'g Banks,
}

/// Compares node after node, until one is found to be wrong.
pub fn compare(given: &Given<'_>, report: &mut Report) -> Result<(), Error> {
    let graph = given.graph;
    let missing = |name: &str| Error::said(format!("input {name} is missing"));
    let inputs: Vec<Tensor> = graph
        .inputs
        .iter()
        .map(|decl| {
            let fed = (given.feed)(&decl.name).ok_or_else(|| missing(&decl.name))?;
            Ok(fed.tensor(&decl.ty))
        })
        .collect::<Result<_, Error>>()?;
    let mut states: Vec<Tensor> = graph
        .states
        .iter()
        .zip(&given.states)
        .map(|(decl, values)| Tensor {
            ty: decl.ty.clone(),
            data: values.iter().copied().map(f64::from).collect(),
        })
        .collect();
    let leaves = (inputs.clone(), states.clone());
    let mut window: Vec<(NodeId, Tensor)> = Vec::new();
    let mut outcome = Ok(());
    interp::watch(graph, &inputs, &mut states, |id, exact| {
        if outcome.is_ok() && report.found.is_none() {
            window.push((id, exact.clone()));
            if window.len() == WINDOW {
                outcome = compare_window(given, &leaves, &window, report);
                window.clear();
            }
        }
    });
    outcome?;
    if report.found.is_none() { compare_window(given, &leaves, &window, report) } else { Ok(()) }
}

/// One window. The machine is a new one, since a replay overwrites the States it starts from.
fn compare_window(
    given: &Given<'_>,
    leaves: &(Vec<Tensor>, Vec<Tensor>),
    window: &[(NodeId, Tensor)],
    report: &mut Report,
) -> Result<(), Error> {
    let mut graph = given.graph.clone();
    let name = |id: NodeId| format!("bisect {id}");
    let mut wanted: Vec<NodeId> = window.iter().map(|(id, _)| *id).collect();
    wanted.extend(window.iter().flat_map(|(id, _)| &given.graph.node(*id).inputs));
    wanted.sort_unstable();
    wanted.dedup();
    let mut values: BTreeMap<NodeId, Tensor> = BTreeMap::new();
    for id in wanted {
        match leaf(&graph, leaves, id) {
            Some(value) => drop(values.insert(id, value)),
            None => graph.output(&name(id), id),
        }
    }
    let mut machine = (given.load)(&graph)?;
    for (decl, values) in graph.states.iter().zip(&given.states) {
        machine.write_state(&decl.name, values)?;
    }
    let outputs: BTreeMap<String, Vec<f32>> = machine.run(0, given.feed)?.into_iter().collect();
    for id in given.graph.ids() {
        if let Some(output) = outputs.get(&name(id)) {
            let ty = graph.ty(id).clone();
            let data = output.iter().map(|value| number(*value, ty.dtype)).collect();
            values.insert(id, Tensor { ty, data });
        }
    }
    for (id, exact) in window {
        report.nodes += 1;
        let (worst, non_finite) = examine(given, &values, *id, exact);
        if report.non_finite.is_none() {
            report.non_finite = non_finite;
        }
        if worst.error > report.tolerance {
            report.found = Some(worst);
            return Ok(());
        }
        if report.worst.as_ref().is_none_or(|known| worst.error > known.error) {
            report.worst = Some(worst);
        }
    }
    Ok(())
}

/// Values that the device was given rather than made.
fn leaf(graph: &Graph, (inputs, states): &(Vec<Tensor>, Vec<Tensor>), id: NodeId) -> Option<Tensor> {
    let node = graph.node(id);
    match node.op {
        Op::Input => Some(inputs[node.ints[0] as usize].clone()),
        Op::State => Some(states[node.ints[0] as usize].clone()),
        Op::Const => {
            let value = node.floats[0];
            let value = if node.ty.dtype.is_float() { f64::from(value as f32) } else { value };
            Some(Tensor { ty: node.ty.clone(), data: vec![value; node.ty.elements()] })
        }
        _ => None,
    }
}

/// What 32 bits of a download mean.
fn number(value: f32, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(value),
        DType::I32 => f64::from(value.to_bits() as i32),
        DType::U32 | DType::Bool => f64::from(value.to_bits()),
    }
}

/// One node at its worst element, and at the first that is not finite on the device.
fn examine(
    given: &Given<'_>,
    values: &BTreeMap<NodeId, Tensor>,
    id: NodeId,
    exact: &Tensor,
) -> (Finding, Option<Finding>) {
    let graph = given.graph;
    let node = graph.node(id);
    let actual = &values[&id];
    let operands: Vec<Tensor> = node.inputs.iter().map(|input| values[input].clone()).collect();
    let is_given = matches!(node.op, Op::Input | Op::State | Op::Const);
    let expected = if is_given { actual.clone() } else { interp::single(graph, id, &operands) };
    let scale = scale(graph, id, &operands, &expected);
    let error = |element: usize| {
        let (want, got) = (expected.data[element], actual.data[element]);
        if want == got || (want.is_nan() && got.is_nan()) {
            return 0.0;
        }
        // Finite on one side only, or infinities of two signs.
        if want.is_finite() && got.is_finite() { (want - got).abs() / scale } else { f64::INFINITY }
    };
    let finding = |element: usize| Finding {
        plan: given.plan,
        scope: graph.scope_path(id).to_string(),
        node: graph.describe(id),
        parameter: parameter(given, id, element),
        operands: node
            .inputs
            .iter()
            .zip(&operands)
            .map(|(input, value)| operand(graph, *input, value))
            .collect(),
        element,
        expected: expected.data[element],
        actual: actual.data[element],
        exact: exact.data[element],
        error: error(element),
    };
    let larger = |worst: usize, element: usize| if error(element) > error(worst) { element } else { worst };
    let worst = (0..actual.data.len()).fold(0, larger);
    (finding(worst), actual.data.iter().position(|value| !value.is_finite()).map(finding))
}

/// What an error is measured against. Terms of a sum may cancel, and rounding is relative to them: a sum is measured
/// against the sum of its terms' sizes.
fn scale(graph: &Graph, id: NodeId, operands: &[Tensor], expected: &Tensor) -> f64 {
    let largest = |tensor: &Tensor| {
        tensor.data.iter().filter(|x| x.is_finite()).fold(f64::MIN_POSITIVE, |scale, x| scale.max(x.abs()))
    };
    if !matches!(graph.node(id).op, Op::Sum | Op::Dot | Op::ScatterAdd) {
        return largest(expected);
    }
    let sizes = operands.iter().map(|tensor| {
        let is_float = tensor.ty.dtype.is_float();
        let size = |x: &f64| if is_float { x.abs() } else { *x };
        Tensor { ty: tensor.ty.clone(), data: tensor.data.iter().map(size).collect() }
    });
    largest(&interp::single(graph, id, &sizes.collect::<Vec<_>>()))
}

fn operand(graph: &Graph, id: NodeId, value: &Tensor) -> Operand {
    let finite = || value.data.iter().copied().filter(|x| x.is_finite());
    let range = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    Operand { node: graph.describe(id), range, non_finite: value.data.len() - finite().count() }
}

/// Path of the parameter that holds an element of a bank.
fn parameter(given: &Given<'_>, id: NodeId, element: usize) -> Option<String> {
    let node = given.graph.node(id);
    if node.op != Op::State {
        return None;
    }
    let name = &given.graph.states[node.ints[0] as usize].name;
    let bank = given.banks.banks.iter().find(|bank| bank.state() == *name)?;
    let (parameter, _) = bank.slices().find(|(_, range)| range.contains(&element))?;
    Some(parameter.path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeviceName;
    use graph::{Ty, rewrite};

    /// x, then log x, tanh log x, and its square, in a layer.
    fn sample() -> Graph {
        let mut graph = Graph::default();
        let ty = Ty::new(DType::I32, &[3]);
        let tokens = graph.input("tokens", ty);
        graph.push_scope("layer");
        let x = graph.emit(Op::Cast, &[tokens], &[DType::F32 as i64], &[]);
        let log = graph.emit(Op::Log, &[x], &[], &[]);
        let tanh = graph.emit(Op::Tanh, &[log], &[], &[]);
        let square = graph.emit(Op::Mul, &[tanh, tanh], &[], &[]);
        graph.output("square", square);
        graph
    }

    /// Compares the sample on a device that takes one op for another.
    fn on_device(tokens: &[i32], wrong: Option<(Op, Op)>) -> Report {
        let graph = sample();
        let load = |graph: &Graph| {
            let graph = rewrite(graph, |graph, node, inputs| {
                let op = wrong.filter(|(from, _)| *from == node.op).map_or(node.op, |(_, to)| to);
                graph.emit(op, inputs, &node.ints, &node.floats)
            });
            Machine::load(DeviceName::Cpu, 1, &[("bisect", &graph)])
        };
        let feed = |_: &str| Some(Feed::I32(tokens));
        let banks = Banks::default();
        let given =
            Given { plan: "step", graph: &graph, states: vec![], feed: &feed, load: &load, banks: &banks };
        let mut report = Report::new(1, 0, 1e-4);
        compare(&given, &mut report).unwrap();
        report
    }

    #[test]
    fn an_op_that_the_device_gets_wrong_is_the_one_that_is_named() {
        let report = on_device(&[1, 2, 3], None);
        assert!(report.is_clean() && report.nodes == 5, "{report:?}");
        let found = on_device(&[1, 2, 3], Some((Op::Tanh, Op::Sin))).found.unwrap();
        assert_eq!((found.scope.as_str(), found.node.as_str()), ("layer", "Tanh%3 f32[3]"));
        // sin and tanh are furthest apart at log 3.
        assert_eq!(found.element, 2);
        assert!((found.expected - 0.8).abs() < 1e-6 && (found.actual - 0.8906).abs() < 1e-4, "{found:?}");
        assert!(found.operands[0].range.0 == 0.0 && (found.operands[0].range.1 - 3f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_value_that_is_not_finite_on_both_sides_is_named_too() {
        let report = on_device(&[7, 0, 3], None);
        assert!(report.found.is_none(), "{report:?}");
        let first = report.non_finite.unwrap();
        assert_eq!((first.node.as_str(), first.element), ("Log%2 f32[3]", 1));
        assert_eq!((first.actual, first.expected), (f64::NEG_INFINITY, f64::NEG_INFINITY));
    }
}
