//! HOPE (Behrouz et al. 2025, "Nested Learning"): blocks of attention and a continuum memory system, a chain of levels
//! that learn at their own pace while the model reads.
//!
//! B batch, T tokens, C tokens of a chunk, D width, V vocabulary. A sequence is read in chunks. After each, the gradient
//! of its loss with respect to the outputs of all levels is their teach signal (eq. 71); a level whose period ends is
//! written from what it has read since its last write. Each sequence owns its memories.

use nested::cms::{Level, Reading};
use nested::teach::{Lesson, Schedule, Teach, TeachNorm};
use plugin_api::prelude::*;

options! {
    /// What the outer gradient sees of a write.
    #[derive(Default)]
    pub enum WriteGrad {
        /// Nothing: weights in use count as the initial ones.
        None,
        /// The last write of each level.
        Chunk,
        /// All writes.
        #[default]
        Full,
    }
}

options! {
    /// Attention, then a chain of memories that learn while they read.
    pub struct Hope {
        /// Width D.
        #[schemars(range(min = 1))]
        pub d_model: usize = 128,
        /// Blocks.
        #[schemars(range(min = 1))]
        pub layers: usize = 2,
        /// Hidden width of a level; 0 means 4 D.
        pub d_hidden: usize = 0,
        /// Tokens between two writes of each level, from the fastest to the slowest.
        pub periods: Vec<usize> = vec![32, 128],
        /// Tokens that are read before memories may be written; divides every period.
        #[schemars(range(min = 1))]
        pub online_chunk: usize = 32,
        /// Step of a write.
        #[schemars(range(min = 0.0))]
        pub memory_lr: f64 = 0.01,
        /// Factor on the teach signal.
        pub teach_scale: f64 = 1.0,
        pub teach_norm: TeachNorm = TeachNorm::Token,
        /// Steps in which the teach signal grows to its scale; 0 starts with all of it.
        pub teach_warmup: usize = 0,
        /// Last step before the teach signal falls; of no effect while `teach_decay_steps` is 0.
        pub teach_decay_start: usize = 0,
        /// Steps in which the teach signal falls to 0, after which memories learn no more, in evaluation either; 0
        /// keeps it.
        pub teach_decay_steps: usize = 0,
        /// Greatest length of a token's teach signal, after its scale; 0 for none.
        #[schemars(range(min = 0.0))]
        pub teach_clip: f64 = 0.0,
        /// Tokens whose teach signal is shorter than this are left out of a write; 0 takes all.
        #[schemars(range(min = 0.0))]
        pub gate: f64 = 0.0,
        pub write_grad: WriteGrad = WriteGrad::Full,
        /// Whether memories are written at all.
        pub writes: bool = true,
        /// Rotary positions; the paper has none.
        pub rope: bool = true,
    }
}

/// What one chunk left: hidden states, and for each level its input and output.
struct Pass<'c> {
    hidden: Tensor<'c>,
    levels: Vec<(Level<'c>, Tensor<'c>, Tensor<'c>)>,
}

impl Hope {
    fn hidden_width(&self) -> usize {
        if self.d_hidden == 0 { 4 * self.d_model } else { self.d_hidden }
    }

    fn table<'c>(&self, cx: &'c Cx<'c>) -> Tensor<'c> {
        cx.embedding("embedding", cx.vocab(), self.d_model)
    }

    /// Reads tokens `[B, C]` with the memories in force.
    fn read<'c>(&self, cx: &'c Cx<'c>, tokens_bc: Tensor<'c>) -> Pass<'c> {
        let mut x = self.table(cx).rows(tokens_bc);
        let positions = self.rope.then(|| cx.positions(x));
        let mut levels = Vec::new();
        for block in 0..self.layers {
            x = cx.scope(&format!("layers.{block}"), || {
                let mixed = cx.scope("attention", || cx.attention(x, positions));
                let mut x = cx.layer_norm("norm", x + mixed, true);
                for level in 0..self.periods.len() {
                    x = cx.scope(&format!("cms.{level}"), || {
                        let memory = Level::new(cx, self.d_model, self.hidden_width());
                        let output = memory.read(x, self.write_grad != WriteGrad::None);
                        levels.push((memory, x, output));
                        output
                    });
                }
                x
            });
        }
        Pass { hidden: cx.layer_norm("norm", x, true), levels }
    }

    /// Cotangents of all levels' outputs for the chunk's loss, each sequence for itself.
    fn teach<'c>(&self, cx: &'c Cx<'c>, losses_bc: Tensor<'c>, pass: &Pass<'c>) -> Vec<Tensor<'c>> {
        let outputs: Vec<Tensor<'c>> = pass.levels.iter().map(|(_, _, output)| *output).collect();
        let schedule = Schedule {
            warmup: self.teach_warmup,
            decay_start: self.teach_decay_start,
            decay_steps: self.teach_decay_steps,
        };
        let teach =
            Teach { norm: self.teach_norm, scale: self.teach_scale, clip: self.teach_clip, gate: self.gate };
        teach.signals(cx, Lesson { losses_bc, active_bc: None }, schedule.now(cx), &outputs)
    }

    /// Takes in what each level was taught, and writes those whose period ends. `pending` has the readings of each
    /// level of each block since its last write, `moved` the squared lengths of steps and weights by level.
    fn observe<'c>(
        &self,
        cx: &'c Cx<'c>,
        pass: &Pass<'c>,
        teach: &[Tensor<'c>],
        pending: &mut [Vec<Reading<'c>>],
        moved: &mut Vec<(usize, Tensor<'c>, Tensor<'c>)>,
    ) {
        for (index, ((memory, input, _), teach)) in pass.levels.iter().zip(teach).enumerate() {
            let (block, level) = (index / self.periods.len(), index % self.periods.len());
            pending[index].push(Reading { input: *input, teach: *teach });
            let tokens: usize = pending[index].iter().map(|reading| reading.input.dim(1)).sum();
            if tokens < self.periods[level] {
                continue;
            }
            let readings = std::mem::take(&mut pending[index]);
            cx.scope(&format!("layers.{block}"), || {
                cx.scope(&format!("cms.{level}"), || {
                    let only_this = self.write_grad == WriteGrad::Chunk;
                    let (step, norm) = memory.write(cx, &readings, self.memory_lr, only_this);
                    moved.push((level, step, norm));
                })
            });
        }
    }

    /// Writes of each level, and how long a step was beside the weights, for the metrics of a step.
    fn report<'c>(&self, cx: &'c Cx<'c>, moved: &[(usize, Tensor<'c>, Tensor<'c>)]) {
        for level in 0..self.periods.len() {
            let own: Vec<_> = moved.iter().filter(|(of, _, _)| *of == level).collect();
            cx.report(&format!("cms.{level}.writes"), cx.constant(own.len() as f64, DType::F32, &[]));
            let Some((_, step, norm)) = own.last() else { continue };
            cx.report(&format!("cms.{level}.step"), (*step / *norm).stop_grad().sqrt());
        }
    }
}

impl Model for Hope {
    /// Reads without writing: what a memory would learn needs targets.
    fn forward<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>) -> Output<'c> {
        Output { hidden: self.read(cx, tokens_bt).hidden, head: self.table(cx) }
    }

    fn train<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>, targets_bt: Tensor<'c>) -> Loss<'c> {
        let mut pending = vec![Vec::new(); self.layers * self.periods.len()];
        let mut moved = Vec::new();
        let head = self.table(cx);
        let joined = cx.chunks(&[tokens_bt, targets_bt], self.online_chunk, |chunk| {
            let (tokens_bc, targets_bc) = (chunk[0], chunk[1]);
            let pass = self.read(cx, tokens_bc);
            let losses_bc = cx.linear_cross_entropy(pass.hidden, head, targets_bc);
            if self.writes {
                let teach = self.teach(cx, losses_bc, &pass);
                self.observe(cx, &pass, &teach, &mut pending, &mut moved);
            }
            if cx.training() {
                return vec![losses_bc];
            }
            let best = pass.hidden.dot_last(head).argmax(2).reshape(&targets_bc.dims());
            vec![losses_bc, best.equals(targets_bc).cast(DType::F32)]
        });
        if cx.training() {
            self.report(cx, &moved);
        } else if let Some(correct) = joined.get(1) {
            cx.correct(*correct);
        }
        Loss { token_losses: joined[0], auxiliary: None }
    }

    fn validate(&self, _dims: &Dims) -> Vec<Fault> {
        let divides = |period: &&usize| **period == 0 || !period.is_multiple_of(self.online_chunk);
        let fault = |period: &usize| {
            let message = format!("{period} is no multiple of online_chunk = {}", self.online_chunk);
            ("periods".to_string(), message)
        };
        let order = self.periods.windows(2).any(|pair| pair[0] > pair[1]);
        let order =
            order.then(|| ("periods".to_string(), "stand from the fastest to the slowest".to_string()));
        self.periods.iter().filter(divides).map(fault).chain(order).collect()
    }
}

component! { model "hope" => Hope, "Attention and a chain of memories that learn while they read." }
export_plugin!();
