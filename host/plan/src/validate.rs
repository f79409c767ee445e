//! Checks a plan before a device trusts it: after this, no address a kernel forms leaves its slot.

use ops::DType;

use crate::*;

type Check = Result<(), String>;

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(message()) }
}

impl Plan {
    /// Errors say which launch and which operand is wrong. `state_bytes` is the size of the State slab.
    pub fn validate(&self, state_bytes: usize) -> Result<(), DeviceError> {
        self.check(state_bytes).map_err(|reason| DeviceError::BadPlan { plan: self.name.clone(), reason })
    }

    fn check(&self, state_bytes: usize) -> Check {
        let check_slot = |slot: &Slot, what: &str| {
            let size = if slot.region == Region::State { state_bytes } else { self.arena_bytes };
            ensure(slot.offset.is_multiple_of(4) && slot.offset + slot.bytes <= size, || {
                format!("{what}: slot {slot} leaves its region of {size} bytes")
            })
        };
        for io in self.inputs.iter().chain(&self.outputs) {
            check_slot(&io.slot, &io.name)?;
            ensure(io.slot.bytes == io.dims.iter().product::<usize>() * DType::BYTES, || {
                format!("{}: slot {} does not fit {:?}", io.name, io.slot, io.dims)
            })?;
        }
        for (index, kernel) in self.kernels.iter().enumerate() {
            kernel.check().map_err(|reason| format!("kernel {index}: {reason}"))?;
        }
        for (index, guard) in self.guards.iter().enumerate() {
            let counter = self.inputs.get(guard.input);
            let counts = counter.is_some_and(|io| io.dtype == DType::I32 && io.dims.is_empty());
            ensure(counts && guard.period > 0, || format!("guard {index}: no counter, or no period"))?;
        }
        for launch in &self.launches {
            let label = &launch.label;
            let known = launch.guards.iter().all(|guard| *guard < self.guards.len());
            ensure(known, || format!("{label}: no such guard"))?;
            match &launch.op {
                LaunchOp::Tile { kernel, bindings } => {
                    let kernel =
                        self.kernels.get(*kernel).ok_or_else(|| format!("{label}: no kernel {kernel}"))?;
                    ensure(kernel.bindings.len() == bindings.len(), || format!("{label}: binding count"))?;
                    for slot in bindings {
                        check_slot(slot, label)?;
                    }
                    kernel.check_reach(bindings).map_err(|reason| format!("{label}: {reason}"))?;
                }
                LaunchOp::Gemm(gemm) => gemm.check().and_then(|()| {
                    let matrices = [gemm.a, gemm.b, gemm.out].into_iter().chain(gemm.c);
                    matrices.into_iter().try_for_each(|matrix| check_slot(&matrix.slot, label))
                })?,
                LaunchOp::Attention(attention) => {
                    attention.slots().iter().try_for_each(|slot| check_slot(slot, label))?;
                    attention.check().map_err(|reason| format!("{label}: {reason}"))?;
                }
                LaunchOp::AttentionGrad(attention) => {
                    attention.slots().iter().try_for_each(|slot| check_slot(slot, label))?;
                    attention.check().map_err(|reason| format!("{label}: {reason}"))?;
                }
                LaunchOp::CrossEntropy(launch) => {
                    launch.slots().iter().try_for_each(|slot| check_slot(slot, label))?;
                    launch.check().map_err(|reason| format!("{label}: {reason}"))?;
                }
                LaunchOp::DeltaRule(rule) => {
                    rule.slots().iter().try_for_each(|slot| check_slot(slot, label))?;
                    rule.check().map_err(|reason| format!("{label}: {reason}"))?;
                }
                LaunchOp::DeltaRuleGrad(rule) => {
                    rule.slots().iter().try_for_each(|slot| check_slot(slot, label))?;
                    rule.check().map_err(|reason| format!("{label}: {reason}"))?;
                }
                LaunchOp::ScatterAdd(s) => {
                    for (slot, len) in
                        [(&s.out, s.rows * s.width), (&s.ids, s.count), (&s.source, s.count * s.width)]
                    {
                        check_slot(slot, label)?;
                        ensure(slot.bytes >= len * DType::BYTES && s.rows > 0, || {
                            format!("{label}: slot {slot} is too small for {len} elements")
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Gemm {
    fn check(&self) -> Check {
        ensure(!self.symmetric || self.m == self.n, || format!("{}x{} cannot be symmetric", self.m, self.n))?;
        let axes = |stride: fn(&GemmBatch) -> usize| {
            self.batch.iter().map(|axis| (axis.count, stride(axis))).collect::<Vec<_>>()
        };
        let sides = [
            ("a", Some(self.a), self.m, self.k, axes(|axis| axis.a)),
            ("b", Some(self.b), self.k, self.n, axes(|axis| axis.b)),
            ("c", self.c, self.m, self.n, axes(|axis| axis.c)),
            ("out", Some(self.out), self.m, self.n, axes(|axis| axis.out)),
        ];
        for (name, matrix, rows, cols, batch) in sides {
            let Some(matrix) = matrix else { continue };
            ensure(rows > 0 && cols > 0 && batch.iter().all(|b| b.0 > 0), || format!("{name}: empty"))?;
            let last = (rows - 1) * matrix.row_stride
                + (cols - 1) * matrix.col_stride
                + batch.iter().map(|(count, stride)| (count - 1) * stride).sum::<usize>();
            ensure((last + 1) * DType::BYTES <= matrix.slot.bytes, || {
                format!("{name}: element {last} lies outside slot {}", matrix.slot)
            })?;
        }
        Ok(())
    }
}

impl TileKernel {
    /// Structure: ranks, dtypes, domains, and that values refer only to earlier ones.
    fn check(&self) -> Check {
        let rank = self.dims.len();
        ensure(rank > 0 && !self.dims.contains(&0), || "empty index space".into())?;
        let fits = match self.template {
            Template::Map => true,
            Template::RowReduce { reduced } => reduced > 0 && reduced <= rank,
            Template::ColReduce { outer, reduced } => reduced > 0 && outer + reduced < rank,
        };
        ensure(fits, || format!("{:?} does not fit {:?}", self.template, self.dims))?;
        for (id, value) in self.values.iter().enumerate() {
            let earlier =
                |arg: ValueId| ensure(arg < id, || format!("v{id} reads v{arg}, which comes later"));
            let affine = |at: &Affine| ensure(at.strides.len() == rank, || format!("v{id}: rank of {at}"));
            match &value.expr {
                Expr::Load { binding, at, gather } => {
                    affine(at)?;
                    ensure(*binding < self.bindings.len(), || format!("v{id}: no binding {binding}"))?;
                    if let Some(gather) = gather {
                        earlier(gather.index)?;
                        ensure(self.values[gather.index].dtype == DType::I32 && gather.limit > 0, || {
                            format!("v{id}: gathers by a value that is not i32")
                        })?;
                        ensure(gather.stride >= 0, || format!("v{id}: gathers backwards"))?;
                    }
                }
                Expr::Const(_) => {}
                Expr::Iota(at) => affine(at)?,
                Expr::Apply { args, .. } => args.iter().try_for_each(|arg| earlier(*arg))?,
                Expr::Reduce { arg, .. } => {
                    earlier(*arg)?;
                    ensure(self.template != Template::Map, || format!("v{id}: a Map cannot reduce"))?;
                }
            }
        }
        for store in &self.stores {
            ensure(store.value < self.values.len() && store.binding < self.bindings.len(), || {
                format!("store b{} = v{}: no such binding or value", store.binding, store.value)
            })?;
            ensure(store.at.strides.len() == rank, || format!("store b{}: rank", store.binding))?;
            ensure(self.bindings[store.binding].written, || format!("b{} is not written", store.binding))?;
            let folded = self.folded_axes();
            let repeats =
                |axis: usize| store.at.strides[axis] == 0 && self.dims[axis] > 1 && !folded.contains(&axis);
            ensure(!(0..rank).any(repeats), || {
                format!("store b{}: two points write one element", store.binding)
            })?;
        }
        Ok(())
    }

    pub(crate) fn folded_axes(&self) -> std::ops::Range<usize> {
        match self.template {
            Template::Map => 0..0,
            Template::RowReduce { reduced } => self.dims.len() - reduced..self.dims.len(),
            Template::ColReduce { outer, reduced } => outer..outer + reduced,
        }
    }

    /// Every address lies in its slot.
    fn check_reach(&self, slots: &[Slot]) -> Check {
        let reach = |binding: usize, at: &Affine, extra: i64| {
            let (low, high) = at.range(&self.dims);
            ensure(low >= 0 && (high + extra + 1) as usize * DType::BYTES <= slots[binding].bytes, || {
                format!("b{binding} reaches elements {low}..={} of {}", high + extra, slots[binding])
            })
        };
        for value in &self.values {
            if let Expr::Load { binding, at, gather } = &value.expr {
                let extra = gather.map_or(0, |g| g.stride.max(0) * (g.limit as i64 - 1));
                reach(*binding, at, extra)?;
            }
        }
        self.stores.iter().try_for_each(|store| reach(store.binding, &store.at, 0))
    }
}
