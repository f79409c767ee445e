//! The model of a run in a trace: its losses and its logits, checked.
//!
//! B batch, T tokens, D width, V vocabulary.

use abi_stable::std_types::RBox;
use graph::{Builder, DType, Graph, NodeId, Op, Ty};
use plugin_api::abi::{LossIds, ModelObject_TO};

use super::tracer::{Tracer, check, optional};
use crate::Error;
use crate::config::Chosen;

pub(super) struct Model<'t> {
    object: ModelObject_TO<'static, RBox<()>>,
    chosen: &'t Chosen,
}

/// Token ids and the ids that follow them, i32`[B, T]`.
#[derive(Clone, Copy)]
pub(super) struct Text {
    pub tokens: NodeId,
    pub targets: NodeId,
}

impl Text {
    /// The inputs `tokens` and `targets` of a trace.
    pub fn input(tracer: &Tracer<'_>, batch: usize, window: usize) -> Text {
        let input =
            |name: &str| tracer.graph(|graph| graph.input(name, Ty::new(DType::I32, &[batch, window])));
        Text { tokens: input("tokens"), targets: input("targets") }
    }
}

impl<'t> Model<'t> {
    pub fn new(chosen: &'t Chosen) -> Result<Model<'t>, Error> {
        Ok(Model { object: chosen.component.model(&chosen.options)?, chosen })
    }

    pub fn name(&self) -> String {
        self.chosen.component.name()
    }

    /// token_losses`[B, T]` and the auxiliary loss.
    pub fn losses(&self, tracer: &Tracer<'_>, text: Text) -> (NodeId, Option<NodeId>) {
        let component = &self.chosen.component;
        let ids: Option<LossIds> = tracer.call(self.chosen, |builder| {
            component.outcome(self.object.train(builder, text.tokens.0, text.targets.0))
        });
        let Some(ids) = ids else { return (NodeId::POISON, None) };
        let name = component.name();
        tracer.graph(|graph| {
            let wanted = Ty::new(DType::F32, graph.dims(text.tokens));
            let losses = NodeId(ids.token_losses);
            let losses = check(graph, losses, &wanted, &format!("the token losses of model {name}"));
            let auxiliary = optional(ids.auxiliary).map(|id| {
                check(graph, id, &Ty::scalar(DType::F32), &format!("the auxiliary loss of model {name}"))
            });
            (losses, auxiliary)
        })
    }

    /// 1 where the target has the highest logit, else 0, f32`[B, T]`: as the pass that gave the losses says, else of the
    /// forward pass.
    pub fn correct(&self, tracer: &Tracer<'_>, text: Text) -> NodeId {
        if let Some(correct) = tracer.take_correct() {
            let what = format!("what model {} calls correct", self.name());
            return tracer.graph(|graph| {
                let wanted = Ty::new(DType::F32, graph.dims(text.tokens));
                check(graph, correct, &wanted, &what)
            });
        }
        let logits = self.logits(tracer, text.tokens);
        if logits == NodeId::POISON {
            return logits;
        }
        tracer.graph(|graph| hits(graph, logits, text.targets))
    }

    /// hidden head' of the forward pass, `[B, T, V]`.
    pub fn logits(&self, tracer: &Tracer<'_>, tokens: NodeId) -> NodeId {
        let component = &self.chosen.component;
        let ids =
            tracer.call(self.chosen, |builder| component.outcome(self.object.forward(builder, tokens.0)));
        let Some(ids) = ids else { return NodeId::POISON };
        tracer.graph(|graph| {
            let (hidden, head) = (NodeId(ids.hidden), NodeId(ids.head));
            let known = |id: NodeId| id != NodeId::POISON && id.index() < graph.nodes.len();
            if !known(hidden) || !known(head) || graph.ty(hidden).rank() != 3 || graph.ty(head).rank() != 2 {
                let message =
                    format!("model {} returned no hidden[B, T, D] and head[V, D]", component.name());
                return graph.fail(None, message, "see Output in plugin-api");
            }
            graph.emit(Op::Dot, &[hidden, head], &[0, 1, 2, 1], &[1.0])
        })
    }

    /// Writes what memories have pending.
    pub fn flush(&self, tracer: &Tracer<'_>) {
        let component = &self.chosen.component;
        tracer.call(self.chosen, |builder| component.outcome(self.object.flush(builder)));
    }
}

/// 1 where the target has the highest logit, else 0, f32`[B, T]`: logits`[B, T, V]`, targets`[B, T]`.
pub(super) fn hits(graph: &mut Graph, logits: NodeId, targets: NodeId) -> NodeId {
    Builder::with(graph, |b| {
        let logits = b.var(logits);
        let (dims, target) = (logits.dims(), b.var(targets));
        let chosen = target.reshape(&[dims[0], dims[1], 1]).broadcast(&dims);
        let is_target = b.iota(2, DType::I32, &dims).binary(Op::Eq, chosen);
        let of_target = is_target.select(logits, logits.constant(0.0)).sum(&[2]);
        let beaten = of_target.binary(Op::Lt, logits.max(&[2]));
        beaten.select(of_target.constant(0.0), of_target.constant(1.0)).reshape(&dims[..2]).id
    })
}
