//! Regions to straight code: a Scan becomes its steps, a When the choice between new and old values.
//!
//! Slices of a step are views at constant offsets, so a rolled loop costs nothing here, and a value handed from a Scan
//! to its derivative is simply the node that computes it. Under the policy `recompute` such a value is computed again,
//! from the carries of the step, for each Scan that reads it; a clone number keeps those nodes apart from the first.
//!
//! The condition of a When is computed on the device as well as by the host: what only the taken branch needs is
//! skipped by the host (`guard`), and the choice itself never looks at what was skipped.

use std::collections::HashMap;
use std::sync::Arc;

use graph::attributes::ScanShape;
use graph::{Builder, DType, Graph, Node, NodeId, Op, Rewritten, Var, inline, rewrite_regions};
use plan::DeviceCaps;

use crate::Module;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let source = &module.graph;
    let mut unroller = Unroller::default();
    let mut flat = rewrite_regions(source, |graph, node, inputs| {
        unroller.node(graph, Old { source, node, inputs, clone: 0 })
    });
    if let Some(scope) = unroller.too_large {
        return Err(format!(
            "a Scan in {scope} would make more than {MAX_NODES} operations of its steps; let a step take a larger chunk"
        ));
    }
    flat.bodies.clear();
    module.graph = flat;
    Ok(())
}

/// Most nodes of a plan's graph. Compilation takes some microseconds for each.
const MAX_NODES: usize = 4_000_000;

#[derive(Default)]
struct Unroller {
    /// Scope of the Scan that went over the limit.
    too_large: Option<String>,
    /// Scans under `recompute`, as they were unrolled.
    forwards: Vec<Forward>,
    /// By stacked residual: its Scan in `forwards`, and its index among the outputs of the body.
    residuals: HashMap<NodeId, (usize, usize)>,
    clones: u32,
}

/// What it takes to compute a step again.
struct Forward {
    body: Arc<Graph>,
    consts: Vec<NodeId>,
    /// Carries before each step, by index of the step.
    carries: Vec<Vec<NodeId>>,
    xs: Vec<NodeId>,
    /// Values marked with Save, by index of the step.
    saved: Vec<Vec<NodeId>>,
}

/// A node of `source` and its operands in the graph being built, under the clone number of what stands around it.
#[derive(Clone, Copy)]
struct Old<'s> {
    source: &'s Graph,
    node: &'s Node,
    inputs: &'s [NodeId],
    clone: u32,
}

/// Where a body is unrolled.
struct Place<'s> {
    clone: u32,
    /// Values marked with Save: noted in the forward pass, taken instead of their operands when it is repeated.
    saved: Saved<'s>,
}

enum Saved<'s> {
    Noted(&'s mut Vec<NodeId>),
    Taken(std::slice::Iter<'s, NodeId>),
}

impl Unroller {
    fn node(&mut self, graph: &mut Graph, old: Old<'_>) -> Rewritten {
        let Old { node, inputs, clone, .. } = old;
        match node.op {
            Op::Scan => Rewritten::Many(self.scan(graph, old)),
            Op::When => Rewritten::Many(self.when(graph, old)),
            // Cotangents exist by now; the value is all that is left of it.
            Op::StopGrad | Op::Save => Rewritten::One(inputs[0]),
            _ => Rewritten::One(graph.in_clone(clone.max(node.clone), |graph| {
                graph.emit(node.op, inputs, &node.ints, &node.floats)
            })),
        }
    }

    fn body(
        &mut self,
        graph: &mut Graph,
        body: &Graph,
        arguments: &[NodeId],
        place: Place<'_>,
    ) -> Vec<NodeId> {
        let Place { clone, mut saved } = place;
        inline(graph, body, arguments, |graph, source, id, inputs| {
            let node = source.node(id);
            if node.op == Op::Save {
                let kept = match &mut saved {
                    Saved::Noted(list) => {
                        list.push(inputs[0]);
                        None
                    }
                    Saved::Taken(list) => list.next().copied(),
                };
                return Rewritten::One(kept.unwrap_or(inputs[0]));
            }
            self.node(graph, Old { source, node, inputs, clone })
        })
    }

    /// Last carries, then stacked ys.
    fn scan(&mut self, graph: &mut Graph, old: Old<'_>) -> Vec<NodeId> {
        let Old { source, node, inputs, clone } = old;
        let shape = node.scan_shape();
        let body = &source.bodies[shape.body];
        let (consts, rest) = inputs.split_at(shape.consts(inputs.len()));
        let (carries, xs) = rest.split_at(shape.carries);
        let mut carries = carries.to_vec();
        let mut ys = vec![vec![NodeId::POISON; shape.length]; body.outputs.len() - shape.carries];
        let mut before = vec![Vec::new(); shape.length];
        let mut saved = vec![Vec::new(); shape.length];
        // One number for all that this Scan has computed again.
        self.clones += 1;
        let again = self.clones;
        for index in steps(&shape) {
            if graph.nodes.len() > MAX_NODES {
                self.too_large.get_or_insert_with(|| graph.current_scope().to_string());
                break;
            }
            let mut arguments = vec![graph.constant(index as f64, DType::I32, &[])];
            arguments.extend(consts);
            arguments.extend(&carries);
            for x in xs {
                arguments.push(self.slice(graph, *x, index, again));
            }
            before[index] = carries;
            let place = Place { clone, saved: Saved::Noted(&mut saved[index]) };
            let mut outputs = self.body(graph, body, &arguments, place);
            for (y, value) in ys.iter_mut().zip(outputs.split_off(shape.carries)) {
                y[index] = value;
            }
            carries = outputs;
        }
        let stacked: Vec<NodeId> = ys.into_iter().map(|parts| stack(graph, &parts)).collect();
        if shape.options.recompute {
            let first = stacked.len() - shape.residuals;
            for (index, id) in stacked.iter().enumerate().skip(first) {
                self.residuals.insert(*id, (self.forwards.len(), shape.carries + index));
            }
            let (body, consts, xs) = (body.clone(), consts.to_vec(), xs.to_vec());
            self.forwards.push(Forward { body, consts, carries: before, xs, saved });
        }
        carries.extend(stacked);
        carries
    }

    /// A step's slice of x: a view, or for a residual under `recompute` its value computed again.
    fn slice(&mut self, graph: &mut Graph, x: NodeId, index: usize, again: u32) -> NodeId {
        let Some((forward, output)) = self.residuals.get(&x).copied() else {
            return slice(graph, x, index);
        };
        let Forward { body, consts, carries, xs, saved } = &self.forwards[forward];
        let (body, saved) = (body.clone(), saved[index].clone());
        let mut arguments = vec![graph.constant(index as f64, DType::I32, &[])];
        arguments.extend(consts);
        arguments.extend(&carries[index]);
        for x in xs.clone() {
            arguments.push(self.slice(graph, x, index, again));
        }
        let place = Place { clone: again, saved: Saved::Taken(saved.iter()) };
        self.body(graph, &body, &arguments, place)[output]
    }

    /// New values or old ones, then residuals, which nothing reads where the body did not run.
    fn when(&mut self, graph: &mut Graph, old: Old<'_>) -> Vec<NodeId> {
        let Old { source, node, inputs, clone } = old;
        let shape = node.when_shape();
        let body = &source.bodies[shape.body];
        let olds = &inputs[inputs.len() - shape.olds..];
        let counter = graph.node(inputs[0]);
        let known = (counter.op == Op::Const).then(|| shape.is_due(counter.floats[0] as i64));
        if known == Some(false) {
            let zeros = body.outputs[shape.olds..].iter();
            let zeros = zeros.map(|decl| graph.constant(0.0, decl.ty.dtype, &decl.ty.dims));
            return olds.iter().copied().chain(zeros).collect();
        }
        let mut saved = Vec::new();
        let place = Place { clone, saved: Saved::Noted(&mut saved) };
        let mut results = self.body(graph, body, &inputs[1..], place);
        if known == Some(true) || shape.period == 1 {
            return results;
        }
        Builder::with(graph, |b| {
            let due = is_due(b.var(inputs[0]), shape.period, shape.offset);
            for (new, old) in results.iter_mut().zip(olds) {
                *new = due.like(b.var(*old)).select(b.var(*new), b.var(*old)).id;
            }
        });
        results
    }
}

/// Indices in the order in which they run.
fn steps(shape: &ScanShape) -> Vec<usize> {
    let forward = 0..shape.length;
    if shape.options.reverse { forward.rev().collect() } else { forward.collect() }
}

/// Whether the counter is `offset` modulo `period`, for counters of either sign.
fn is_due(counter: Var<'_>, period: usize, offset: usize) -> Var<'_> {
    let period = counter.constant(period as f64);
    let positive = counter.binary(Op::Rem, period) + period;
    positive.binary(Op::Rem, period).binary(Op::Eq, counter.constant(offset as f64))
}

fn slice(graph: &mut Graph, x: NodeId, index: usize) -> NodeId {
    let dims = graph.dims(x).to_vec();
    Builder::with(graph, |b| {
        let mut ranges: Vec<(usize, usize)> = dims.iter().map(|dim| (0, *dim)).collect();
        ranges[0] = (index, 1);
        b.var(x).slice(&ranges).reshape(&dims[1..]).id
    })
}

fn stack(graph: &mut Graph, parts: &[NodeId]) -> NodeId {
    Builder::with(graph, |b| {
        let row = |id: &NodeId| b.var(*id).reshape(&[&[1], &b.ty(*id).dims[..]].concat());
        b.concat(&parts.iter().map(row).collect::<Vec<_>>(), 0).id
    })
}
