//! The text of a plan: what `HOST_DUMP` shows and what the digest hashes, so it must name everything that decides
//! a bit of the result.

use std::fmt::{self, Display, Formatter};

use crate::delta::NAMES;
use crate::*;

impl Display for PlanSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "states {} bytes", self.states.bytes)?;
        for state in &self.states.slots {
            writeln!(f, "  {} {}{:?} at {}", state.name, state.dtype, state.dims, state.slot)?;
        }
        self.plans.iter().try_for_each(|plan| write!(f, "{plan}"))
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Plan { name, arena_bytes, live_bytes, block_bytes, .. } = self;
        writeln!(
            f,
            "plan {name} arena {arena_bytes} bytes, live {live_bytes} bytes, block {block_bytes} bytes"
        )?;
        for (kind, list) in [("input", &self.inputs), ("output", &self.outputs)] {
            for io in list {
                writeln!(f, "  {kind} {} {}{:?} at {}", io.name, io.dtype, io.dims, io.slot)?;
            }
        }
        writeln!(f, "  reads {:?}\n  writes {:?}", self.reads, self.writes)?;
        for (index, guard) in self.guards.iter().enumerate() {
            let Guard { input, shift, period, offset } = guard;
            writeln!(f, "  guard {index} input {input} + {shift} mod {period} = {offset}")?;
        }
        for (index, kernel) in self.kernels.iter().enumerate() {
            write!(f, "  kernel {index} {kernel}")?;
        }
        self.launches.iter().try_for_each(|launch| writeln!(f, "  {launch}"))
    }
}

impl Display for TileKernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} over {:?}", self.template, self.dims)?;
        for (index, binding) in self.bindings.iter().enumerate() {
            writeln!(f, "    b{index} {}{}", binding.dtype, if binding.written { " written" } else { "" })?;
        }
        for (index, value) in self.values.iter().enumerate() {
            write!(f, "    v{index} = ")?;
            match &value.expr {
                Expr::Load { binding, at, gather } => {
                    write!(f, "load b{binding}{at}")?;
                    if let Some(g) = gather {
                        write!(f, " + {} * v{} below {}", g.stride, g.index, g.limit)?;
                    }
                }
                Expr::Const(bits) if value.dtype == ops::DType::F32 => {
                    write!(f, "{:?}", f32::from_bits(*bits))?
                }
                Expr::Const(bits) => write!(f, "{bits}")?,
                Expr::Iota(at) => write!(f, "iota{at}")?,
                Expr::Apply { op, args } => write!(f, "{op}{args:?}")?,
                Expr::Reduce { op, arg } => write!(f, "{op} v{arg}")?,
            }
            writeln!(f, " : {} {:?}", value.dtype, value.domain)?;
        }
        for store in &self.stores {
            writeln!(f, "    store b{}{} = v{}", store.binding, store.at, store.value)?;
        }
        Ok(())
    }
}

impl Display for Affine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "({} + {:?})", self.offset, self.strides)
    }
}

impl Display for Slot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let region = match self.region {
            Region::State => 'S',
            Region::Arena => 'A',
        };
        write!(f, "{region}+{}..{}", self.offset, self.offset + self.bytes)
    }
}

impl Display for Heads {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Heads { slot, batch, head, token, element } = self;
        write!(f, "{slot} ({batch}, {head}, {token}, {element})")
    }
}

impl Display for AttentionShape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [q, k, v] = self.inputs();
        write!(f, "{q:?} {k:?} {v:?} scale {:?}", self.scale)?;
        write!(f, " causal {} window {} prefix {}", self.causal, self.window, self.prefix)?;
        let (of_queries, of_keys) = self.segments.unzip();
        let named = [
            ("q_offset", self.q_offset),
            ("kv_len", self.kv_len),
            ("query segments", of_queries),
            ("key segments", of_keys),
        ];
        for (name, numbers) in named {
            let Some(Numbers { slot, batch, token }) = numbers else { continue };
            write!(f, " {name} {slot} ({batch}, {token})")?;
        }
        Ok(())
    }
}

impl Display for DeltaShape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let DeltaShape { batch, heads, tokens, width, value_width } = self;
        write!(f, "{batch}x{heads} of {tokens} tokens, {width} to {value_width}")
    }
}

impl Display for DeltaTensors {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut named = NAMES.iter().zip(self.all());
        named.try_for_each(|(name, heads)| write!(f, " {name} {heads}"))
    }
}

impl Display for Launch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | ", self.label)?;
        if !self.guards.is_empty() {
            write!(f, "if {:?} ", self.guards)?;
        }
        match &self.op {
            LaunchOp::Tile { kernel, bindings } => {
                write!(f, "tile {kernel}")?;
                bindings.iter().try_for_each(|slot| write!(f, " {slot}"))
            }
            LaunchOp::Gemm(g) => {
                let symmetric = if g.symmetric { "symmetric " } else { "" };
                write!(f, "{symmetric}gemm {}x{}x{} alpha {:?}", g.m, g.n, g.k, g.alpha)?;
                for (name, x) in [("a", g.a), ("b", g.b), ("out", g.out)] {
                    write!(f, " {name} {} ({}, {})", x.slot, x.row_stride, x.col_stride)?;
                }
                g.batch
                    .iter()
                    .try_for_each(|b| write!(f, " batch {} ({}, {}, {})", b.count, b.a, b.b, b.out))?;
                let Some(c) = g.c else { return Ok(()) };
                write!(f, " beta {:?} c {} ({}, {})", g.beta, c.slot, c.row_stride, c.col_stride)?;
                g.batch.iter().try_for_each(|b| write!(f, " ({})", b.c))
            }
            LaunchOp::Attention(a) => {
                write!(f, "attention {} q {} k {} v {}", a.shape, a.q, a.k, a.v)?;
                a.out.iter().try_for_each(|out| write!(f, " out {out}"))?;
                a.lse.iter().try_for_each(|lse| write!(f, " lse {lse}"))
            }
            LaunchOp::AttentionGrad(a) => {
                write!(f, "attention_grad {} q {} k {} v {}", a.shape, a.q, a.k, a.v)?;
                write!(f, " out {} lse {} ct_out {}", a.out, a.lse, a.ct_out)?;
                let cts = [("q", a.ct_q), ("k", a.ct_k), ("v", a.ct_v)];
                let cts = cts.iter().filter_map(|(name, ct)| Some((name, (*ct)?)));
                cts.into_iter().try_for_each(|(name, ct)| write!(f, " ct_{name} {ct}"))
            }
            LaunchOp::CrossEntropy(c) => {
                let CrossEntropy { tokens, width, vocabulary, x, w, targets, .. } = &**c;
                write!(
                    f,
                    "cross_entropy {tokens}x{width}x{vocabulary} x {} ({}) w {} ({})",
                    x.slot, x.stride, w.slot, w.stride
                )?;
                write!(f, " targets {} ({})", targets.slot, targets.stride)?;
                c.loss.iter().try_for_each(|loss| write!(f, " loss {loss}"))?;
                let Some(CrossEntropyGrad { ct, ct_x, ct_w }) = c.grad else { return Ok(()) };
                write!(f, " ct {} ({})", ct.slot, ct.stride)?;
                ct_x.iter().try_for_each(|ct| write!(f, " ct_x {ct}"))?;
                ct_w.iter().try_for_each(|ct| write!(f, " ct_w {ct}"))
            }
            LaunchOp::DeltaRule(rule) => {
                write!(f, "delta_rule {}{}", rule.shape, rule.operands)?;
                rule.out.iter().try_for_each(|out| write!(f, " out {out}"))?;
                rule.last.iter().try_for_each(|last| write!(f, " last {last}"))
            }
            LaunchOp::DeltaRuleGrad(rule) => {
                write!(f, "delta_rule_grad {}{}", rule.shape, rule.operands)?;
                rule.ct_out.iter().try_for_each(|ct| write!(f, " ct_out {ct}"))?;
                rule.ct_last.iter().try_for_each(|ct| write!(f, " ct_last {ct}"))?;
                let cts = NAMES.iter().zip(rule.cts).filter_map(|(name, ct)| Some((name, ct?)));
                cts.into_iter().try_for_each(|(name, ct)| write!(f, " ct_{name} {ct}"))
            }
            LaunchOp::ScatterAdd(s) => write!(
                f,
                "scatter_add {} ids {} source {} rows {} width {} count {}",
                s.out, s.ids, s.source, s.rows, s.width, s.count
            ),
        }
    }
}
