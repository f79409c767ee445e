//! A hostile plugin: emits with any op, any operands and any attributes.

use graph::{Class, DType, Graph, NodeId, Op, ScanOptions, Ty, grad};

use super::bytes::Bytes;
use super::{AFFORDABLE, elements, reads_back};
use crate::replay::on_cpu;

/// Emits and gradients of one input. A gradient may multiply the nodes there are.
const MOST_EMITS: usize = 60;
const MOST_GRADIENTS: usize = 3;
const MOST_NODES: usize = 2_000;

/// Reads the bytes as a list of emits and gradients. Whatever they ask for, an emit that fails records why and yields
/// poison, one that does not yields a node, and the graph verifies and reads back. What is small also runs.
pub fn emit(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let mut graph = Graph::default();
    for index in 0..2 + bytes.below(3) {
        let ty = Ty::new(DType::ALL[bytes.below(6).saturating_sub(2)], &extents(&mut bytes));
        let name = format!("x{index}{}", ["", " y", "\n", "\u{85}\\", ""][bytes.below(5)]);
        if index % 2 == 0 {
            graph.input(&name, ty)
        } else {
            graph.state(&name, ty)
        };
    }
    let mut gradients = 0;
    for _ in 0..MOST_EMITS {
        if bytes.is_empty() || graph.nodes.len() > MOST_NODES {
            break;
        }
        match bytes.byte() {
            0..8 if gradients < MOST_GRADIENTS => {
                gradients += 1;
                gradient(&mut graph, &mut bytes);
            }
            8 => graph.push_scope(["attention", "a b", "@", "", "\r\n", "\\u{a}"][bytes.below(6)]),
            9 => graph.pop_scope(),
            10..14 => open(&mut graph, &mut bytes),
            14..18 => close(&mut graph, &mut bytes),
            _ => one(&mut graph, &mut bytes),
        }
    }
    finish(graph, &mut bytes);
}

/// Begins a loop or a condition over any values.
fn open(graph: &mut Graph, bytes: &mut Bytes<'_>) {
    let operands = |graph: &Graph, bytes: &mut Bytes<'_>| -> Vec<NodeId> {
        bytes.list(3, |bytes| existing(graph, bytes)).into_iter().flatten().collect()
    };
    let (first, second) = (operands(graph, bytes), operands(graph, bytes));
    if bytes.byte() < 160 {
        let fitting = second.first().and_then(|x| graph.dims(*x).first().copied());
        let length = fitting.unwrap_or_else(|| [1, 3, 0, 1 << 17, usize::MAX][bytes.below(5)]);
        let options = ScanOptions { reverse: bytes.below(2) == 1, recompute: bytes.below(2) == 1 };
        graph.open_scan(length, &first, &second, options);
    } else if let Some(counter) = first.first() {
        graph.open_when(*counter, bytes.below(4), bytes.below(4), &second);
    }
}

/// Ends the innermost region with any values.
fn close(graph: &mut Graph, bytes: &mut Bytes<'_>) {
    let before = graph.errors.len();
    let results: Vec<NodeId> = bytes.list(4, |bytes| existing(graph, bytes)).into_iter().flatten().collect();
    let given = graph.close_region(&results);
    assert_eq!(given.len(), results.len());
    let poisoned = given.contains(&NodeId::POISON);
    assert!(!poisoned || graph.errors.len() >= before, "a region failed in silence");
}

fn extents(bytes: &mut Bytes<'_>) -> Vec<usize> {
    bytes.list(5, |bytes| match bytes.byte() {
        byte @ 0..250 => 1 + usize::from(byte % 6),
        250 => 0,
        251 => 1 << 20,
        252 => 1 << 40,
        253 => usize::MAX,
        _ => 1 << 32,
    })
}

/// A node that is there, recent ones more often.
fn existing(graph: &Graph, bytes: &mut Bytes<'_>) -> Option<NodeId> {
    let count = graph.nodes.len();
    let far = if bytes.byte() < 128 { 4 } else { 64 };
    let back = bytes.below(far);
    (count > 0).then(|| NodeId((count - 1 - back.min(count - 1)) as u32))
}

fn one(graph: &mut Graph, bytes: &mut Bytes<'_>) {
    let op = Op::ALL[bytes.below(Op::ALL.len())];
    // The builder of the ABI keeps these to itself.
    if matches!(op, Op::Input | Op::State | Op::Write | Op::Output) {
        return;
    }
    let (fewest, most) = op.row().arity;
    let count = match bytes.byte() {
        byte @ 0..230 => fewest + usize::from(byte) % (most.min(fewest + 2) - fewest + 1),
        byte => usize::from(byte % 5),
    };
    let inputs: Vec<NodeId> = (0..count)
        .filter_map(|_| match bytes.byte() {
            0 => Some(NodeId::POISON),
            1 => Some(NodeId(graph.nodes.len() as u32 + 1)),
            _ => existing(graph, bytes),
        })
        .collect();
    let ints = integers(graph, op, inputs.first().copied(), bytes);
    let fitting = usize::from(row_floats(op));
    let floats: Vec<f64> = match bytes.byte() {
        0..230 => (0..fitting).map(|_| bytes.float()).collect(),
        _ => bytes.list(3, Bytes::float),
    };
    let before = graph.errors.len();
    let poisoned = inputs.contains(&NodeId::POISON);
    let id = graph.emit(op, &inputs, &ints, &floats);
    if id == NodeId::POISON {
        assert!(poisoned || graph.errors.len() == before + 1, "{op} failed in silence");
    } else {
        assert_eq!(graph.errors.len(), before, "{op} gave {id} and an error");
        assert!(id.index() < graph.nodes.len(), "{op} gave {id}");
    }
}

fn row_floats(op: Op) -> bool {
    op.row().attributes.contains(';')
}

/// Integers in a form that often fits, else any.
fn integers(graph: &Graph, op: Op, x: Option<NodeId>, bytes: &mut Bytes<'_>) -> Vec<i64> {
    let known = x.filter(|x| x.index() < graph.nodes.len());
    let dims: Vec<i64> = known.map_or(vec![], |x| graph.dims(x).iter().map(|dim| *dim as i64).collect());
    let rank = dims.len() as i64;
    let axis = |bytes: &mut Bytes<'_>| bytes.below(dims.len()) as i64;
    if bytes.byte() >= 200 {
        return bytes.list(10, Bytes::int);
    }
    match op {
        Op::Const => std::iter::once(bytes.below(5) as i64).chain(bytes.list(4, Bytes::int)).collect(),
        Op::Iota => [bytes.below(3) as i64, bytes.below(5) as i64]
            .into_iter()
            .chain(bytes.list(4, Bytes::int))
            .collect(),
        Op::Cast | Op::Bitcast => vec![bytes.below(5) as i64],
        Op::Reshape if bytes.byte() < 128 => {
            vec![dims.iter().fold(1, |all: i64, dim| all.wrapping_mul(*dim))]
        }
        Op::Reshape => dims.iter().rev().copied().collect(),
        Op::Permute => (0..rank).map(|axis| rank - 1 - axis).collect(),
        Op::Broadcast => dims.iter().map(|dim| if *dim == 1 { bytes.int() } else { *dim }).collect(),
        Op::Slice => dims.iter().flat_map(|dim| [bytes.int() / 4, *dim - bytes.int() / 2]).collect(),
        Op::Pad => dims.iter().flat_map(|_| [bytes.int(), bytes.int()]).collect(),
        Op::Dot => vec![0, 1, axis(bytes), axis(bytes)],
        _ if op.row().class == Class::Elementwise => vec![],
        _ => (0..1 + bytes.below(2)).map(|_| axis(bytes)).collect(),
    }
}

/// The gradient of a node, reduced to one number where it needs to be, with respect to others.
fn gradient(graph: &mut Graph, bytes: &mut Bytes<'_>) {
    let Some(of) = existing(graph, bytes) else { return };
    let wrt: Vec<NodeId> = bytes.list(3, |bytes| existing(graph, bytes)).into_iter().flatten().collect();
    let axes: Vec<i64> = (0..graph.ty(of).rank() as i64).collect();
    let loss = if bytes.byte() < 200 { graph.emit(Op::Sum, &[of], &axes, &[]) } else { of };
    let before = graph.errors.len();
    let cotangents = grad(graph, loss, &wrt);
    assert_eq!(cotangents.len(), wrt.len());
    for (of, cotangent) in wrt.into_iter().zip(cotangents) {
        match cotangent {
            Some(NodeId::POISON) => assert!(!graph.errors.is_empty(), "a poisoned gradient and no error"),
            Some(cotangent) => {
                assert_eq!(graph.ty(cotangent), graph.ty(of), "gradient of {}", graph.describe(of))
            }
            None => {}
        }
    }
    assert!(graph.errors.len() >= before);
}

fn finish(mut graph: Graph, bytes: &mut Bytes<'_>) {
    while graph.has_open_region() {
        graph.close_region(&[]);
    }
    let results: Vec<NodeId> = (0..3).filter_map(|_| existing(&graph, bytes)).collect();
    for (index, id) in results.into_iter().enumerate() {
        graph.output(&format!("y{index}"), id);
    }
    let graph = graph::compact(&graph);
    let valid = graph::verify(&graph);
    assert!(valid.is_ok(), "{}\n{graph}", valid.unwrap_err());
    reads_back(&graph);
    let expanded = graph::expand(&graph);
    assert!(expanded.errors.is_empty(), "{}\n{graph}", expanded.errors[0]);
    let declared = graph.inputs.iter().chain(&graph.states).map(|decl| decl.ty.elements()).sum::<usize>();
    if declared.saturating_add(elements(&graph)) < AFFORDABLE {
        on_cpu(&graph, 0, &[], 1);
    }
}
