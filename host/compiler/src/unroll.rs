//! Regions to straight code: a Scan becomes its steps, a When the choice between new and old values.
//!
//! Slices of a step are views at constant offsets, so a rolled loop costs nothing here, and what a Scan's derivative
//! computes again is shared with the forward pass wherever it is equal. An isolated Scan gets a clone number, which
//! keeps its nodes apart. The condition of a When is computed on the device as well as by the host: what only the
//! taken branch needs is skipped by the host (`guard`), and the choice itself never looks at what was skipped.

use std::collections::HashMap;

use graph::{Builder, DType, Graph, Node, NodeId, Op, Rewritten, Ty, Var, inline, rewrite_regions};
use plan::DeviceCaps;

use crate::Module;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let source = &module.graph;
    let mut unroller = Unroller::default();
    let mut flat = rewrite_regions(source, |graph, node, inputs| match node.op {
        Op::Scan | Op::When => Rewritten::Many(unroller.region(graph, source, node, inputs, 0)),
        // Cotangents exist by now; the value is all that is left of it.
        Op::StopGrad | Op::Save => Rewritten::One(inputs[0]),
        _ => Rewritten::One(graph.emit(node.op, inputs, &node.ints, &node.floats)),
    });
    flat.bodies.clear();
    module.graph = flat;
    Ok(())
}

#[derive(Default)]
struct Unroller {
    /// Clone number of each isolated Scan, by the number it stands in and its own.
    clones: HashMap<(u32, usize), u32>,
}

impl Unroller {
    /// Results of a region of `source` over `inputs` in `graph`.
    fn region(
        &mut self,
        graph: &mut Graph,
        source: &Graph,
        node: &Node,
        inputs: &[NodeId],
        clone: u32,
    ) -> Vec<NodeId> {
        match node.op {
            Op::Scan => self.scan(graph, source, node, inputs, clone),
            _ => self.when(graph, source, node, inputs, clone),
        }
    }

    fn body(&mut self, graph: &mut Graph, body: &Graph, arguments: &[NodeId], clone: u32) -> Vec<NodeId> {
        inline(graph, body, arguments, |graph, source, id, inputs| {
            let node = source.node(id);
            graph.in_clone(clone, |graph| match node.op {
                Op::Scan | Op::When => Rewritten::Many(self.region(graph, source, node, inputs, clone)),
                Op::StopGrad | Op::Save => Rewritten::One(inputs[0]),
                _ => Rewritten::One(graph.emit(node.op, inputs, &node.ints, &node.floats)),
            })
        })
    }

    fn scan(
        &mut self,
        graph: &mut Graph,
        source: &Graph,
        node: &Node,
        inputs: &[NodeId],
        clone: u32,
    ) -> Vec<NodeId> {
        let shape = node.scan_shape();
        let body = &source.bodies[shape.body];
        let clone = match shape.isolated {
            0 => clone,
            number => {
                let next = self.clones.len() as u32 + 1;
                *self.clones.entry((clone, number)).or_insert(next)
            }
        };
        let (consts, rest) = inputs.split_at(shape.consts(inputs.len()));
        let (carries, xs) = rest.split_at(shape.carries);
        let mut carries = carries.to_vec();
        let mut ys = vec![vec![NodeId::POISON; shape.length]; body.outputs.len() - shape.carries];
        for step in 0..shape.length {
            let index = if shape.options.reverse { shape.length - 1 - step } else { step };
            let mut arguments = vec![graph.constant(index as f64, DType::I32, &[])];
            arguments.extend(consts);
            arguments.append(&mut carries);
            arguments.extend(xs.iter().map(|x| slice(graph, *x, index)));
            let mut outputs = self.body(graph, body, &arguments, clone);
            for (y, value) in ys.iter_mut().zip(outputs.split_off(shape.carries)) {
                y[index] = value;
            }
            carries = outputs;
        }
        carries.extend(ys.into_iter().map(|parts| stack(graph, &parts)));
        carries
    }

    fn when(
        &mut self,
        graph: &mut Graph,
        source: &Graph,
        node: &Node,
        inputs: &[NodeId],
        clone: u32,
    ) -> Vec<NodeId> {
        let shape = node.when_shape();
        let olds = &inputs[inputs.len() - shape.olds..];
        let counter = graph.node(inputs[0]);
        let known = (counter.op == Op::Const).then(|| counter.floats[0]);
        let known = known.map(|counter| shape.is_due(counter as i64));
        if known == Some(false) {
            return olds.to_vec();
        }
        let news = self.body(graph, &source.bodies[shape.body], &inputs[1..], clone);
        if known == Some(true) || shape.period == 1 {
            return news;
        }
        Builder::with(graph, |b| {
            let due = is_due(b.var(inputs[0]), shape.period, shape.offset);
            let pairs = news.iter().zip(olds).map(|(new, old)| (b.var(*new), b.var(*old)));
            pairs.map(|(new, old)| due.like(old).select(new, old).id).collect()
        })
    }
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
        let row = |id: &NodeId| {
            let Ty { dims, .. } = b.ty(*id);
            b.var(*id).reshape(&[&[1], &dims[..]].concat())
        };
        b.concat(&parts.iter().map(row).collect::<Vec<_>>(), 0).id
    })
}
