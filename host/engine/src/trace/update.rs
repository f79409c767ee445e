//! The optimizer's part of a step: the global norm, clipping, one update per bank, and a write of each State that
//! keeps the old value if the step is not finite. It can be traced alone, so that an optimizer can be tested without
//! a model.

use graph::{Builder, DType, Graph, NodeId, Op, Ty, Var};
use plugin_api::abi::GroupIds;

use super::banks::{Banks, Parameter};
use super::split::{Ready, split};
use super::tracer::{Context, Traced, Tracer, check};
use crate::Error;
use crate::config::{Chosen, Fallback};
use crate::plugins::Registry;

/// Keeps the division by the norm defined where every gradient is zero.
const NORM_EPS: f64 = 1e-6;

/// What a step knows of all its gradients together.
#[derive(Clone, Copy, Debug)]
pub struct GlobalNorm {
    /// f32[]: square root of the sum of all squares. Not finite if any gradient is not.
    pub norm: NodeId,
    /// bool[]: whether norm and loss are finite.
    pub finite: NodeId,
    /// f32[]: min(1, limit / (norm + 1e-6)).
    pub factor: NodeId,
}

/// Norm of `gradients`, one tensor a bank, and the factor that keeps it below `limit`.
pub fn global_norm(graph: &mut Graph, gradients: &[NodeId], loss: NodeId, limit: f64) -> GlobalNorm {
    Builder::with(graph, |b| {
        let squares = gradients.iter().map(|id| {
            let gradient = b.var(*id);
            let axes: Vec<usize> = (0..gradient.dims().len()).collect();
            (gradient * gradient).sum(&axes).reshape(&[])
        });
        let zero = b.constant(0.0, &Ty::scalar(DType::F32));
        let norm = squares.fold(zero, |sum, square| sum + square).unary(Op::Sqrt);
        let finite = is_finite(norm).binary(Op::And, is_finite(b.var(loss)));
        let limit = norm.constant(limit);
        let factor = norm.constant(1.0).binary(Op::Min, limit / norm.plus(NORM_EPS));
        GlobalNorm { norm: norm.id, finite: finite.id, factor: factor.id }
    })
}

/// A gradient times the factor of its global norm.
pub fn clipped(graph: &mut Graph, gradient: NodeId, global: &GlobalNorm) -> NodeId {
    Builder::with(graph, |b| {
        let gradient = b.var(gradient);
        (gradient * b.var(global.factor).like(gradient)).id
    })
}

/// The optimizers of a run, ready to be traced.
pub(super) struct Updater<'t> {
    own: Ready<'t>,
    fallback: Option<Ready<'t>>,
    /// Largest gradient norm; 0 for none.
    clip: f64,
}

impl<'t> Updater<'t> {
    pub(super) fn new(
        chosen: &'t Chosen,
        fallback: Option<&'t Fallback>,
        clip: f64,
    ) -> Result<Updater<'t>, Error> {
        let ready = |fallback: &'t Fallback| Ready::new(&fallback.chosen, fallback.rate);
        Ok(Updater { own: Ready::new(chosen, 1.0)?, fallback: fallback.map(ready).transpose()?, clip })
    }

    /// The banks of `parameters` as the optimizers want them.
    pub(super) fn banks(&self, parameters: Vec<Parameter>) -> Result<Banks, Error> {
        split(&self.own, self.fallback.as_ref(), parameters)
    }

    /// Clips, updates every bank, and writes what changed if loss and gradient are finite.
    /// Memories that outlive the trace are written likewise.
    pub(super) fn update(&self, tracer: &Tracer<'_>, banks: &Banks, gradients: Vec<NodeId>, loss: NodeId) {
        if loss == NodeId::POISON || gradients.contains(&NodeId::POISON) {
            return;
        }
        let global = tracer.graph(|graph| global_norm(graph, &gradients, loss, self.clip));
        for (bank, gradient) in banks.banks.iter().zip(gradients) {
            // A bank is the fallback's only where there is one.
            let by = self.fallback.as_ref().filter(|_| bank.place.by_fallback).unwrap_or(&self.own);
            tracer.enter_bank(&bank.name(), by.rate);
            let (parameter, clipped) = tracer.graph(|graph| {
                graph.push_scope(&format!("optimizer.{}", bank.name()));
                let parameter = graph.state(&bank.state(), bank.ty());
                let clipped = if self.clip > 0.0 { clipped(graph, gradient, &global) } else { gradient };
                (parameter, clipped)
            });
            let ids = GroupIds { role: bank.place.role, parameter: parameter.0, gradient: clipped.0 };
            let component = &by.chosen.component;
            let new = tracer.call(by.chosen, |builder| component.outcome(by.object.update(builder, ids)));
            let writes = tracer.take_writes();
            let what = format!("the bank that optimizer {} returns", component.name());
            tracer.graph(|graph| {
                let new = new.map_or(NodeId::POISON, |new| check(graph, NodeId(new), &bank.ty(), &what));
                for (state, value) in writes.into_iter().chain([(parameter, new)]) {
                    let guarded = Builder::with(graph, |b| {
                        let (old, value) = (b.var(state), b.var(value));
                        b.var(global.finite).like(old).select(value, old).id
                    });
                    graph.write(state, guarded);
                }
                graph.pop_scope();
            });
        }
        tracer.write_memories(Some(global.finite));
        tracer.graph(|graph| graph.output("grad_norm", global.norm));
    }
}

/// Banks of `parameters`, all of them taken by one optimizer.
pub fn banks_alone(optimizer: &Chosen, parameters: Vec<Parameter>) -> Result<Banks, Error> {
    Updater::new(optimizer, None, 0.0)?.banks(parameters)
}

/// One step of an optimizer alone, without clipping: the gradient of each bank is the input `gradient.BANK`, of the
/// bank's shape, and parameters and moments are States as in a run.
pub fn update_alone(registry: &Registry, optimizer: &Chosen, banks: &Banks) -> Result<Traced, Error> {
    let context = Context { registry, attention: None, vocab: 0 };
    let tracer = Tracer::new(&context, Some(banks), true);
    let (gradients, loss) = tracer.graph(|graph| {
        let gradient = |bank: &super::Bank| graph.input(&format!("gradient.{}", bank.name()), bank.ty());
        let gradients = banks.banks.iter().map(gradient).collect();
        (gradients, graph.constant(0.0, DType::F32, &[]))
    });
    Updater::new(optimizer, None, 0.0)?.update(&tracer, banks, gradients, loss);
    tracer.finish("the optimizer")
}

/// Exponent bits not all set: neither infinite nor NaN. On bits, because not every device keeps NaN.
pub(super) fn is_finite(x: Var<'_>) -> Var<'_> {
    let exponent = f64::from(0x7f80_0000_u32);
    let bits = x.bitcast(DType::U32);
    let mask = bits.constant(exponent);
    bits.binary(Op::And, mask).binary(Op::Lt, mask)
}
