//! The plans of a training run, each as a graph: step (or accumulate and apply), eval.
//!
//! B batch, T tokens, V vocabulary. A step is: per-token losses, their mean, its gradient per bank, and the
//! update of the parameters (`update`).

use std::collections::BTreeMap;

use graph::{Builder, DType, Graph, NodeId, Op, Ty};

use super::banks::Banks;
use super::carry::Lasting;
use super::model::{Model, Text};
use super::tracer::{Context, Scalar, Traced, Tracer};
use super::update::Updater;
use crate::Error;
use crate::config::Resolved;
use crate::plugins::Registry;

/// A named graph.
pub struct Program {
    pub name: &'static str,
    pub graph: Graph,
}

/// All graphs of a run.
pub struct Programs {
    pub list: Vec<Program>,
    pub banks: Banks,
    /// Scalars by input name.
    pub scalars: BTreeMap<String, Scalar>,
    /// Metrics that components report, by output name.
    pub reports: Vec<String>,
}

/// Sizes of a run.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub batch: usize,
    pub window: usize,
    pub vocab: usize,
    /// Micro-batches of a step.
    pub accumulate: usize,
    /// Largest gradient norm; 0 for none.
    pub clip: f64,
    /// Windows of a text that a row reads one after another, its memories lasting; 1 where each window is a text.
    pub stream: usize,
}

struct Maker<'t> {
    context: &'t Context<'t>,
    model: Model<'t>,
    updater: Updater<'t>,
    shape: Shape,
}

/// Loss of a micro-batch and its gradient, one tensor per bank and of its shape.
struct Backward {
    loss: NodeId,
    gradients: Vec<NodeId>,
}

impl Programs {
    /// Traces every plan. Fails on the first trace with errors, and when a parameter has no gradient path.
    pub fn trace(resolved: &Resolved, registry: &Registry, shape: Shape) -> Result<Programs, Error> {
        let context = Context { registry, attention: Some(&resolved.attention), vocab: shape.vocab };
        let maker = Maker::new(&context, resolved, shape)?;
        let banks = maker.discover()?;
        let (mut list, mut scalars, mut reports) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut add = |name: &'static str, traced: Traced| {
            scalars.extend(traced.scalars);
            list.push(Program { name, graph: traced.graph });
        };
        if shape.accumulate == 1 {
            add("step", maker.step(&banks, &mut reports)?);
        } else {
            add("accumulate", maker.accumulate(&banks, &mut reports)?);
            add("apply", maker.apply(&banks, &mut reports)?);
        }
        add("eval", maker.eval(&banks)?);
        Ok(Programs { list, banks, scalars, reports })
    }

    /// Only which parameters there are, and how they lie in banks.
    pub fn banks(resolved: &Resolved, registry: &Registry, shape: Shape) -> Result<Banks, Error> {
        let context = Context { registry, attention: Some(&resolved.attention), vocab: shape.vocab };
        Maker::new(&context, resolved, shape)?.discover()
    }

    pub fn find(&self, name: &str) -> Option<&Program> {
        self.list.iter().find(|program| program.name == name)
    }
}

impl<'t> Maker<'t> {
    fn new(context: &'t Context<'t>, resolved: &'t Resolved, shape: Shape) -> Result<Maker<'t>, Error> {
        Ok(Maker {
            context,
            model: Model::new(&resolved.model)?,
            updater: Updater::new(&resolved.optimizer, resolved.fallback.as_ref(), shape.clip)?,
            shape,
        })
    }

    /// A first trace that only asks which parameters there are.
    fn discover(&self) -> Result<Banks, Error> {
        let tracer = Tracer::new(self.context, None, true);
        self.model.losses(&tracer, self.text(&tracer));
        let parameters = tracer.finish("the model")?.parameters;
        if parameters.is_empty() {
            return Err(Error::said(format!("model {} has no parameters to train", self.model.name())));
        }
        self.updater.banks(parameters)
    }

    /// A trace over the banks whose memories last as long as the run's texts.
    fn tracer<'b>(&'b self, banks: &'b Banks, training: bool) -> Tracer<'b> {
        let of = if training { "train" } else { "eval" };
        let rows = self.shape.batch;
        let lasting = if self.shape.stream > 1 { Lasting::Stream { rows, of } } else { Lasting::Trace };
        Tracer::lasting(self.context, Some(banks), training, lasting)
    }

    fn text(&self, tracer: &Tracer<'_>) -> Text {
        Text::input(tracer, self.shape.batch, self.shape.window)
    }

    fn backward(&self, tracer: &Tracer<'_>, banks: &Banks) -> Result<Backward, Error> {
        let (token_losses, auxiliary) = self.model.losses(tracer, self.text(tracer));
        let tensors = tracer.tensors();
        tracer.graph(|graph| {
            if token_losses == NodeId::POISON || auxiliary == Some(NodeId::POISON) {
                return Ok(Backward { loss: NodeId::POISON, gradients: banks.banks.iter().map(|_| NodeId::POISON).collect() });
            }
            let count = (self.shape.batch * self.shape.window) as f64;
            let loss = Builder::with(graph, |b| {
                let mean = b.var(token_losses).sum(&[0, 1]).reshape(&[]).scale(1.0 / count);
                auxiliary.map_or(mean, |auxiliary| mean + b.var(auxiliary)).id
            });
            let paths: Vec<&String> = banks.parameters().map(|parameter| &parameter.path).collect();
            let wrt: Vec<NodeId> = paths.iter().filter_map(|path| tensors.get(*path).copied()).collect();
            let cotangents = graph::grad(graph, loss, &wrt);
            let lost: Vec<&str> =
                paths.iter().zip(&cotangents).filter(|(_, ct)| ct.is_none()).map(|(path, _)| path.as_str()).collect();
            if !lost.is_empty() {
                return Err(Error::said(format!(
                    "no gradient reaches {} of the model's parameters: {}; use them in the loss or do not declare them",
                    lost.len(),
                    lost.join(", ")
                )));
            }
            let parts: BTreeMap<&str, NodeId> = paths
                .iter()
                .zip(banks.banks.iter().flat_map(|bank| bank.parameters.iter().map(move |each| (bank, each))))
                .zip(cotangents.into_iter().flatten())
                .map(|((path, (bank, parameter)), ct)| {
                    let part: Vec<i64> = bank.part(parameter.elements()).iter().map(|dim| *dim as i64).collect();
                    (path.as_str(), graph.emit(Op::Reshape, &[ct], &part, &[]))
                })
                .collect();
            let gradients = banks
                .banks
                .iter()
                .map(|bank| {
                    let parts: Vec<NodeId> = bank.parameters.iter().map(|parameter| parts[parameter.path.as_str()]).collect();
                    graph.emit(Op::Concat, &parts, &[0], &[])
                })
                .collect();
            Ok(Backward { loss, gradients })
        })
    }

    fn step(&self, banks: &Banks, reports: &mut Vec<String>) -> Result<Traced, Error> {
        let tracer = self.tracer(banks, true);
        let Backward { loss, gradients } = self.backward(&tracer, banks)?;
        self.updater.update(&tracer, banks, gradients, loss);
        tracer.graph(|graph| graph.output("loss", loss));
        self.outputs(&tracer, reports);
        tracer.finish("step")
    }

    /// Adds a micro-batch's gradient and loss to the accumulators.
    fn accumulate(&self, banks: &Banks, reports: &mut Vec<String>) -> Result<Traced, Error> {
        let tracer = self.tracer(banks, true);
        let Backward { loss, gradients } = self.backward(&tracer, banks)?;
        tracer.graph(|graph| {
            for (bank, gradient) in banks.banks.iter().zip(gradients) {
                let state = accumulator(graph, bank);
                let sum = graph.emit(Op::Add, &[state, gradient], &[], &[]);
                graph.write(state, sum);
            }
            let state = accumulated_loss(graph);
            let sum = graph.emit(Op::Add, &[state, loss], &[], &[]);
            graph.write(state, sum);
            graph.output("loss", loss);
        });
        self.outputs(&tracer, reports);
        tracer.finish("accumulate")
    }

    /// Updates from the accumulated gradient and clears it.
    fn apply(&self, banks: &Banks, reports: &mut Vec<String>) -> Result<Traced, Error> {
        let tracer = Tracer::new(self.context, Some(banks), true);
        let share = 1.0 / self.shape.accumulate as f64;
        let gradients = tracer.graph(|graph| {
            banks
                .banks
                .iter()
                .map(|bank| {
                    let state = accumulator(graph, bank);
                    let zeros = graph.constant(0.0, DType::F32, &bank.ty().dims);
                    graph.write(state, zeros);
                    Builder::with(graph, |b| b.var(state).scale(share).id)
                })
                .collect()
        });
        // One bad micro-batch leaves its mark in the sum, whatever its gradient was.
        let loss = tracer.graph(|graph| {
            let loss = accumulated_loss(graph);
            let zero = graph.constant(0.0, DType::F32, &[]);
            graph.write(loss, zero);
            loss
        });
        self.updater.update(&tracer, banks, gradients, loss);
        self.outputs(&tracer, reports);
        tracer.finish("apply")
    }

    fn outputs(&self, tracer: &Tracer<'_>, reports: &mut Vec<String>) {
        for (name, value) in tracer.take_reports() {
            tracer.graph(|graph| {
                let number = graph.emit(Op::Reshape, &[value], &[], &[]);
                graph.output(&name, number);
            });
            if !reports.contains(&name) {
                reports.push(name);
            }
        }
    }

    /// Per-token losses, and whether the target has the highest logit.
    fn eval(&self, banks: &Banks) -> Result<Traced, Error> {
        let tracer = self.tracer(banks, false);
        let text = self.text(&tracer);
        let (token_losses, _) = self.model.losses(&tracer, text);
        let correct = self.model.correct(&tracer, text);
        tracer.graph(|graph| {
            graph.output("token_losses", token_losses);
            graph.output("correct", correct);
        });
        tracer.write_memories(None);
        tracer.finish("eval")
    }
}

fn accumulator(graph: &mut Graph, bank: &super::Bank) -> NodeId {
    graph.state(&format!("accumulated.{}", bank.name()), bank.ty())
}

fn accumulated_loss(graph: &mut Graph) -> NodeId {
    graph.state("accumulated.loss", Ty::scalar(DType::F32))
}
