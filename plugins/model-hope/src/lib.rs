//! HOPE (Behrouz et al. 2025, "Nested Learning"): blocks of attention and a continuum memory system, a chain of levels
//! that learn at their own pace while the model reads.
//!
//! B batch, T tokens, C tokens of a chunk, D width, V vocabulary. A sequence is read in chunks. After each, the gradient
//! of its loss with respect to the outputs of all levels is their teach signal (eq. 71); a level whose period ends is
//! written from what it has read since its last write. Each sequence owns its memories.

use nested::cms::{self, Chain, Metric, Rules, Surprise};
use nested::teach::Lesson;
use plugin_api::prelude::*;

mod options;

pub use options::Hope;
use options::TaughtBy;

/// What one chunk was read as: hidden states `[B, C, D]`, and the output of each block.
struct Pass<'c> {
    hidden: Tensor<'c>,
    blocks: Vec<Tensor<'c>>,
}

impl Hope {
    fn table<'c>(&self, cx: &'c Cx<'c>) -> Tensor<'c> {
        cx.embedding("embedding", cx.vocab(), self.d_model)
    }

    fn chains<'r, 'c>(&self, cx: &'c Cx<'c>, rules: &'r Rules, tokens: usize) -> Vec<Chain<'r, 'c>> {
        (0..self.layers).map(|_| Chain::new(cx, rules, tokens)).collect()
    }

    /// Reads tokens `[B, C]` with the memories in force.
    fn read<'c>(&self, cx: &'c Cx<'c>, tokens_bc: Tensor<'c>, chains: &mut [Chain<'_, 'c>]) -> Pass<'c> {
        let mut x = self.table(cx).rows(tokens_bc);
        let positions = self.rope.then(|| cx.positions(x));
        let mut blocks = Vec::new();
        for (block, chain) in chains.iter_mut().enumerate() {
            x = cx.scope(&scope(block), || {
                let mixed = cx.scope("attention", || cx.attention(x, positions));
                chain.read(cx.layer_norm("norm", x + mixed, true))
            });
            blocks.push(x);
        }
        Pass { hidden: cx.layer_norm("norm", x, true), blocks }
    }

    /// Teach signals of all levels of each block for the chunk, each sequence for itself.
    fn teach<'c>(
        &self,
        cx: &'c Cx<'c>,
        lesson: Lesson<'c>,
        pass: &Pass<'c>,
        chains: &[Chain<'_, 'c>],
    ) -> Vec<Vec<Tensor<'c>>> {
        let signals = |of: &[Tensor<'c>]| self.lessons().signals(cx, lesson, self.schedule().now(cx), of);
        let levels = self.periods.len();
        match self.teach {
            TaughtBy::Task => {
                let outputs: Vec<Tensor<'c>> =
                    chains.iter().flat_map(|chain| chain.readings()).map(|reading| reading.output).collect();
                signals(&outputs).chunks(levels.max(1)).map(<[_]>::to_vec).collect()
            }
            TaughtBy::Block => {
                signals(&pass.blocks).into_iter().map(|signal| vec![signal * 2.0; levels]).collect()
            }
        }
    }

    /// 1 for tokens that have a target, else 0.
    fn counted<'c>(&self, cx: &'c Cx<'c>, targets: Tensor<'c>) -> Tensor<'c> {
        let known = targets.less(targets.number(cx.vocab() as f64)).cast(DType::F32);
        known * (1.0 - targets.less(targets.number(0.0)).cast(DType::F32))
    }

    /// What the gate asks for beside the teach signal.
    fn surprise<'c>(&self, lesson: Lesson<'c>, logits: Tensor<'c>) -> Surprise<'c> {
        let entropy = || {
            let mean = (logits.softmax() * logits).sum(&[2]).reshape(&lesson.losses_bc.dims());
            logits.logsumexp() - mean
        };
        Surprise {
            losses: Some(lesson.losses_bc),
            entropy: (self.gate_metric == Metric::Entropy).then(entropy),
            counted: lesson.active_bc,
        }
    }

    /// Figures of each level over all blocks, for the metrics of a step.
    fn report<'c>(&self, cx: &'c Cx<'c>, chains: &[Chain<'_, 'c>]) {
        for level in 0..self.periods.len() {
            let name = |what: &str| format!("cms.{level}.{what}");
            let stats: Vec<_> = chains.iter().map(|chain| chain.stats()[level]).collect();
            let number = |value: f64| cx.constant(value, DType::F32, &[]);
            let share = 1.0 / stats.len().max(1) as f64;
            let writes = stats.iter().filter_map(|stats| stats.writes).reduce(|a, b| a + b);
            cx.report(&name("writes"), writes.map_or(number(0.0), |writes| writes * share));
            let first = stats.first().copied().unwrap_or_default();
            cx.report(&name("pending"), first.waiting.unwrap_or_else(|| number(first.pending as f64)));
            let teach = stats.iter().filter_map(|stats| stats.teach);
            if let Some(teach) = teach.map(|(sum, chunks)| sum * (1.0 / chunks as f64)).reduce(|a, b| a + b) {
                cx.report(&name("teach_norm"), teach * share);
            }
            let moved = stats.iter().filter_map(|stats| stats.moved);
            if let Some((beyond, start)) = moved.reduce(|(a, b), (c, d)| (a + c, b + d)) {
                cx.report_growth(&name("state"), (beyond / start).stop_grad().sqrt());
            }
        }
    }
}

impl Model for Hope {
    /// Reads without writing: what a memory would learn needs targets.
    fn forward<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>) -> Output<'c> {
        let rules = self.rules();
        let mut chains = self.chains(cx, &rules, tokens_bt.dim(1));
        Output { hidden: self.read(cx, tokens_bt, &mut chains).hidden, head: self.table(cx) }
    }

    fn train<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>, targets_bt: Tensor<'c>) -> Loss<'c> {
        let (rules, tokens) = (self.rules(), tokens_bt.dim(1));
        let mut chains = self.chains(cx, &rules, tokens);
        let head = self.table(cx);
        let mut read = 0;
        let joined = cx.chunks(&[tokens_bt, targets_bt], self.online_chunk, |chunk| {
            let (tokens_bc, targets) = (chunk[0], chunk[1]);
            let pass = self.read(cx, tokens_bc, &mut chains);
            let losses = cx.linear_cross_entropy(pass.hidden, head, targets);
            let logits = pass.hidden.dot_last(head);
            read += tokens_bc.dim(1);
            if self.writes {
                let lesson = Lesson { losses_bc: losses, active_bc: Some(self.counted(cx, targets)) };
                let teach = self.teach(cx, lesson, &pass, &chains);
                let known = self.surprise(lesson, logits);
                for (block, (chain, teach)) in chains.iter_mut().zip(&teach).enumerate() {
                    cx.scope(&scope(block), || {
                        chain.observe(teach, known);
                        if read == tokens {
                            chain.finish(self.d_model);
                        }
                    });
                }
            }
            if cx.training() {
                return vec![losses];
            }
            let best = logits.argmax(2).reshape(&targets.dims());
            vec![losses, best.equals(targets).cast(DType::F32)]
        });
        if cx.training() {
            self.report(cx, &chains);
        } else if let Some(correct) = joined.get(1) {
            cx.correct(*correct);
        }
        Loss { token_losses: joined[0], auxiliary: None }
    }

    fn flush<'c>(&self, cx: &'c Cx<'c>) {
        let rules = self.rules();
        (0..self.layers).for_each(|block| cx.scope(&scope(block), || cms::flush(cx, &rules, self.d_model)));
    }

    fn validate(&self, dims: &Dims) -> Vec<Fault> {
        self.faults(dims)
    }
}

fn scope(block: usize) -> String {
    format!("layers.{block}")
}

component! { model "hope" => Hope, "Attention and a chain of memories that learn while they read." }
export_plugin!();
