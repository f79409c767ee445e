//! Nodes and the graph that holds them.
//!
//! Invariants, checked by [`crate::verify`]: inputs precede their node; types agree with inference; no implicit
//! promotion or broadcast; `Write` and `Output` are the only effects; each State is written at most once; the body of
//! a region is a graph of its own that refers to nothing outside.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ops::{Class, DType, Op};

use crate::regions::Regions;
use crate::{GraphError, Ty, fold, infer};

/// Index of a node in its graph. The number plugins see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Stands for the result of a failed emit.
    pub const POISON: NodeId = NodeId(u32::MAX);

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// Index of a scope path in `Graph::scopes`.
pub type ScopeId = u32;

/// One operation. Its attributes are the `ints` and `floats` that the op table describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<NodeId>,
    pub ints: Vec<i64>,
    pub floats: Vec<f64>,
    pub ty: Ty,
    pub scope: ScopeId,
    /// Nodes of different clone numbers are never shared: what is computed twice on purpose stays so.
    pub clone: u32,
}

/// A named input, State or output.
#[derive(Clone, Debug, PartialEq)]
pub struct Decl {
    pub name: String,
    pub ty: Ty,
}

type Key = (Op, Vec<NodeId>, Vec<i64>, Vec<u64>, u32);

/// An append-only list of nodes with the names they refer to.
#[derive(Clone, Debug)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub inputs: Vec<Decl>,
    pub states: Vec<Decl>,
    pub outputs: Vec<Decl>,
    /// Bodies of Scan and When, which name theirs by index.
    pub bodies: Vec<Arc<Graph>>,
    pub scopes: Vec<String>,
    /// Names of nodes for error messages: parameters, tokens.
    pub names: HashMap<NodeId, String>,
    /// What failed so far, in order. A graph with errors is not to be compiled.
    pub errors: Vec<GraphError>,
    /// Whether `emit` joins a chain of movements into one. Off while a graph is traced, on in passes.
    pub(crate) joins_movements: bool,
    /// Which region each node was emitted in, and the regions still open.
    pub(crate) regions: Regions,
    /// Clone number of what is emitted now.
    clone: u32,
    scope_stack: Vec<ScopeId>,
    scope_ids: HashMap<String, ScopeId>,
    shared: HashMap<Key, NodeId>,
}

impl Default for Graph {
    fn default() -> Graph {
        Graph {
            nodes: Vec::new(),
            inputs: Vec::new(),
            states: Vec::new(),
            outputs: Vec::new(),
            bodies: Vec::new(),
            scopes: vec![String::new()],
            names: HashMap::new(),
            errors: Vec::new(),
            joins_movements: false,
            regions: Regions::default(),
            clone: 0,
            scope_stack: vec![0],
            scope_ids: HashMap::from([(String::new(), 0)]),
            shared: HashMap::new(),
        }
    }
}

impl Graph {
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub fn ty(&self, id: NodeId) -> &Ty {
        &self.nodes[id.index()].ty
    }

    pub fn dims(&self, id: NodeId) -> &[usize] {
        &self.ty(id).dims
    }

    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    pub fn scope_path(&self, id: NodeId) -> &str {
        &self.scopes[self.node(id).scope as usize]
    }

    /// Enters a scope below the current one: `layers.3` and then `attn` give `layers.3.attn`.
    pub fn push_scope(&mut self, name: &str) {
        let outer = self.current_scope();
        let path = if outer.is_empty() { name.to_string() } else { format!("{outer}.{name}") };
        let id = self.intern_scope(&path);
        self.scope_stack.push(id);
    }

    /// Leaves the innermost scope; the top level stays.
    pub fn pop_scope(&mut self) {
        if self.scope_stack.len() > 1 {
            self.scope_stack.pop();
        }
    }

    pub fn current_scope(&self) -> &str {
        &self.scopes[self.scope_id() as usize]
    }

    pub(crate) fn scope_id(&self) -> ScopeId {
        *self.scope_stack.last().unwrap_or(&0)
    }

    /// Replaces the scope for what `build` emits: passes keep the scope of the node they rewrite.
    pub fn in_scope<R>(&mut self, path: &str, build: impl FnOnce(&mut Graph) -> R) -> R {
        let id = self.intern_scope(path);
        self.scope_stack.push(id);
        let result = build(self);
        self.scope_stack.pop();
        result
    }

    /// Replaces the clone number for what `build` emits.
    pub fn in_clone<R>(&mut self, number: u32, build: impl FnOnce(&mut Graph) -> R) -> R {
        let outer = std::mem::replace(&mut self.clone, number);
        let result = build(self);
        self.clone = outer;
        result
    }

    fn intern_scope(&mut self, path: &str) -> ScopeId {
        if let Some(id) = self.scope_ids.get(path) {
            return *id;
        }
        let id = self.scopes.len() as ScopeId;
        self.scopes.push(path.to_string());
        self.scope_ids.insert(path.to_string(), id);
        id
    }

    /// A value uploaded before each replay.
    pub fn input(&mut self, name: &str, ty: Ty) -> NodeId {
        if let Err((message, hint)) = infer::supported(&ty.dims) {
            return self.fail(Some(Op::Input), format!("{name} {message}"), hint);
        }
        let index = declare(&mut self.inputs, name, &ty);
        let id = self.push(Op::Input, &[], &[index], &[], ty);
        self.names.insert(id, name.to_string());
        id
    }

    /// A value kept between replays, read as it was before this one.
    pub fn state(&mut self, name: &str, ty: Ty) -> NodeId {
        if let Err((message, hint)) = infer::supported(&ty.dims) {
            return self.fail(Some(Op::State), format!("{name} {message}"), hint);
        }
        let index = declare(&mut self.states, name, &ty);
        let id = self.push(Op::State, &[], &[index], &[], ty);
        self.names.insert(id, name.to_string());
        id
    }

    /// Makes `value` the content of a State after this replay.
    pub fn write(&mut self, state: NodeId, value: NodeId) {
        if state == NodeId::POISON || value == NodeId::POISON {
            return;
        }
        let index = self.node(state).ints[0];
        self.emit(Op::Write, &[value], &[index], &[]);
    }

    /// Hands `value` to the host under a name.
    pub fn output(&mut self, name: &str, value: NodeId) {
        if value == NodeId::POISON {
            return;
        }
        let ty = self.ty(value).clone();
        let known = self.outputs.len();
        let index = declare(&mut self.outputs, name, &ty);
        if self.emit(Op::Output, &[value], &[index], &[]) == NodeId::POISON {
            self.outputs.truncate(known);
        }
    }

    /// One value in every element of `dims`.
    pub fn constant(&mut self, value: f64, dtype: DType, dims: &[usize]) -> NodeId {
        let ints: Vec<i64> =
            std::iter::once(dtype as i64).chain(dims.iter().map(|dim| *dim as i64)).collect();
        self.emit(Op::Const, &[], &ints, &[value])
    }

    /// Appends an operation, or an equal or simpler one that is already there. On an error, records it and returns
    /// [`NodeId::POISON`]; a poisoned operand gives a poisoned result and no second error.
    pub fn emit(&mut self, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64]) -> NodeId {
        if inputs.contains(&NodeId::POISON) {
            return NodeId::POISON;
        }
        if let Some(bad) = inputs.iter().find(|id| id.index() >= self.nodes.len()) {
            return self.fail(Some(op), format!("got operand {bad}, which no emit returned"), "");
        }
        if let Some(closed) = inputs.iter().find(|id| !self.regions.sees(**id)) {
            let message =
                format!("reads {}, which belongs to a region that has ended", self.describe(*closed));
            return self.fail(Some(op), message, "return it from the body of the Scan or When");
        }
        let ty = match infer::infer(self, op, inputs, ints, floats) {
            Ok(ty) => ty,
            Err((message, hint)) => return self.fail(Some(op), message, hint),
        };
        if let Some(simpler) = fold::fold(self, op, inputs, ints, floats, &ty) {
            return simpler;
        }
        self.push(op, inputs, ints, floats, ty)
    }

    /// Appends an operation as it stands, without folding: the way a graph is read back from its text.
    pub(crate) fn append(
        &mut self,
        op: Op,
        inputs: &[NodeId],
        ints: &[i64],
        floats: &[f64],
    ) -> Result<NodeId, String> {
        if let Some(bad) = inputs.iter().find(|id| id.index() >= self.nodes.len()) {
            return Err(format!("{bad} is not defined yet"));
        }
        let ty = infer::infer(self, op, inputs, ints, floats).map_err(|(message, _)| message)?;
        Ok(self.push(op, inputs, ints, floats, ty))
    }

    /// Records an error at the current scope.
    pub fn fail(&mut self, op: Option<Op>, message: impl Into<String>, hint: impl Into<String>) -> NodeId {
        let scope = self.current_scope().to_string();
        let (message, hint) = (message.into(), hint.into());
        self.errors.push(GraphError { scope, op, message, hint, location: String::new() });
        NodeId::POISON
    }

    pub(crate) fn push(&mut self, op: Op, inputs: &[NodeId], ints: &[i64], floats: &[f64], ty: Ty) -> NodeId {
        // All NaNs are one, as they are in the text.
        let bits =
            floats.iter().map(|value| if value.is_nan() { f64::NAN } else { *value }.to_bits()).collect();
        let clone = if op.row().class == Class::Leaf { 0 } else { self.clone };
        let key = (op, inputs.to_vec(), ints.to_vec(), bits, clone);
        if let Some(&id) = self.shared.get(&key).filter(|id| self.regions.sees(**id)) {
            return id;
        }
        let id = NodeId(self.nodes.len() as u32);
        let scope = self.scope_id();
        let (inputs, ints, floats) = (inputs.to_vec(), ints.to_vec(), floats.to_vec());
        self.nodes.push(Node { op, inputs, ints, floats, ty, scope, clone });
        self.regions.note(op.row().class == Class::Leaf);
        self.shared.insert(key, id);
        id
    }

    /// Gives a region another body, with more results than before: what its derivative needs of it. Results of the old
    /// body keep their index.
    pub(crate) fn widen(&mut self, region: NodeId, body: Graph, change: impl FnOnce(&mut [i64])) {
        let index = self.bodies.len() as i64;
        self.bodies.push(Arc::new(body));
        let node = &mut self.nodes[region.index()];
        let key =
            |ints: &[i64], node: &Node| (node.op, node.inputs.clone(), ints.to_vec(), Vec::new(), node.clone);
        self.shared.remove(&key(&node.ints, node));
        node.ints[0] = index;
        change(&mut node.ints);
        let node = &self.nodes[region.index()];
        self.shared.insert(key(&node.ints, node), region);
    }

    /// `layers.0.wq f32[128, 128]`, for messages.
    pub fn describe(&self, id: NodeId) -> String {
        match self.names.get(&id) {
            Some(name) => format!("{name} {}", self.ty(id)),
            None => format!("{}{} {}", self.node(id).op, id, self.ty(id)),
        }
    }

    /// Nodes with effects, in order.
    pub fn roots(&self) -> Vec<NodeId> {
        self.ids().filter(|id| matches!(self.node(*id).op, Op::Write | Op::Output)).collect()
    }

    pub fn class(&self, id: NodeId) -> Class {
        self.node(id).op.row().class
    }
}

fn declare(list: &mut Vec<Decl>, name: &str, ty: &Ty) -> i64 {
    let found = list.iter().position(|decl| decl.name == name);
    found.unwrap_or_else(|| {
        list.push(Decl { name: name.to_string(), ty: ty.clone() });
        list.len() - 1
    }) as i64
}
