//! One level of a continuum memory system (Behrouz et al. 2025, eq. 70): a residual network of two layers whose weights
//! are a memory. It is read with the weights in force, and written from what it has read, once in each period.
//!
//! B sequences, C tokens, D width, H hidden width. Weights are shared, or each sequence has its own: then they carry B
//! as their first axis.

use plugin_api::prelude::*;

/// f(x) = x + w2 gelu(w1 LN(x) + b1) + b2
#[derive(Clone, Copy)]
pub struct Level<'c> {
    /// What training learns: the memory before it is first written.
    start: [Tensor<'c>; PARTS.len()],
    memory: [Fast<'c>; PARTS.len()],
}

/// Weights of a level: LN's gain and shift, w1 and b1, w2 and b2.
const PARTS: [&str; 6] = ["gain", "shift", "w1", "b1", "w2", "b2"];

/// What a level has read and was taught: inputs and cotangents of its output, `[B, C, D]`.
#[derive(Clone, Copy)]
pub struct Reading<'c> {
    pub input: Tensor<'c>,
    pub teach: Tensor<'c>,
}

impl<'c> Level<'c> {
    /// The level of the current scope.
    pub fn new(cx: &'c Cx<'c>, width: usize, hidden: usize) -> Level<'c> {
        let vector =
            |name, length: usize, role, value| cx.parameter(name, &[length], role, Init::Constant(value));
        let matrix = |name, dims: [usize; 2]| cx.parameter(name, &dims, Role::Matrix, Init::Normal(0.02));
        let start = [
            vector("gain", width, Role::Gain, 1.0),
            vector("shift", width, Role::Bias, 0.0),
            matrix("w1", [hidden, width]),
            vector("b1", hidden, Role::Bias, 0.0),
            matrix("w2", [width, hidden]),
            vector("b2", width, Role::Bias, 0.0),
        ];
        let memory = std::array::from_fn(|part| cx.fast(PARTS[part], start[part]));
        Level { start, memory }
    }

    /// The output for x, with the weights in force. With `through_writes` gradients pass to what was written; else
    /// writes are constants and all goes to the start.
    pub fn read(&self, x_bcd: Tensor<'c>, through_writes: bool) -> Tensor<'c> {
        apply(self.weights(through_writes), x_bcd)
    }

    fn weights(&self, through_writes: bool) -> [Tensor<'c>; PARTS.len()] {
        std::array::from_fn(|part| {
            let (memory, start) = (self.memory[part], self.start[part]);
            match memory.is_written() && !through_writes {
                true => memory.value().straight_through(start.repeat(&memory.value().dims())),
                false => memory.value(),
            }
        })
    }

    /// One step of gradient descent on <teach, f(input)> over all that was read since the last write (eq. 71). With
    /// `only_this` the weights before it count as constants. Returns the length of the step beside that of the weights.
    pub fn write(
        &self,
        cx: &'c Cx<'c>,
        readings: &[Reading<'c>],
        rate: f64,
        only_this: bool,
    ) -> (Tensor<'c>, Tensor<'c>) {
        let joined = |part: fn(&Reading<'c>) -> Tensor<'c>| {
            cx.concat(&readings.iter().map(part).collect::<Vec<_>>(), 1)
        };
        let (input, teach) = (joined(|reading| reading.input), joined(|reading| reading.teach));
        let batch = input.dim(0);
        let shared = self.weights(!only_this);
        // Variables of their own: inputs and teach signals came from the same weights and are held.
        let own = std::array::from_fn(|part| {
            let start = self.start[part].dims();
            cx.save(shared[part].repeat(&[&[batch], &start[..]].concat()))
        });
        let slopes = cx.grad((apply(own, input) * teach).total(), &own);
        let zero = cx.constant(0.0, DType::F32, &[]);
        let (mut moved, mut norm) = (zero, zero);
        for (part, slope) in slopes.into_iter().enumerate() {
            let step = slope * rate;
            self.memory[part].write(own[part] - step);
            moved = moved + (step * step).total();
            norm = norm + (own[part] * own[part]).total();
        }
        (moved, norm)
    }
}

fn apply<'c>([gain, shift, w1, b1, w2, b2]: [Tensor<'c>; PARTS.len()], x_bcd: Tensor<'c>) -> Tensor<'c> {
    let normal = x_bcd.standardized(1e-5) * row(gain) + row(shift);
    let hidden = (product(normal, w1) + row(b1)).gelu();
    x_bcd + product(hidden, w2) + row(b2)
}

/// A vector for each sequence, beside its tokens.
fn row(vector: Tensor<'_>) -> Tensor<'_> {
    if vector.rank() == 1 { vector } else { vector.reshape(&[vector.dim(0), 1, vector.dim(1)]) }
}

/// x w' with one matrix, or with one for each sequence.
fn product<'c>(x: Tensor<'c>, w: Tensor<'c>) -> Tensor<'c> {
    if w.rank() == 2 { x.dot_last(w) } else { x.dot_each(w) }
}
