//! The gated delta rule, forward and backward, against the recurrence in f64, on every instruction set; and that the
//! number of threads changes no bit.

use plan::{DeltaRule, DeltaRuleGrad, DeltaShape, DeltaTensors, Heads, LaunchOp, Slot};

use super::{Random, run, single};
use crate::tile::Isa;

#[derive(Clone, Copy, Debug)]
struct Form {
    shape: DeltaShape,
    /// Log decays lie in -decay..0.
    decay: f64,
    /// Heads lie one after another in each token, as a projection leaves them; else elements apart.
    is_split: bool,
    /// Which cotangents there are: of o, of the last state.
    given: [bool; 2],
}

fn form([batch, heads, tokens, width, value_width]: [usize; 5], decay: f64) -> Form {
    let shape = DeltaShape { batch, heads, tokens, width, value_width };
    Form { shape, decay, is_split: true, given: [true; 2] }
}

fn count(dims: [usize; 4]) -> usize {
    dims.iter().product()
}

impl Form {
    fn heads(&self, slot: Slot, [_, heads, tokens, width]: [usize; 4]) -> Heads {
        let batch = heads * tokens * width;
        match self.is_split {
            true => Heads { slot, batch, head: width, token: heads * width, element: 1 },
            false => Heads { slot, batch, head: tokens * width, token: 1, element: tokens },
        }
    }

    /// From the order of memory to [B, H, T, D], or back.
    fn moved<T: Copy + Default>(&self, x: &[T], dims: [usize; 4], back: bool) -> Vec<T> {
        let slot = Slot { region: plan::Region::Arena, offset: 0, bytes: 0 };
        let at = self.heads(slot, dims);
        let mut to = vec![T::default(); x.len()];
        for plain in 0..x.len() {
            let (row, d) = (plain / dims[3], plain % dims[3]);
            let (head, t) = (row / dims[2], row % dims[2]);
            let lying = head / dims[1] * at.batch + head % dims[1] * at.head + t * at.token + d * at.element;
            let (from, into) = if back { (plain, lying) } else { (lying, plain) };
            to[into] = x[from];
        }
        to
    }

    /// q, k of length one, v, log_alpha, beta, state, ct_o and ct_last, [B, H, T, D].
    fn values(&self) -> [Vec<f32>; 8] {
        let [q, k, v, gates, rates, state] = self.shape.operands();
        let mut random = Random(count(q) as u64 + 1);
        let mut values = [q, k, v, gates, rates, state, v, state]
            .map(|dims| (0..count(dims)).map(|_| 0.5 * random.float()).collect::<Vec<f32>>());
        for row in values[1].chunks_mut(self.shape.width) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        values[3].iter_mut().for_each(|x| *x = -0.5 * self.decay as f32 * (1.0 + *x));
        values[4].iter_mut().for_each(|x| *x = 0.95 * (1.0 + *x));
        for (index, given) in self.given.into_iter().enumerate() {
            if !given {
                values[6 + index].fill(0.0);
            }
        }
        values
    }

    /// o, the last state, and the six cotangents, token by token: a head at a time.
    fn expected(&self, values: &[Vec<f32>; 8]) -> [Vec<f64>; 8] {
        let DeltaShape { batch, heads, tokens, width, value_width } = self.shape;
        let [q, k, v, log_alpha, beta, first, ct_o, ct_last] =
            values.each_ref().map(|x| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>());
        let dims = self.shape.operands();
        let mut results = [dims[2], dims[5], dims[0], dims[1], dims[2], dims[3], dims[4], dims[5]]
            .map(|d| vec![0.0; count(d)]);
        let [out, last, ct_q, ct_k, ct_v, ct_log_alpha, ct_beta, ct_state] = &mut results;
        let size = width * value_width;
        for head in 0..batch * heads {
            let mut states = vec![first[head * size..][..size].to_vec()];
            let mut errors = Vec::new();
            for t in head * tokens..(head + 1) * tokens {
                let mut state = states[states.len() - 1].clone();
                let alpha = log_alpha[t].exp();
                let mut error = Vec::new();
                for (row, i) in state.chunks_mut(width).zip(0..) {
                    row.iter_mut().for_each(|s| *s *= alpha);
                    let held: f64 = row.iter().zip(&k[t * width..]).map(|(s, k)| s * k).sum();
                    error.push(v[t * value_width + i] - held);
                    row.iter_mut().zip(&k[t * width..]).for_each(|(s, k)| *s += beta[t] * error[i] * k);
                    out[t * value_width + i] = row.iter().zip(&q[t * width..]).map(|(s, q)| s * q).sum();
                }
                errors.push(error);
                states.push(state);
            }
            last[head * size..][..size].copy_from_slice(&states[tokens]);
            let mut ct = ct_last[head * size..][..size].to_vec();
            for t in (head * tokens..(head + 1) * tokens).rev() {
                let (before, after) = (&states[t - head * tokens], &states[t - head * tokens + 1]);
                let (error, alpha) = (&errors[t - head * tokens], log_alpha[t].exp());
                for i in 0..value_width {
                    let ct_o = ct_o[t * value_width + i];
                    let mut ct_written = 0.0;
                    for d in 0..width {
                        let at = i * width + d;
                        ct_q[t * width + d] += ct_o * after[at];
                        ct[at] += ct_o * q[t * width + d];
                        ct_k[t * width + d] += ct[at] * beta[t] * error[i];
                        ct_written += ct[at] * k[t * width + d];
                    }
                    ct_beta[t] += ct_written * error[i];
                    let ct_error = ct_written * beta[t];
                    ct_v[t * value_width + i] = ct_error;
                    for d in 0..width {
                        let at = i * width + d;
                        ct_k[t * width + d] -= ct_error * alpha * before[at];
                        ct[at] -= ct_error * k[t * width + d];
                        ct_log_alpha[t] += ct[at] * alpha * before[at];
                        ct[at] *= alpha;
                    }
                }
            }
            ct_state[head * size..][..size].copy_from_slice(&ct);
        }
        results
    }

    fn check(&self) {
        let dims = self.shape.operands();
        let values = self.values();
        let want = self.expected(&values);
        let results = [dims[2], dims[5], dims[0], dims[1], dims[2], dims[3], dims[4], dims[5]];
        let given = [dims[0], dims[1], dims[2], dims[3], dims[4], dims[5], dims[2], dims[5]];
        let mut operands: Vec<Vec<u32>> = Vec::new();
        for (x, dims) in values.iter().zip(given) {
            operands.push(self.moved(x, dims, true).into_iter().map(f32::to_bits).collect());
        }
        operands.extend(results.map(|dims| vec![9; count(dims)]));
        let bytes: Vec<usize> = operands.iter().map(|x| 4 * x.len()).collect();
        let tensors = |slots: &[Slot]| {
            let at = |index: usize| self.heads(slots[index], dims[index]);
            DeltaTensors { q: at(0), k: at(1), v: at(2), log_alpha: at(3), beta: at(4), state: at(5) }
        };
        let forward = single(
            vec![],
            |slots| {
                LaunchOp::DeltaRule(Box::new(DeltaRule {
                    shape: self.shape,
                    operands: tensors(slots),
                    out: Some(self.heads(slots[8], dims[2])),
                    last: Some(self.heads(slots[9], dims[5])),
                }))
            },
            &bytes,
        );
        let backward = single(
            vec![],
            |slots| {
                LaunchOp::DeltaRuleGrad(Box::new(DeltaRuleGrad {
                    shape: self.shape,
                    operands: tensors(slots),
                    ct_out: self.given[0].then(|| self.heads(slots[6], dims[2])),
                    ct_last: self.given[1].then(|| self.heads(slots[7], dims[5])),
                    cts: [0, 1, 2, 3, 4, 5].map(|index| Some(self.heads(slots[10 + index], dims[index]))),
                }))
            },
            &bytes,
        );
        let names = ["o", "last", "ct_q", "ct_k", "ct_v", "ct_log_alpha", "ct_beta", "ct_state"];
        for isa in Isa::available() {
            for (set, checked) in [(&forward, 0..2), (&backward, 2..8)] {
                let got = run(set, &operands, 1, isa);
                for threads in [2, 3] {
                    assert!(got == run(set, &operands, threads, isa), "{threads} threads change bits");
                }
                for index in checked {
                    let plain = self.moved(&got[8 + index], results[index], false);
                    self.agrees(names[index], isa, &plain, &want[index]);
                }
            }
        }
    }

    fn agrees(&self, what: &str, isa: Isa, got: &[u32], want: &[f64]) {
        let largest = want.iter().fold(1.0f64, |largest, x| largest.max(x.abs()));
        for (index, (got, want)) in got.iter().zip(want).enumerate() {
            let got = f64::from(f32::from_bits(*got));
            let error = (got - want).abs();
            assert!(error < 2e-5 * largest, "{what} [{index}] on {}: {got} for {want}, {self:?}", isa.name());
        }
    }
}

#[test]
fn the_delta_rule_of_many_shapes() {
    for sizes in [
        [1, 1, 1, 1, 1],
        [2, 3, 1, 16, 16],
        [1, 2, 5, 3, 40],
        [2, 2, 16, 16, 8],
        [1, 1, 31, 17, 100],
        [1, 3, 33, 64, 64],
        [2, 4, 100, 20, 24],
        [1, 1, 300, 64, 64],
        [1, 1, 70, 130, 200],
    ] {
        for decay in [0.0, 0.3, 12.0] {
            form(sizes, decay).check();
            Form { is_split: false, ..form(sizes, decay) }.check();
        }
    }
}

#[test]
fn the_delta_rule_with_some_cotangents() {
    for given in [[true, false], [false, true]] {
        for sizes in [[1, 2, 70, 16, 33], [2, 1, 40, 8, 8]] {
            Form { given, ..form(sizes, 0.3) }.check();
        }
    }
}

/// The engine finds steps that went wrong by what is not finite: a token that is no number shows from its chunk on.
#[test]
fn what_is_no_number_shows_in_all_later_chunks() {
    let form = form([1, 1, 200, 16, 16], 0.1);
    let dims = form.shape.operands();
    for operand in 1..5 {
        let mut values = form.values();
        let width = dims[operand][3];
        values[operand][100 * width] = f32::NAN;
        let mut operands: Vec<Vec<u32>> =
            values[..6].iter().map(|x| x.iter().map(|x| x.to_bits()).collect()).collect();
        operands.extend([dims[2], dims[5]].map(|dims| vec![9; count(dims)]));
        let bytes: Vec<usize> = operands.iter().map(|x| 4 * x.len()).collect();
        let launch = |slots: &[Slot]| {
            let at = |index: usize| form.heads(slots[index], dims[index]);
            let operands =
                DeltaTensors { q: at(0), k: at(1), v: at(2), log_alpha: at(3), beta: at(4), state: at(5) };
            let [out, last] = [(6, dims[2]), (7, dims[5])].map(|(slot, dims)| form.heads(slots[slot], dims));
            LaunchOp::DeltaRule(Box::new(DeltaRule {
                shape: form.shape,
                operands,
                out: Some(out),
                last: Some(last),
            }))
        };
        let set = single(vec![], launch, &bytes);
        for isa in Isa::available() {
            let got = run(&set, &operands, 1, isa);
            let rows: Vec<bool> =
                got[6].chunks(16).map(|row| row.iter().any(|x| f32::from_bits(*x).is_nan())).collect();
            assert!(rows[..96].iter().all(|shows| !shows), "operand {operand} on {}", isa.name());
            assert!(rows[128..].iter().all(|shows| *shows), "operand {operand} on {}", isa.name());
            assert!(got[7].iter().any(|x| f32::from_bits(*x).is_nan()));
        }
    }
}
