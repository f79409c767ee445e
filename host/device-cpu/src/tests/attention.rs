//! Attention, forward and backward, against its definition in f64, on every instruction set; and that the number of
//! threads changes no bit.

use plan::{Attention, AttentionGrad, AttentionShape, Heads, LaunchOp, Numbers, Slot};

use super::{Random, run, single};
use crate::tile::Isa;

/// Extents, mask, and segments where they are asked for.
struct Form {
    shape: AttentionShape,
    has_segments: bool,
    /// Heads lie one after another in each token, as a projection leaves them; else tokens in each head.
    is_split: bool,
}

fn form([batch, heads, groups, queries, keys, width, value_width]: [usize; 7]) -> Form {
    let shape = AttentionShape {
        batch,
        heads,
        groups,
        queries,
        keys,
        width,
        value_width,
        scale: 0.3,
        causal: true,
        window: 0,
        prefix: 0,
        q_offset: None,
        kv_len: None,
        segments: None,
    };
    Form { shape, has_segments: false, is_split: true }
}

impl Form {
    fn heads(&self, slot: Slot, [_, heads, tokens, width]: [usize; 4]) -> Heads {
        let batch = heads * tokens * width;
        match self.is_split {
            true => Heads { slot, batch, head: width, token: heads * width, element: 1 },
            // Columns first, so that no element follows another.
            false => Heads { slot, batch, head: tokens * width, token: 1, element: tokens },
        }
    }

    fn at(&self, dims: [usize; 4], b: usize, h: usize, t: usize, d: usize) -> usize {
        let slot = Slot { region: plan::Region::Arena, offset: 0, bytes: 0 };
        let heads = self.heads(slot, dims);
        b * heads.batch + h * heads.head + t * heads.token + d * heads.element
    }

    fn sees(&self, segments: &[Vec<u32>; 2], b: usize, i: usize, j: usize) -> bool {
        let AttentionShape { queries, keys, prefix, .. } = self.shape;
        if j < prefix {
            return true;
        }
        let key = (j - prefix) as i64;
        let query = (keys + i) as i64 - (prefix + queries) as i64;
        (!self.shape.causal || key <= query)
            && (self.shape.window == 0 || query - key < self.shape.window as i64)
            && (!self.has_segments || segments[0][b * queries + i] == segments[1][b * keys + j])
    }

    /// Result and log-sum-exp, then cotangents of q, k and v, in the order of memory.
    fn expected(&self, [q, k, v, ct]: [&[f64]; 4], segments: &[Vec<u32>; 2]) -> [Vec<f64>; 5] {
        let shape = &self.shape;
        let ([of_q, of_k, of_v], of_out) = (shape.inputs(), shape.outputs());
        let zeros = |dims: [usize; 4]| vec![0.0; dims.iter().product()];
        let (mut out, mut lse) = (zeros(of_out), vec![0.0; shape.batch * shape.heads * shape.queries]);
        let [mut ct_q, mut ct_k, mut ct_v] = [of_q, of_k, of_v].map(zeros);
        let scale = f64::from(shape.scale);
        for (row, lse) in lse.iter_mut().enumerate() {
            let (b, h, i) =
                (row / shape.queries / shape.heads, row / shape.queries % shape.heads, row % shape.queries);
            let g = h / (shape.heads / shape.groups);
            let seen: Vec<usize> = (0..shape.keys).filter(|j| self.sees(segments, b, i, *j)).collect();
            let product = |x: &[f64], of_x, y: &[f64], of_y, j: usize, width: usize| -> f64 {
                (0..width).map(|d| x[self.at(of_x, b, h, i, d)] * y[self.at(of_y, b, g, j, d)]).sum()
            };
            let scores: Vec<f64> =
                seen.iter().map(|j| scale * product(q, of_q, k, of_k, *j, shape.width)).collect();
            let total: f64 = scores.iter().map(|score| score.exp()).sum();
            *lse = if seen.is_empty() { 0.0 } else { total.ln() };
            let weights: Vec<f64> = scores.iter().map(|score| score.exp() / total).collect();
            let ct_weights: Vec<f64> =
                seen.iter().map(|j| product(ct, of_out, v, of_v, *j, shape.value_width)).collect();
            let delta: f64 = weights.iter().zip(&ct_weights).map(|(x, y)| x * y).sum();
            for ((j, weight), ct_weight) in seen.iter().zip(&weights).zip(&ct_weights) {
                for d in 0..shape.value_width {
                    out[self.at(of_out, b, h, i, d)] += weight * v[self.at(of_v, b, g, *j, d)];
                    ct_v[self.at(of_v, b, g, *j, d)] += weight * ct[self.at(of_out, b, h, i, d)];
                }
                let ct_score = scale * weight * (ct_weight - delta);
                for d in 0..shape.width {
                    ct_q[self.at(of_q, b, h, i, d)] += ct_score * k[self.at(of_k, b, g, *j, d)];
                    ct_k[self.at(of_k, b, g, *j, d)] += ct_score * q[self.at(of_q, b, h, i, d)];
                }
            }
        }
        [out, lse, ct_q, ct_k, ct_v]
    }

    fn check(&self) {
        let shape = &self.shape;
        let ([of_q, of_k, of_v], of_out) = (shape.inputs(), shape.outputs());
        let count = |dims: [usize; 4]| dims.iter().product::<usize>();
        let mut random = Random(count(of_q) as u64);
        let mut draw = |dims: [usize; 4]| (0..count(dims)).map(|_| random.float().to_bits()).collect();
        let [q, k, v, ct]: [Vec<u32>; 4] = [of_q, of_k, of_v, of_out].map(&mut draw);
        let segments = [shape.queries, shape.keys]
            .map(|tokens| (0..shape.batch * tokens).map(|at| (at % tokens * 3 / tokens) as u32).collect());
        let floats = |x: &[u32]| x.iter().map(|x| f64::from(f32::from_bits(*x))).collect::<Vec<f64>>();
        let values = [&q, &k, &v, &ct].map(|x| floats(x));
        let [out, lse, ct_q, ct_k, ct_v] =
            self.expected([&values[0], &values[1], &values[2], &values[3]], &segments);
        let numbers = |slot: Slot, tokens: usize| Numbers { slot, batch: tokens, token: 1 };
        let masked = |of_queries: Slot, of_keys: Slot| AttentionShape {
            segments: self
                .has_segments
                .then(|| (numbers(of_queries, shape.queries), numbers(of_keys, shape.keys))),
            ..shape.clone()
        };
        let rows = shape.batch * shape.heads * shape.queries;
        let [for_queries, for_keys] = segments;
        let forward: Vec<Vec<u32>> =
            vec![q, k, v, for_queries, for_keys, vec![9; count(of_out)], vec![9; rows]];
        let sizes = |operands: &[Vec<u32>]| operands.iter().map(|x| x.len() * 4).collect::<Vec<usize>>();
        let launch = |slots: &[Slot]| {
            let given = |index: usize, dims| self.heads(slots[index], dims);
            LaunchOp::Attention(Box::new(Attention {
                shape: masked(slots[3], slots[4]),
                q: given(0, of_q),
                k: given(1, of_k),
                v: given(2, of_v),
                out: Some(given(5, of_out)),
                lse: Some(slots[6]),
            }))
        };
        let got = self.runs(launch, &forward, &sizes(&forward), |got| {
            self.agrees("result", &got[5], &out);
            self.agrees("log-sum-exp", &got[6], &lse);
        });

        let mut backward = got;
        backward.extend([ct, vec![9; count(of_q)], vec![9; count(of_k)], vec![9; count(of_v)]]);
        let launch = |slots: &[Slot]| {
            let given = |index: usize, dims| self.heads(slots[index], dims);
            LaunchOp::AttentionGrad(Box::new(AttentionGrad {
                shape: masked(slots[3], slots[4]),
                q: given(0, of_q),
                k: given(1, of_k),
                v: given(2, of_v),
                out: given(5, of_out),
                lse: slots[6],
                ct_out: given(7, of_out),
                ct_q: Some(given(8, of_q)),
                ct_k: Some(given(9, of_k)),
                ct_v: Some(given(10, of_v)),
            }))
        };
        self.runs(launch, &backward, &sizes(&backward), |got| {
            self.agrees("cotangent of q", &got[8], &ct_q);
            self.agrees("cotangent of k", &got[9], &ct_k);
            self.agrees("cotangent of v", &got[10], &ct_v);
        });
    }

    /// Checks what each instruction set gives; the last one's is returned.
    fn runs(
        &self,
        launch: impl Fn(&[Slot]) -> LaunchOp,
        operands: &[Vec<u32>],
        bytes: &[usize],
        check: impl Fn(&[Vec<u32>]),
    ) -> Vec<Vec<u32>> {
        let set = single(vec![], launch, bytes);
        let mut results = Vec::new();
        for isa in Isa::available() {
            results = run(&set, operands, 1, isa);
            for threads in [2, 3] {
                assert!(results == run(&set, operands, threads, isa), "{threads} threads change bits");
            }
            check(&results);
        }
        results
    }

    fn agrees(&self, what: &str, got: &[u32], want: &[f64]) {
        let largest = want.iter().fold(1.0f64, |largest, x| largest.max(x.abs()));
        for (index, (got, want)) in got.iter().zip(want).enumerate() {
            let got = f64::from(f32::from_bits(*got));
            let shape = &self.shape;
            assert!((got - want).abs() < 2e-5 * largest, "{what} [{index}]: {got} for {want}, of {shape:?}");
        }
    }
}

#[test]
fn attention_of_many_shapes() {
    for sizes in [
        [1, 1, 1, 1, 1, 1, 1],
        [2, 4, 2, 1, 130, 16, 16],
        [2, 6, 2, 30, 100, 8, 24],
        [1, 2, 1, 64, 64, 64, 64],
        [1, 2, 2, 200, 200, 16, 16],
        [2, 2, 1, 150, 70, 33, 80],
        [1, 1, 1, 300, 300, 128, 128],
    ] {
        form(sizes).check();
        Form { is_split: false, ..form(sizes) }.check();
    }
}

#[test]
fn attention_under_every_mask() {
    for (causal, window, prefix) in
        [(false, 0, 0), (false, 40, 0), (true, 1, 0), (true, 70, 0), (true, 9, 20)]
    {
        for has_segments in [false, true] {
            let mut form = form([2, 2, 1, 150, 170, 16, 16]);
            (form.shape.causal, form.shape.window, form.shape.prefix) = (causal, window, prefix);
            form.has_segments = has_segments;
            form.check();
        }
    }
}

/// The engine finds steps that went wrong by what is not finite, so no row may lose it.
#[test]
fn what_is_no_number_shows_in_its_row_alone() {
    let Form { shape, .. } = form([1, 1, 1, 40, 40, 16, 16]);
    let dims = shape.outputs();
    let mut q = vec![0.5f32.to_bits(); 40 * 16];
    q[7 * 16 + 3] = f32::NAN.to_bits();
    let operands = [q, vec![0.25f32.to_bits(); 40 * 16], vec![1.0f32.to_bits(); 40 * 16], vec![9; 40 * 16]];
    let launch = |slots: &[Slot]| {
        let [q, k, v, out] = [0, 1, 2, 3]
            .map(|index: usize| Form { shape: shape.clone(), ..form([1; 7]) }.heads(slots[index], dims));
        LaunchOp::Attention(Box::new(Attention { shape: shape.clone(), q, k, v, out: Some(out), lse: None }))
    };
    let set = single(vec![], launch, &[40 * 16 * 4; 4]);
    for isa in Isa::available() {
        let got = run(&set, &operands, 1, isa).remove(3);
        for (index, x) in got.into_iter().map(f32::from_bits).enumerate() {
            let is_right = if index / 16 == 7 { x.is_nan() } else { (x - 1.0).abs() < 1e-6 };
            assert!(is_right, "{}: {x} in row {}", isa.name(), index / 16);
        }
    }
}
