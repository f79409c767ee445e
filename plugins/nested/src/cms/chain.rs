//! The levels of a block: read one after another, taught after each chunk, written when their periods end.
//!
//! Everything here happens in the scope of the block; level l has the scope `cms.l`.

use plugin_api::prelude::*;

use super::buffer::{Buffer, Taken};
use super::gate::{GateOf, Surprise, lengths};
use super::level::{Level, Step, View};
use super::{Form, Rules, WriteGrad, carry};

/// One chain while a model reads a sequence.
pub struct Chain<'r, 'c> {
    cx: &'c Cx<'c>,
    rules: &'r Rules,
    /// Tokens of the whole trace, T.
    tokens: usize,
    /// What each level has read in this chunk.
    readings: Vec<Reading<'c>>,
    buffers: Vec<Buffer<'c>>,
    stats: Vec<Stats<'c>>,
}

/// What a level has read in a chunk: `input` and `output` are `[B, C, D]`.
#[derive(Clone, Copy)]
pub struct Reading<'c> {
    level: Level<'c>,
    pub input: Tensor<'c>,
    pub output: Tensor<'c>,
}

/// Figures of one level over a trace, for metrics: f32[] each.
#[derive(Clone, Copy, Default)]
pub struct Stats<'c> {
    /// Writes of a sequence, on average.
    pub writes: Option<Tensor<'c>>,
    /// Length of a token's teach signal, summed over chunks, and the number of chunks.
    pub teach: Option<(Tensor<'c>, usize)>,
    /// |W - W0|^2 and |W0|^2 at the end.
    pub moved: Option<(Tensor<'c>, Tensor<'c>)>,
    /// Tokens of the trace that wait for a write at its end.
    pub pending: usize,
    /// In a stream: how many wait then, those of earlier traces among them, the mean over rows. None where none can.
    pub waiting: Option<Tensor<'c>>,
}

impl<'r, 'c> Chain<'r, 'c> {
    /// For a sequence of `tokens`.
    pub fn new(cx: &'c Cx<'c>, rules: &'r Rules, tokens: usize) -> Chain<'r, 'c> {
        let levels = rules.periods.len();
        let buffers = (0..levels).map(|_| Buffer::default()).collect();
        Chain { cx, rules, tokens, readings: Vec::new(), buffers, stats: vec![Stats::default(); levels] }
    }

    /// The output of the last level for `x[B, C, D]`, with the weights in force.
    pub fn read(&mut self, x: Tensor<'c>) -> Tensor<'c> {
        let view = if self.rules.write_grad == WriteGrad::None { View::Held } else { View::Through };
        self.readings.clear();
        (0..self.rules.periods.len()).fold(x, |input, index| {
            self.cx.scope(&scope(index), || {
                let level = self.level(index, input.dim(-1));
                let output = level.read(input, view);
                self.readings.push(Reading { level, input, output });
                output
            })
        })
    }

    /// What the levels have read in this chunk, from the fastest to the slowest.
    pub fn readings(&self) -> &[Reading<'c>] {
        &self.readings
    }

    /// Takes in the teach signal of each level for the chunk read last, `[B, C, D]`, and writes those whose period ends.
    pub fn observe(&mut self, teach: &[Tensor<'c>], known: Surprise<'c>) {
        for (index, (reading, teach)) in std::mem::take(&mut self.readings).into_iter().zip(teach).enumerate()
        {
            self.cx.scope(&scope(index), || {
                self.teach(index, reading, *teach, known);
                if self.buffers[index].tokens() >= self.rules.periods[index] {
                    self.write(index, reading.level);
                }
            });
        }
    }

    /// Ends the sequence: what no period has written yet is written now, or in a stream is kept for later. To be called
    /// before the last chunk ends.
    pub fn finish(&mut self, width: usize) {
        for index in 0..self.rules.periods.len() {
            self.cx.scope(&scope(index), || {
                let level = self.level(index, width);
                self.stats[index].moved = level.moved();
                self.stats[index].pending = self.buffers[index].tokens();
                match self.cx.stream() {
                    Some(read) => {
                        let rest = self.buffers[index].take(self.cx);
                        let read = (read, self.tokens);
                        let carried = carry::carry(self.cx, self.rules, index, &level, read, rest);
                        self.stats[index].waiting = carried.as_ref().map(|carried| carried.waiting);
                        self.tally(index, carried.map(|carried| carried.share));
                    }
                    None => self.write(index, level),
                }
            });
        }
    }

    /// Tokens of each level that wait for a write.
    pub fn pending(&self) -> Vec<usize> {
        self.buffers.iter().map(Buffer::tokens).collect()
    }

    /// Figures of each level.
    pub fn stats(&self) -> &[Stats<'c>] {
        &self.stats
    }

    /// Adds what a level was taught to its buffer.
    fn teach(&mut self, index: usize, reading: Reading<'c>, teach: Tensor<'c>, known: Surprise<'c>) {
        let (cx, gate) = (self.cx, &self.rules.gate);
        let surprise = gate.values(cx, teach, known);
        let length = lengths(teach).mean(&[0, 1]).reshape(&[]);
        let (sum, chunks) = self.stats[index].teach.map_or((length, 1), |(sum, n)| (sum + length, n + 1));
        self.stats[index].teach = Some((sum, chunks));
        let teach = gate.tokens(cx, teach, surprise);
        let slopes = match self.rules.write_grad {
            WriteGrad::Full => reading.level.slopes(reading.input, teach, View::Through),
            // A path of gradients meets one write at most: that of these weights from constant signals.
            WriteGrad::Chunk => reading.level.slopes(reading.input, teach.stop_grad(), View::Held),
            WriteGrad::None => reading.level.slopes(reading.input, teach, View::Held).stop_grad(),
        };
        self.buffers[index].push(slopes, teach.dim(1), surprise, known.counted);
    }

    /// Writes a level from its buffer, if there is something in it.
    fn write(&mut self, index: usize, level: Level<'c>) {
        let Some(Taken { slopes, surprise }) = self.buffers[index].take(self.cx) else { return };
        let batch = slopes.batch();
        let open = surprise
            .filter(|_| self.rules.gate.of != GateOf::Off)
            .map(|(sum, count)| self.rules.gate.writes(self.cx, sum, count, None))
            .filter(|_| self.rules.gate.of == GateOf::Chunk);
        let step = Step::new(self.cx, self.rules, index, batch, open);
        let view = if self.rules.write_grad == WriteGrad::Full { View::Through } else { View::Held };
        level.write(slopes, step, view);
        let one = self.cx.constant(1.0, DType::F32, &[]);
        self.tally(index, Some(open.map_or(one, |open| open.mean(&[0, 1]).reshape(&[]))));
    }

    /// Counts a write of this share of the sequences.
    fn tally(&mut self, index: usize, share: Option<Tensor<'c>>) {
        let writes = &mut self.stats[index].writes;
        *writes = [*writes, share].into_iter().flatten().reduce(|a, b| a + b);
    }

    fn level(&self, index: usize, width: usize) -> Level<'c> {
        let rules = self.rules;
        let factored = match rules.form {
            // What lasts longer than the trace is kept as weights.
            _ if self.cx.stream().is_some() => false,
            Form::Dense => false,
            Form::Factored => true,
            Form::Auto => {
                let mean_rank = self.tokens.saturating_sub(rules.periods[index]) / 2;
                mean_rank * (width + rules.hidden) < width * rules.hidden
            }
        };
        Level::new(self.cx, width, rules.hidden, factored)
    }
}

/// The scope of a level within its block.
pub(super) fn scope(index: usize) -> String {
    format!("cms.{index}")
}
