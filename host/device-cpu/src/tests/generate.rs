//! Random tile kernels: every template, op and kind of address, over shapes with odd and one-sized axes.

use ops::{Class, DType, Op};
use plan::{Affine, Binding, Domain, Expr, Gather, Store, Template, TileKernel, Value, ValueId};

use super::Random;

/// A kernel and the words of its bindings.
pub struct Case {
    pub kernel: TileKernel,
    pub bindings: Vec<Vec<u32>>,
}

struct Generator<'a> {
    random: &'a mut Random,
    case: Case,
    /// Axes along which each value is constant: only those matter that a store must know.
    by_row_only: Vec<bool>,
    reduced: std::ops::Range<usize>,
}

pub fn case(random: &mut Random, dims: Vec<usize>, template: Template) -> Case {
    let rank = dims.len();
    let reduced = match template {
        Template::Map => rank..rank,
        Template::RowReduce { reduced } => rank - reduced..rank,
        Template::ColReduce { outer, reduced } => outer..outer + reduced,
    };
    let kernel = TileKernel { dims, template, bindings: vec![], values: vec![], stores: vec![] };
    let case = Case { kernel, bindings: vec![] };
    let mut generator = Generator { random, case, by_row_only: vec![], reduced };
    for _ in 0..2 + generator.random.below(4) {
        generator.leaf();
    }
    for _ in 0..3 + generator.random.below(12) {
        generator.inner();
    }
    generator.stores();
    generator.case
}

impl Generator<'_> {
    fn is_column(&self) -> bool {
        matches!(self.case.kernel.template, Template::ColReduce { .. })
    }

    fn push(&mut self, expr: Expr, dtype: DType) -> ValueId {
        let kernel = &mut self.case.kernel;
        let reduced = self.reduced.clone();
        let is_fixed = |at: &Affine| at.strides[reduced.clone()].iter().all(|stride| *stride == 0);
        let by_row_only = match &expr {
            Expr::Const(_) => true,
            Expr::Iota(at) => is_fixed(at),
            Expr::Load { at, gather, .. } => {
                is_fixed(at) && gather.is_none_or(|gather| self.by_row_only[gather.index])
            }
            Expr::Apply { args, .. } => args.iter().all(|arg| self.by_row_only[*arg]),
            Expr::Reduce { .. } => true,
        };
        self.by_row_only.push(by_row_only);
        kernel.values.push(Value { expr, dtype, domain: Domain::Element });
        kernel.values.len() - 1
    }

    fn binding(&mut self, dtype: DType, length: i64) -> usize {
        let random = &mut *self.random;
        let word = |random: &mut Random| match dtype {
            DType::F32 => random.float().to_bits(),
            DType::I32 => (random.below(24) as i32 - 8) as u32,
            DType::U32 => random.next() as u32,
            DType::Bool => random.below(2) as u32,
        };
        self.case.bindings.push((0..length).map(|_| word(random)).collect());
        self.case.kernel.bindings.push(Binding { dtype, written: false });
        self.case.bindings.len() - 1
    }

    /// Row-major or permuted strides over the axes that `keep` says, sometimes with gaps; and how many elements.
    fn dense(&mut self, keep: impl Fn(usize, &mut Random) -> bool) -> (Affine, i64) {
        let dims = self.case.kernel.dims.clone();
        let mut order: Vec<usize> = (0..dims.len()).collect();
        if self.random.chance(35) {
            for i in (1..order.len()).rev() {
                order.swap(i, self.random.below(i + 1));
            }
        }
        let mut strides = vec![0; dims.len()];
        let mut next = if self.random.chance(15) { 2 } else { 1 };
        for axis in order.into_iter().rev() {
            if keep(axis, self.random) {
                strides[axis] = next;
                next *= dims[axis] as i64 + if self.random.chance(15) { 3 } else { 0 };
            }
        }
        let at = Affine::new(self.random.below(4) as i64, strides);
        let length = at.range(&dims).1 + 1;
        (at, length)
    }

    fn leaf(&mut self) {
        let dtype =
            self.random.pick(&[DType::F32, DType::F32, DType::F32, DType::I32, DType::U32, DType::Bool]);
        match self.random.below(8) {
            0 => {
                let bits = if dtype == DType::Bool { 1 } else { 0.75f32.to_bits() };
                self.push(Expr::Const(bits), dtype);
            }
            1 => {
                let strides = (0..self.case.kernel.dims.len()).map(|_| self.random.below(4) as i64).collect();
                let dtype = self.random.pick(&[DType::F32, DType::I32, DType::U32]);
                self.push(Expr::Iota(Affine::new(1, strides)), dtype);
            }
            _ => {
                let broadcast = self.random.pick(&[0, 0, 40]);
                let (at, length) = self.dense(|_, random| !random.chance(broadcast));
                let binding = self.binding(dtype, length);
                self.push(Expr::Load { binding, at, gather: None }, dtype);
            }
        }
    }

    fn find(&mut self, dtype: DType) -> Option<ValueId> {
        let late = self.case.kernel.values.iter().map(|value| matches!(value.expr, Expr::Reduce { .. }));
        let usable: Vec<ValueId> = late
            .enumerate()
            .filter(|(id, is_reduce)| {
                self.case.kernel.values[*id].dtype == dtype && !(*is_reduce && self.is_column())
            })
            .map(|(id, _)| id)
            .collect();
        if usable.is_empty() { None } else { Some(self.random.pick(&usable)) }
    }

    fn inner(&mut self) {
        let reduces = self.case.kernel.template != Template::Map && self.random.chance(20);
        if reduces {
            if let Some(arg) = self.find(DType::F32) {
                let op = self.random.pick(&[Op::Sum, Op::ReduceMax]);
                self.push(Expr::Reduce { op, arg }, DType::F32);
            }
            return;
        }
        if self.random.chance(10) {
            if let Some(index) = self.find(DType::I32) {
                let (at, length) = self.dense(|_, random| random.chance(60));
                let gather = Gather { index, stride: 1 + self.random.below(5) as i64, limit: 11 };
                let binding = self.binding(DType::F32, length + gather.stride * 10);
                self.push(Expr::Load { binding, at, gather: Some(gather) }, DType::F32);
            }
            return;
        }
        let table: Vec<Op> =
            Op::ALL.iter().copied().filter(|op| op.row().class == Class::Elementwise).collect();
        let op = self.random.pick(&table);
        let dtype =
            self.random.pick(&[DType::F32, DType::F32, DType::F32, DType::I32, DType::U32, DType::Bool]);
        if !crate::tile::supports(op, dtype) {
            return;
        }
        let mut args = Vec::new();
        for position in 0..op.row().arity.1 {
            let wanted = if op == Op::Select && position == 0 { DType::Bool } else { dtype };
            match self.find(wanted) {
                Some(arg) => args.push(arg),
                None => return,
            }
        }
        let to = match op {
            Op::Lt | Op::Eq => DType::Bool,
            Op::Cast => self.random.pick(&DType::ALL),
            Op::Bitcast => self.random.pick(&[DType::F32, DType::I32, DType::U32]),
            _ => dtype,
        };
        self.push(Expr::Apply { op, args }, to);
    }

    /// Stores of the last value and a few others, some in place of a load.
    fn stores(&mut self) {
        let count = self.case.kernel.values.len();
        let reduced = self.reduced.clone();
        let mut wanted: Vec<ValueId> = (0..count).filter(|_| self.random.chance(25)).collect();
        wanted.push(count - 1);
        wanted.dedup();
        for value in wanted {
            let is_reduce = matches!(self.case.kernel.values[value].expr, Expr::Reduce { .. });
            let is_row =
                self.by_row_only[value] && matches!(self.case.kernel.template, Template::RowReduce { .. });
            let per_row = (is_reduce && self.is_column()) || (is_row && self.random.chance(70));
            let dtype = self.case.kernel.values[value].dtype;
            if !per_row && self.random.chance(30) && self.store_in_place(value) {
                continue;
            }
            let (at, length) = self.dense(|axis, _| !(per_row && reduced.contains(&axis)));
            let binding = self.binding(dtype, length);
            self.case.kernel.bindings[binding].written = true;
            self.case.kernel.stores.push(Store { binding, at, value });
        }
    }

    /// Stores over a binding that one load reads, if there is one whose address names each point apart.
    fn store_in_place(&mut self, value: ValueId) -> bool {
        let kernel = &mut self.case.kernel;
        let reads = |binding: usize| {
            let mut loads = kernel.values.iter().filter_map(|value| match &value.expr {
                Expr::Load { binding: other, at, gather } if *other == binding => Some((at, gather)),
                _ => None,
            });
            match (loads.next(), loads.next()) {
                (Some((at, None)), None) => Some(at.clone()),
                _ => None,
            }
        };
        let dims = &kernel.dims;
        let found = (0..kernel.bindings.len()).filter(|b| !kernel.bindings[*b].written).find_map(|b| {
            let at = reads(b)?;
            let names_apart = at.strides.iter().zip(dims).all(|(stride, dim)| *dim == 1 || *stride != 0);
            let fits = kernel.bindings[b].dtype == kernel.values[value].dtype;
            (names_apart && fits).then_some((b, at))
        });
        let Some((binding, at)) = found else { return false };
        kernel.bindings[binding].written = true;
        kernel.stores.push(Store { binding, at, value });
        true
    }
}
