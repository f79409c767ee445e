//! The plans of a session: a trained model that reads, learns and is asked, row by row, with what it has read before.
//!
//! R rows, W tokens that are read at once, V vocabulary. A row that a call is not for, and tokens beyond those that a row
//! has, leave no trace: States of other rows stay, and positions beyond are overwritten before they are seen.

use std::collections::BTreeMap;

use graph::{Builder, DType, NodeId, Op, Ty};

use super::banks::Banks;
use super::carry::{Lasting, ROWS};
use super::model::{Model, Text, hits};
use super::programs::Program;
use super::tracer::{Context, Traced, Tracer};
use crate::Error;
use crate::config::Resolved;
use crate::machine::states;
use crate::plugins::Registry;

/// Sizes of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionShape {
    pub rows: usize,
    /// Tokens of a context: how far back attention sees.
    pub capacity: usize,
    /// Tokens that the plan `read` takes at once; `step` takes one.
    pub width: usize,
    pub vocab: usize,
}

/// The graphs of a session.
pub struct SessionPrograms {
    /// `read` and `step` (token_losses and correct`[R, W]`, logits`[R, V]` of one position of each row) and `reset`; where
    /// memories learn from their losses, `learn` (a chunk: token_losses and correct) and `flush` too. Of a model that
    /// cannot read on (it wants a whole window, or attends inside a Scan) only `window`: `read` of whole contexts.
    pub list: Vec<Program>,
    /// Tokens of a chunk that `learn` takes; None where nothing learns from losses.
    pub chunk: Option<usize>,
}

/// Name of the input that says which position's logits `read` gives, i32`[R]`.
pub const POSITION: &str = "position";

impl SessionPrograms {
    pub fn trace(
        resolved: &Resolved,
        registry: &Registry,
        banks: &Banks,
        shape: SessionShape,
    ) -> Result<SessionPrograms, Error> {
        let context = Context { registry, attention: Some(&resolved.attention), vocab: shape.vocab };
        let maker = Maker { context: &context, model: Model::new(&resolved.model)?, banks, shape };
        match maker.reading_on() {
            Err(error @ Error::Trace { .. }) => {
                tracing::info!("model {} reads windows whole: {error}", maker.model.name());
                let tracer = Tracer::new(&context, Some(banks), false);
                let list = vec![maker.reads("window", tracer, shape.capacity)?];
                Ok(SessionPrograms { list, chunk: None })
            }
            other => other,
        }
    }
}

struct Maker<'t> {
    context: &'t Context<'t>,
    model: Model<'t>,
    banks: &'t Banks,
    shape: SessionShape,
}

impl Maker<'_> {
    /// The plans of a model that reads on from where it is.
    fn reading_on(&self) -> Result<SessionPrograms, Error> {
        let mut list =
            vec![self.reads("read", self.tracer(), self.shape.width)?, self.reads("step", self.tracer(), 1)?];
        let chunk = self.chunk()?;
        if let Some(tokens) = chunk {
            list.push(self.learns(tokens)?);
            list.push(self.flushes()?);
        }
        let reset = self.resets(&list);
        list.push(reset);
        Ok(SessionPrograms { list, chunk })
    }

    fn tracer(&self) -> Tracer<'_> {
        let SessionShape { rows, capacity, .. } = self.shape;
        Tracer::lasting(self.context, Some(self.banks), false, Lasting::Session { rows, capacity })
    }

    fn finish(&self, name: &'static str, tracer: Tracer<'_>) -> Result<Program, Error> {
        tracer.write_memories(None);
        let Traced { graph, .. } = tracer.finish(name)?;
        Ok(Program { name, graph })
    }

    /// Tokens of a chunk, if the training pass reads in chunks and leaves memories for later ones.
    fn chunk(&self) -> Result<Option<usize>, Error> {
        let plain = Tracer::new(self.context, Some(self.banks), false);
        self.model.losses(&plain, Text::input(&plain, 1, self.shape.capacity));
        let Some(tokens) = plain.chunk_tokens() else { return Ok(None) };
        let within = self.tracer();
        self.model.losses(&within, Text::input(&within, self.shape.rows, tokens));
        Ok(within.keeps_memories().then_some(tokens))
    }

    /// Reads tokens, `[R, tokens]`: the price of each target, whether it has the highest logit, and the logits of one
    /// position of each row.
    fn reads(&self, name: &'static str, tracer: Tracer<'_>, tokens: usize) -> Result<Program, Error> {
        let SessionShape { rows, vocab, .. } = self.shape;
        let text = Text::input(&tracer, rows, tokens);
        let position = tracer.graph(|graph| graph.input(POSITION, Ty::new(DType::I32, &[rows])));
        let logits = self.model.logits(&tracer, text.tokens);
        if logits != NodeId::POISON {
            tracer.graph(|graph| {
                let losses = graph.emit(Op::CrossEntropy, &[logits, text.targets], &[], &[]);
                graph.output("token_losses", losses);
                let hits = hits(graph, logits, text.targets);
                graph.output("correct", hits);
                let of_one = Builder::with(graph, |b| {
                    let logits = b.var(logits);
                    let dims = logits.dims();
                    let here = b.var(position).reshape(&[rows, 1, 1]).broadcast(&dims);
                    let is_here = b.iota(1, DType::I32, &dims).binary(Op::Eq, here);
                    is_here.select(logits, logits.constant(0.0)).sum(&[1]).reshape(&[rows, vocab]).id
                });
                graph.output("logits", of_one);
            });
        }
        self.finish(name, tracer)
    }

    /// Reads a chunk as in training, so that memories learn from it.
    fn learns(&self, tokens: usize) -> Result<Program, Error> {
        let tracer = self.tracer();
        let text = Text::input(&tracer, self.shape.rows, tokens);
        let (losses, _) = self.model.losses(&tracer, text);
        let hits = self.model.correct(&tracer, text);
        tracer.graph(|graph| {
            graph.output("token_losses", losses);
            graph.output("correct", hits);
        });
        self.finish("learn", tracer)
    }

    fn flushes(&self) -> Result<Program, Error> {
        let tracer = self.tracer();
        self.model.flush(&tracer);
        self.finish("flush", tracer)
    }

    /// Rows as they were before they read anything.
    fn resets(&self, list: &[Program]) -> Program {
        let mut graph = graph::Graph::default();
        let wanted = graph.input(ROWS, Ty::new(DType::I32, &[self.shape.rows]));
        let kept: BTreeMap<String, Ty> = states(list.iter().map(|program| &program.graph))
            .into_iter()
            .filter(|decl| decl.name.starts_with(super::carry::MEMORY))
            .map(|decl| (decl.name, decl.ty))
            .collect();
        for (name, ty) in kept {
            let state = graph.state(&name, ty);
            let cleared = super::carry::cleared(&mut graph, wanted, state);
            graph.write(state, cleared);
        }
        Program { name: "reset", graph }
    }
}
