//! Building Scan and When: what is emitted between `open` and `close` becomes the body of one node.
//!
//! While a region is open its nodes are appended to the same graph, so a gradient taken inside may lead through values
//! computed outside. On closing, what the results need is moved into a graph of its own: placeholders become its
//! inputs, values from outside become operands (consts), constants are copied. The nodes left behind are dead, and a
//! later use of one is an error.

use std::collections::HashSet;
use std::sync::Arc;

use ops::{DType, Op};

use crate::attributes::{ScanShape, WhenShape};
use crate::extract::{Boundary, extract};
use crate::{Graph, NodeId, Ty};

/// How a Scan runs and what its derivative keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// From the last slice to the first.
    pub reverse: bool,
    /// The derivative computes the body again from its carries, instead of keeping its values.
    pub recompute: bool,
}

/// Membership of nodes in regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    /// Region of each node; 0 is the top level.
    of: Vec<u32>,
    open: Vec<Open>,
    count: u32,
}

#[derive(Clone, Debug)]
struct Open {
    number: u32,
    kind: Kind,
    /// In the order of the body's inputs, without consts.
    placeholders: Vec<NodeId>,
    /// What the placeholders stand for: the node's operands, without consts.
    operands: Vec<NodeId>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Scan { length: usize, carries: usize, options: ScanOptions },
    When { period: usize, offset: usize },
}

impl Regions {
    /// Whether what is emitted now may read the node.
    pub(crate) fn sees(&self, id: NodeId) -> bool {
        let region = self.of[id.index()];
        region == 0 || self.open.iter().any(|open| open.number == region)
    }

    /// Records the region of the node pushed last. Leaves stand outside every region.
    pub(crate) fn note(&mut self, leaf: bool) {
        let region = self.open.last().filter(|_| !leaf).map_or(0, |open| open.number);
        self.of.push(region);
    }
}

impl Graph {
    /// Opens the body of a Scan of `length` steps. Returns its placeholders: the index of the step (i32[]), the
    /// carries, and one slice of each of `xs`, which have `length` as their first extent.
    pub fn open_scan(
        &mut self,
        length: usize,
        carries: &[NodeId],
        xs: &[NodeId],
        options: ScanOptions,
    ) -> Vec<NodeId> {
        let poisoned = carries.iter().chain(xs).any(|id| *id == NodeId::POISON);
        let bad = xs.iter().find(|id| !poisoned && self.dims(**id).first() != Some(&length));
        if let Some(bad) = bad.copied() {
            let message = format!("takes {length} slices of {}", self.describe(bad));
            self.fail(Some(Op::Scan), message, "the first extent of each of xs is the number of steps");
        }
        let mut types = vec![Some(("iteration".to_string(), Ty::scalar(DType::I32)))];
        let named = |id: &NodeId, default: String| self.names.get(id).cloned().unwrap_or(default);
        types.extend(carries.iter().enumerate().map(|(index, id)| {
            (*id != NodeId::POISON).then(|| (named(id, format!("carry{index}")), self.ty(*id).clone()))
        }));
        types.extend(xs.iter().enumerate().map(|(index, id)| {
            let dims = (*id != NodeId::POISON).then(|| self.dims(*id)).filter(|dims| !dims.is_empty())?;
            let ty = Ty::new(self.ty(*id).dtype, &dims[1..]);
            Some((named(id, format!("slice{index}")), ty))
        }));
        let kind = Kind::Scan { length, carries: carries.len(), options };
        self.open(kind, types, [carries, xs].concat())
    }

    /// Opens the body of a When, which runs where `counter` (i32[], known to the host before the step: an input, the
    /// index of a Scan's step, or arithmetic on these) is `offset` modulo `period`. Returns a placeholder for each of
    /// `olds`; where the body does not run, they are the results.
    pub fn open_when(
        &mut self,
        counter: NodeId,
        period: usize,
        offset: usize,
        olds: &[NodeId],
    ) -> Vec<NodeId> {
        let types = olds.iter().enumerate().map(|(index, id)| {
            let name = self.names.get(id).cloned().unwrap_or_else(|| format!("old{index}"));
            (*id != NodeId::POISON).then(|| (name, self.ty(*id).clone()))
        });
        let types = types.collect();
        self.open(Kind::When { period, offset }, types, [&[counter], olds].concat())
    }

    fn open(&mut self, kind: Kind, types: Vec<Option<(String, Ty)>>, operands: Vec<NodeId>) -> Vec<NodeId> {
        self.regions.count += 1;
        let number = self.regions.count;
        self.regions.open.push(Open { number, kind, placeholders: Vec::new(), operands });
        let mut placeholders = Vec::with_capacity(types.len());
        for entry in types {
            placeholders.push(match entry {
                Some((name, ty)) => {
                    let id = self.placeholder(ty);
                    self.names.insert(id, name);
                    id
                }
                None => NodeId::POISON,
            });
        }
        if let Some(open) = self.regions.open.last_mut() {
            open.placeholders.clone_from(&placeholders);
        }
        placeholders
    }

    /// An Input of no declaration, which only lives until its region is closed.
    fn placeholder(&mut self, ty: Ty) -> NodeId {
        let serial = -1 - self.nodes.len() as i64;
        let id = self.push(Op::Input, &[], &[serial], &[], ty);
        if let Some(region) = self.regions.of.last_mut() {
            *region = self.regions.count;
        }
        id
    }

    /// Ends the innermost region. For a Scan, `results` are the next carries and then the ys, and the returned nodes
    /// the last carries and the stacked ys; for a When, the new values, and the returned nodes what is valid after.
    pub fn close_region(&mut self, results: &[NodeId]) -> Vec<NodeId> {
        let poison = vec![NodeId::POISON; results.len()];
        let Some(open) = self.regions.open.pop() else {
            self.fail(None, "ends a region that was not begun", "");
            return poison;
        };
        let given = [&open.placeholders, &open.operands, results].concat();
        if given.contains(&NodeId::POISON) {
            return poison;
        }
        let unseen = results.iter().find(|id| {
            id.index() >= self.nodes.len()
                || !(self.regions.of[id.index()] == open.number || self.regions.sees(**id))
        });
        if let Some(bad) = unseen {
            self.fail(None, format!("got result {bad}, which does not belong to the region it ends"), "");
            return poison;
        }
        let (body, consts) = self.body(&open, results);
        self.errors.extend(body.errors.iter().cloned());
        if !body.errors.is_empty() {
            return poison;
        }
        let index = self.bodies.len();
        self.bodies.push(Arc::new(body));
        let (op, head, rest, ints) = match open.kind {
            Kind::Scan { length, carries, options } => {
                let xs = open.operands.len() - carries;
                let shape = ScanShape { body: index, length, carries, xs, options, residuals: 0 };
                (Op::Scan, &[][..], &open.operands[..], shape.encode())
            }
            Kind::When { period, offset } => {
                let olds = open.operands.len() - 1;
                let shape = WhenShape { body: index, period, offset, olds, residuals: 0 };
                let (counter, olds) = open.operands.split_at(1);
                (Op::When, counter, olds, shape.encode())
            }
        };
        let node = self.emit(op, &[head, &consts, rest].concat(), &ints, &[]);
        (0..results.len()).map(|k| self.emit(Op::Result, &[node], &[k as i64], &[])).collect()
    }

    /// Whether a region was opened, so that nodes may be left behind that no root needs.
    pub fn had_regions(&self) -> bool {
        self.regions.count > 0
    }

    /// Whether a region is open.
    pub fn has_open_region(&self) -> bool {
        !self.regions.open.is_empty()
    }

    /// Emits at the top level, whatever regions are open: for what is declared once and used anywhere.
    pub fn outside_regions<R>(&mut self, build: impl FnOnce(&mut Graph) -> R) -> R {
        let open = std::mem::take(&mut self.regions.open);
        let result = build(self);
        self.regions.open = open;
        result
    }

    /// The body as a graph of its own, and the nodes outside that it needs.
    fn body(&self, open: &Open, results: &[NodeId]) -> (Graph, Vec<NodeId>) {
        let is_inside = |id: NodeId| self.regions.of[id.index()] == open.number;
        let is_copied = |id: NodeId| matches!(self.node(id).op, Op::Const | Op::Iota);
        let mut seen: HashSet<NodeId> = HashSet::new();
        let mut consts: Vec<NodeId> = Vec::new();
        let mut pending = results.to_vec();
        while let Some(id) = pending.pop() {
            if !seen.insert(id) {
                continue;
            }
            if is_inside(id) {
                pending.extend(&self.node(id).inputs);
            } else if !is_copied(id) {
                consts.push(id);
            }
        }
        consts.sort_unstable();
        // A Scan's first placeholder is the index of the step; consts stand before the others.
        let first = usize::from(matches!(open.kind, Kind::Scan { .. }));
        let (head, rest) = open.placeholders.split_at(first);
        let boundary: Vec<Boundary> =
            head.iter().chain(&consts).chain(rest).map(|id| Boundary::of(self, *id, "const")).collect();
        (extract(self, &boundary, results), consts)
    }
}
