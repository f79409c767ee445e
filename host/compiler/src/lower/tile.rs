//! A cluster as a tile kernel: values in graph order, loads through views, stores of what others need.

use std::collections::HashMap;

use graph::{DType, Graph, Node, NodeId, Op};
use plan::{Affine, Binding, Domain, Expr, Gather, Slot, Store, Template, TileKernel, Value, ValueId};

use super::space::Space;
use crate::Cluster;
use crate::analysis::{Analysis, Kind};
use crate::fuse::is_stored;

/// The kernel and a slot for each of its bindings. `at` gives the slot and strides of a node's value.
pub fn lower(
    graph: &Graph,
    analysis: &Analysis,
    cluster: &Cluster,
    at: impl Fn(NodeId) -> Result<(Slot, Vec<usize>), String>,
) -> Result<(TileKernel, Vec<Slot>), String> {
    let mut builder = Builder {
        graph,
        analysis,
        cluster,
        at,
        slots: Vec::new(),
        bindings: Vec::new(),
        values: Vec::new(),
        accesses: Vec::new(),
        spreads: HashMap::new(),
        of_node: HashMap::new(),
        loads: HashMap::new(),
    };
    for id in &cluster.nodes {
        let value = builder.compute(*id)?;
        builder.of_node.insert(*id, value);
    }
    let mut stores = Vec::new();
    for id in cluster.nodes.iter().filter(|id| is_stored(analysis, **id, cluster)) {
        stores.push(builder.store(*id)?);
    }
    Ok(builder.finish(stores))
}

struct Builder<'a, At> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    cluster: &'a Cluster,
    at: At,
    slots: Vec<Slot>,
    bindings: Vec<Binding>,
    /// Domains are filled in at the end, when strides are final.
    values: Vec<Value>,
    /// Strides over the cluster's axes of every load, iota and store, in order of creation.
    accesses: Vec<Vec<i64>>,
    /// Copies that spread a value over a larger domain than its arguments have.
    spreads: HashMap<ValueId, Domain>,
    of_node: HashMap<NodeId, ValueId>,
    /// Loads by slot and strides, so that equal ones are one value.
    loads: HashMap<(usize, usize, Vec<i64>), ValueId>,
}

impl<At: Fn(NodeId) -> Result<(Slot, Vec<usize>), String>> Builder<'_, At> {
    /// Strides over the cluster's axes of something with these extents: an axis of extent 1 is not walked.
    fn over_space(&self, dims: &[usize], strides: &[usize]) -> Vec<i64> {
        let pairs = dims.iter().zip(strides);
        pairs.map(|(dim, stride)| if *dim == 1 { 0 } else { *stride as i64 }).collect()
    }

    fn push(&mut self, expr: Expr, dtype: DType) -> ValueId {
        self.values.push(Value { expr, dtype, domain: Domain::Element });
        self.values.len() - 1
    }

    /// An address whose strides are found in `accesses` once the space is final.
    fn address(&mut self, strides: Vec<i64>) -> Affine {
        self.accesses.push(strides);
        Affine::new(0, Vec::new())
    }

    fn compute(&mut self, id: NodeId) -> Result<ValueId, String> {
        let node = self.graph.node(id);
        let expr = match node.op {
            Op::Gather => return self.gather(node),
            Op::Sum | Op::ReduceMax => {
                let element = self.operand(node.inputs[0])?;
                Expr::Reduce { op: node.op, arg: self.spread(element, Domain::Element) }
            }
            _ => {
                let args: Result<Vec<ValueId>, String> =
                    node.inputs.iter().map(|input| self.operand(*input)).collect();
                Expr::Apply { op: node.op, args: args? }
            }
        };
        Ok(self.push(expr, node.ty.dtype))
    }

    /// A copy that has one number for each point of `domain`, even where the value does not change that often.
    fn spread(&mut self, value: ValueId, domain: Domain) -> ValueId {
        let dtype = self.values[value].dtype;
        let copy = self.push(Expr::Apply { op: Op::Copy, args: vec![value] }, dtype);
        self.spreads.insert(copy, domain);
        copy
    }

    /// Value of an operand at the point: computed here, free, or loaded.
    fn operand(&mut self, id: NodeId) -> Result<ValueId, String> {
        let (root, _) = self.analysis.through_views(self.graph, id);
        if let Some(value) = self.of_node.get(&root) {
            return Ok(*value);
        }
        let node = self.graph.node(id);
        if self.analysis.kind(id) == Kind::Free {
            let expr = match node.op {
                Op::Const => Expr::Const(constant_bits(node)),
                Op::Iota => {
                    let mut strides = vec![0; node.ty.rank()];
                    strides[node.ints[0] as usize] = 1;
                    let strides = self.over_space(&node.ty.dims, &strides);
                    Expr::Iota(self.address(strides))
                }
                _ => return self.compute_free(id, node),
            };
            let value = self.push(expr, node.ty.dtype);
            self.of_node.insert(id, value);
            return Ok(value);
        }
        let (slot, strides) = (self.at)(id)?;
        let strides = self.over_space(self.graph.dims(id), &strides);
        self.load(slot, strides, node.ty.dtype, None)
    }

    fn compute_free(&mut self, id: NodeId, node: &Node) -> Result<ValueId, String> {
        let args: Result<Vec<ValueId>, String> =
            node.inputs.iter().map(|input| self.operand(*input)).collect();
        let value = self.push(Expr::Apply { op: node.op, args: args? }, node.ty.dtype);
        self.of_node.insert(id, value);
        Ok(value)
    }

    fn load(
        &mut self,
        slot: Slot,
        strides: Vec<i64>,
        dtype: DType,
        gather: Option<Gather>,
    ) -> Result<ValueId, String> {
        let binding = self.binding(slot, dtype, false);
        let key = (binding, gather.map_or(usize::MAX, |gather| gather.index), strides.clone());
        if let Some(value) = self.loads.get(&key) {
            return Ok(*value);
        }
        let at = self.address(strides);
        let value = self.push(Expr::Load { binding, at, gather }, dtype);
        self.loads.insert(key, value);
        Ok(value)
    }

    /// Rows of a table: the ids' axes come first, then those of a row.
    fn gather(&mut self, node: &Node) -> Result<ValueId, String> {
        let (table, ids) = (node.inputs[0], node.inputs[1]);
        let (slot, strides) = (self.at)(table)?;
        let (ids_slot, ids_strides) = (self.at)(ids)?;
        let (table_dims, ids_dims) = (self.graph.dims(table), self.graph.dims(ids));
        let row_rank = table_dims.len() - 1;
        let mut of_ids = self.over_space(ids_dims, &ids_strides);
        of_ids.extend(vec![0; row_rank]);
        let index = self.load(ids_slot, of_ids, DType::I32, None)?;
        let mut of_row = vec![0; ids_dims.len()];
        of_row.extend(self.over_space(&table_dims[1..], &strides[1..]));
        let gather = Gather { index, stride: strides[0] as i64, limit: table_dims[0] };
        self.load(slot, of_row, node.ty.dtype, Some(gather))
    }

    /// One binding for each slot and dtype; a store through a slot that is also loaded makes it an in-place update.
    fn binding(&mut self, slot: Slot, dtype: DType, written: bool) -> usize {
        let found = (0..self.slots.len()).find(|index| {
            let same_start =
                (self.slots[*index].region, self.slots[*index].offset) == (slot.region, slot.offset);
            same_start && self.bindings[*index].dtype == dtype
        });
        let index = found.unwrap_or_else(|| {
            self.slots.push(slot);
            self.bindings.push(Binding { dtype, written: false });
            self.slots.len() - 1
        });
        self.bindings[index].written |= written;
        self.slots[index].bytes = self.slots[index].bytes.max(slot.bytes);
        index
    }

    fn store(&mut self, id: NodeId) -> Result<Store, String> {
        let node = self.graph.node(id);
        let (slot, strides) = (self.at)(id)?;
        let strides = self.over_space(&node.ty.dims, &strides);
        let is_row = !self.cluster.reduced.is_empty() && node.ty.dims == self.cluster.row_dims();
        let value = self.spread(self.of_node[&id], if is_row { Domain::Row } else { Domain::Element });
        let binding = self.binding(slot, node.ty.dtype, true);
        let at = self.address(strides);
        Ok(Store { binding, at, value })
    }

    /// Joins axes, fills in strides and domains.
    fn finish(self, mut stores: Vec<Store>) -> (TileKernel, Vec<Slot>) {
        let space = Space::new(self.cluster);
        let (dims, template, strides) = space.collapse(&self.cluster.dims, &self.accesses);
        let mut strides = strides.into_iter();
        let mut values = self.values;
        for value in &mut values {
            if let Expr::Load { at, .. } | Expr::Iota(at) = &mut value.expr {
                at.strides = strides.next().expect("one access for each address");
            }
        }
        for store in &mut stores {
            store.at.strides = strides.next().expect("one access for each address");
        }
        for id in 0..values.len() {
            let spread = self.spreads.get(&id).copied();
            values[id].domain = spread.unwrap_or_else(|| domain(&values, id, template, dims.len()));
        }
        let (values, stores) = without_idle_copies(values, stores);
        (TileKernel { dims, template, bindings: self.bindings, values, stores }, self.slots)
    }
}

/// How often a value changes, from its address or its arguments.
fn domain(values: &[Value], id: ValueId, template: Template, rank: usize) -> Domain {
    let of_address = |at: &Affine| match template {
        _ if at.strides.iter().all(|stride| *stride == 0) => Domain::Uniform,
        Template::RowReduce { reduced } if at.strides[rank - reduced..].iter().all(|stride| *stride == 0) => {
            Domain::Row
        }
        _ => Domain::Element,
    };
    match &values[id].expr {
        Expr::Const(_) => Domain::Uniform,
        Expr::Iota(at) => of_address(at),
        Expr::Load { at, gather: None, .. } => of_address(at),
        Expr::Load { at, gather: Some(gather), .. } => of_address(at).max(values[gather.index].domain),
        Expr::Reduce { .. } => Domain::Row,
        Expr::Apply { args, .. } => {
            args.iter().map(|arg| values[*arg].domain).max().unwrap_or(Domain::Uniform)
        }
    }
}

/// Drops copies that change neither value nor domain and renumbers.
fn without_idle_copies(values: Vec<Value>, mut stores: Vec<Store>) -> (Vec<Value>, Vec<Store>) {
    let mut new_ids: Vec<ValueId> = Vec::with_capacity(values.len());
    let mut kept: Vec<Value> = Vec::with_capacity(values.len());
    for mut value in values {
        match &mut value.expr {
            Expr::Apply { op, args } => {
                args.iter_mut().for_each(|arg| *arg = new_ids[*arg]);
                if *op == Op::Copy && kept[args[0]].domain == value.domain {
                    new_ids.push(args[0]);
                    continue;
                }
            }
            Expr::Reduce { arg, .. } => *arg = new_ids[*arg],
            Expr::Load { gather: Some(gather), .. } => gather.index = new_ids[gather.index],
            _ => {}
        }
        new_ids.push(kept.len());
        kept.push(value);
    }
    stores.iter_mut().for_each(|store| store.value = new_ids[store.value]);
    (kept, stores)
}

fn constant_bits(node: &Node) -> u32 {
    let value = node.floats[0];
    match node.ty.dtype {
        DType::F32 => (value as f32).to_bits(),
        DType::I32 => value as i32 as u32,
        DType::U32 => value as u32,
        DType::Bool => u32::from(value != 0.0),
    }
}
