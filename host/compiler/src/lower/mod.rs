//! Clusters to launches: the last step before a device.

mod attention;
mod cross_entropy;
mod delta;
mod gemm;
mod space;
mod symmetric;
mod tile;

use std::collections::HashMap;

use graph::{Graph, NodeId, Op};
use plan::{DeviceCaps, Guard, IoSlot, Launch, LaunchOp, ScatterAdd, Slot, TileKernel};

use crate::analysis::{Analysis, Kind, Source};
use crate::guard::Condition;
use crate::{Cluster, Module};

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let analysis = Analysis::new(&module.graph);
    let mut lowerer = Lowerer {
        graph: &module.graph,
        analysis: &analysis,
        slots: &module.slots,
        kernels: Vec::new(),
        known: HashMap::new(),
        bases: symmetric::bases(&module.graph),
    };
    let mut launches = Vec::with_capacity(module.order.len());
    for index in &module.order {
        launches.push(lowerer.launch(&module.clusters[*index])?);
    }
    let kernels = lowerer.kernels;
    let graph = &module.graph;
    let io = |decl: &graph::Decl, slot| IoSlot {
        name: decl.name.clone(),
        dtype: decl.ty.dtype,
        dims: decl.ty.dims.clone(),
        slot,
    };
    let plan = &mut module.plan;
    for id in graph.ids() {
        let node = graph.node(id);
        match node.op {
            Op::Input => plan.inputs.push(io(&graph.inputs[node.ints[0] as usize], module.slots[&id])),
            Op::Output => {
                let (slot, _) = at(graph, &analysis, &module.slots, node.inputs[0])?;
                plan.outputs.push(io(&graph.outputs[node.ints[0] as usize], slot));
            }
            Op::State => plan.reads.push(graph.states[node.ints[0] as usize].name.clone()),
            Op::Write => plan.writes.push(graph.states[node.ints[0] as usize].name.clone()),
            _ => {}
        }
    }
    for condition in &analysis.guards.conditions {
        let name = &graph.inputs[graph.node(condition.input).ints[0] as usize].name;
        let input = plan.inputs.iter().position(|io| io.name == *name);
        let input = input.ok_or_else(|| format!("no input {name} for a guard"))?;
        let Condition { shift, period, offset, .. } = *condition;
        plan.guards.push(Guard { input, shift, period, offset });
    }
    plan.kernels = kernels;
    plan.launches = launches;
    Ok(())
}

/// Slot of a node's value, starting at its first element, and its strides.
fn at(
    graph: &Graph,
    analysis: &Analysis,
    slots: &HashMap<NodeId, Slot>,
    id: NodeId,
) -> Result<(Slot, Vec<usize>), String> {
    let Source { owner, view } =
        analysis.source(id).ok_or_else(|| format!("{} lies nowhere", graph.describe(id)))?;
    let whole = slots.get(owner).ok_or_else(|| format!("{} has no buffer", graph.describe(*owner)))?;
    let dims = graph.dims(id);
    let reach: usize = dims.iter().zip(&view.strides).map(|(dim, stride)| (dim - 1) * stride).sum();
    let offset = whole.offset + view.offset * graph::DType::BYTES;
    Ok((
        Slot { region: whole.region, offset, bytes: (reach + 1) * graph::DType::BYTES },
        view.strides.clone(),
    ))
}

struct Lowerer<'a> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    slots: &'a HashMap<NodeId, Slot>,
    kernels: Vec<TileKernel>,
    /// Index of each kernel by its text: equal layers share one.
    known: HashMap<String, usize>,
    /// Of nodes that are symmetric matrices.
    bases: Vec<Option<NodeId>>,
}

impl Lowerer<'_> {
    fn launch(&mut self, cluster: &Cluster) -> Result<Launch, String> {
        let first = cluster.nodes[0];
        let op = match self.analysis.kind(first) {
            Kind::Gemm => {
                let is_symmetric = self.bases[first.index()].is_some();
                LaunchOp::Gemm(gemm::lower(self.graph, first, is_symmetric, |id| self.at(id))?)
            }
            Kind::Scatter => self.scatter(first)?,
            Kind::Attention => attention::lower(self.graph, &cluster.nodes, |id| self.at(id))?,
            Kind::CrossEntropy => cross_entropy::lower(self.graph, &cluster.nodes, |id| self.at(id))?,
            Kind::Delta => delta::lower(self.graph, &cluster.nodes, |id| self.at(id))?,
            _ => {
                let (kernel, bindings) = tile::lower(self.graph, self.analysis, cluster, |id| self.at(id))?;
                let text = kernel.to_string();
                let next = self.kernels.len();
                let index = *self.known.entry(text).or_insert(next);
                if index == next {
                    self.kernels.push(kernel);
                }
                LaunchOp::Tile { kernel: index, bindings }
            }
        };
        // Nodes of a tile cluster have one set; a launch of several results runs where any of its results is needed.
        let set = cluster.nodes.iter().fold(u64::MAX, |set, id| set & self.analysis.guards.of(*id));
        let guards = (0..u64::BITS as usize).filter(|guard| set >> guard & 1 == 1).collect();
        Ok(Launch { label: self.label(cluster), op, guards })
    }

    fn at(&self, id: NodeId) -> Result<(Slot, Vec<usize>), String> {
        at(self.graph, self.analysis, self.slots, id)
    }

    fn scatter(&self, id: NodeId) -> Result<LaunchOp, String> {
        let node = self.graph.node(id);
        let rows = node.ty.dims[0];
        let width = node.ty.elements() / rows;
        let count = self.graph.ty(node.inputs[1]).elements();
        let [source, ids] = [0, 1].map(|slot: usize| self.at(node.inputs[slot]));
        let (out, source, ids) = (self.at(id)?.0, source?.0, ids?.0);
        Ok(LaunchOp::ScatterAdd(ScatterAdd { out, ids, source, rows, width, count }))
    }

    /// Scope path of the first node and the ops, shortened.
    fn label(&self, cluster: &Cluster) -> String {
        let mut ops: Vec<String> =
            cluster.nodes.iter().map(|id| self.graph.node(*id).op.to_string()).collect();
        ops.dedup();
        if ops.len() > 6 {
            let hidden = ops.len() - 5;
            ops.truncate(5);
            ops.push(format!("and {hidden} more"));
        }
        let scope = self.graph.scope_path(cluster.nodes[0]);
        format!("{}: {}", if scope.is_empty() { "top level" } else { scope }, ops.join(" "))
    }
}
