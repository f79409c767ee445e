//! A model traced alone: its loss and gradients as functions of its parameters, without a run around it.

use graph::{Builder, DType, Ty};

use super::tracer::{Context, Traced, Tracer};
use crate::Error;
use crate::config::Chosen;
use crate::plugins::Registry;

/// What a model is traced for.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub vocab: usize,
    pub batch: usize,
    pub tokens: usize,
}

/// Inputs are `tokens`, `targets` and each parameter by its path; outputs the mean `loss`, `gradient.PATH` for each
/// parameter that it depends on, and `memory.PATH` for what a sequence read in chunks leaves behind.
pub fn loss_alone(
    registry: &Registry,
    model: &Chosen,
    attention: &Chosen,
    window: Window,
) -> Result<Traced, Error> {
    let context = Context { registry, attention: Some(attention), vocab: window.vocab };
    let tracer = Tracer::new(&context, None, true);
    let object = model.component.model(&model.options)?;
    let input = |name: &str| {
        tracer.graph(|graph| graph.input(name, Ty::new(DType::I32, &[window.batch, window.tokens])))
    };
    let (tokens, targets) = (input("tokens"), input("targets"));
    let ids =
        tracer.call(model, |builder| model.component.outcome(object.train(builder, tokens.0, targets.0)));
    if let Some(ids) = ids.filter(|ids| ids.token_losses != graph::NodeId::POISON.0) {
        let (tensors, memories) = (tracer.tensors(), tracer.memories());
        tracer.graph(|graph| {
            let count = (window.batch * window.tokens) as f64;
            let loss = Builder::with(graph, |b| {
                let losses = b.var(graph::NodeId(ids.token_losses));
                losses.sum(&[0, 1]).reshape(&[]).scale(1.0 / count).id
            });
            graph.output("loss", loss);
            let wrt: Vec<_> = tensors.values().copied().collect();
            for (path, gradient) in tensors.keys().zip(graph::grad(graph, loss, &wrt)) {
                if let Some(gradient) = gradient {
                    graph.output(&format!("gradient.{path}"), gradient);
                }
            }
            memories.iter().for_each(|(path, value)| graph.output(&format!("memory.{path}"), *value));
        });
    }
    tracer.finish("the model")
}
