//! Retention: linear attention whose state decays, at a rate of its own in each head (Sun et al. 2023, arXiv 2307.08621).
//!
//! B batch, T tokens, D width, H heads, K = D / H. A head reads a matrix S of [K, K] instead of all earlier keys:
//!
//! ```text
//! S_t = gamma S_(t-1) + v_t k_t',   o_t = S_t q_t / sqrt(K)            (eq. 6)
//! gamma_h = 1 - 2^(-5 - h)                                             (eq. 8)
//! y = (norm_h(o) * silu(x Wg)) Wo                                      (eq. 8)
//! ```

use plugin_api::prelude::*;

options! {
    /// How fast a head forgets.
    pub enum Decay {
        /// gamma_h, as in the paper.
        Fixed,
        /// gamma_h^(e^a_h) with a trained a_h, 0 at first.
        Learned,
    }
}

options! {
    /// Each token reads a sum of all earlier values, older ones with less weight.
    pub struct Linear {
        /// Heads H; divides the model width.
        #[schemars(range(min = 1))]
        pub heads: usize = 4,
        /// How fast a head forgets.
        pub decay: Decay = Decay::Fixed,
        /// Base of the rotary angles, where the model asks for rotary positions.
        #[schemars(range(min = 1.0))]
        pub rope_theta: f64 = 1e4,
    }
}

impl Linear {
    /// log gamma `[1, H, 1]`, below 0.
    fn log_decay<'c>(&self, cx: &'c Cx<'c>) -> Tensor<'c> {
        let head = cx.range(self.heads).cast(DType::F32);
        let log_gamma = (1.0 - ((head + 5.0) * -std::f64::consts::LN_2).exp()).ln();
        let log_gamma = match self.decay {
            Decay::Fixed => log_gamma,
            Decay::Learned => {
                log_gamma * cx.parameter("decay", &[self.heads], Role::Scalar, Init::Constant(0.0)).exp()
            }
        };
        log_gamma.reshape(&[1, self.heads, 1])
    }
}

impl Attention for Linear {
    fn trace<'c>(&self, cx: &'c Cx<'c>, x_btd: Tensor<'c>, positions: Option<Tensor<'c>>) -> Tensor<'c> {
        let (b, t, d, h) = (x_btd.dim(0), x_btd.dim(1), x_btd.dim(2), self.heads);
        let [q, k, v] = ["wq", "wk", "wv"].map(|name| cx.linear(name, x_btd, d).split_heads(h));
        let [q, k] = [q, k].map(|x| positions.map_or(x, |at| cx.rope(x, at, self.rope_theta)));
        let size = q.dim(-1);

        // What earlier chunks of the sequence have left behind: zeros where it starts.
        cx.reads_contexts_whole();
        let state = cx.fast("state", cx.constant(0.0, DType::F32, &[h, size, size]), Lifetime::Sequence);
        let log_decay_bht = self.log_decay(cx).repeat(&[b, h, t]);
        let s_bhkk = state.value().repeat(&[b, h, size, size]);
        let (o_bhtk, last) = linear_attention([q * (size as f64).powf(-0.5), k, v], log_decay_bht, s_bhkk);
        state.write(last);

        let gate = cx.linear("wg", x_btd, d).silu();
        cx.linear("wo", o_bhtk.standardized(1e-5).merge_heads() * gate, d)
    }

    fn validate(&self, dims: &Dims) -> Vec<Fault> {
        match dims.width.filter(|d| !d.is_multiple_of(self.heads)) {
            Some(d) => vec![("heads".into(), format!("{} heads do not divide d_model = {d}", self.heads))],
            None => Vec::new(),
        }
    }
}

component! { attention "linear" => Linear, "Linear attention with a decay for each head." }
export_plugin!();

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_testing::{F32, Traced, trace};

    fn traced(backbone: &Linear, tokens: usize) -> Traced {
        trace(&[("x", F32, &[1, tokens, 4])], |cx, x| vec![backbone.trace(cx, x[0], None)]).unwrap()
    }

    /// sum over u <= t of gamma_h^(t - u) (q_t k_u') v_u, with norm, gate and projection written out.
    #[test]
    fn it_is_the_weighted_sum_of_the_paper() {
        let backbone = Linear { heads: 2, ..Linear::default() };
        let (tokens, d, size) = (5, 4, 2);
        let x: Vec<f64> = (0..tokens * d).map(|index| (index as f64 * 0.7).sin()).collect();
        let wave =
            |from: usize| -> Vec<f64> { (from..from + d * d).map(|i| (i as f64 * 1.3).cos()).collect() };
        let [wq, wk, wv, wg, wo] = [0, 20, 40, 60, 80].map(wave);
        let given: Vec<(&str, &[f64])> =
            vec![("x", &x), ("wq", &wq), ("wk", &wk), ("wv", &wv), ("wg", &wg), ("wo", &wo)];
        let got = traced(&backbone, tokens).run(&given).unwrap().outputs.remove(0);

        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let times = |w: &[f64], t: usize| -> Vec<f64> {
            w.chunks(d).map(|row| dot(row, &x[t * d..(t + 1) * d])).collect()
        };
        for t in 0..tokens {
            let mut mixed = Vec::new();
            for head in 0..2 {
                let own = |values: Vec<f64>| values[head * size..(head + 1) * size].to_vec();
                let gamma: f64 = 1.0 - 0.5f64.powi(5 + head as i32);
                let mut o = vec![0.0; size];
                for u in 0..=t {
                    let score = dot(&own(times(&wq, t)), &own(times(&wk, u))) / (size as f64).sqrt();
                    let weight = gamma.powi((t - u) as i32) * score;
                    o.iter_mut().zip(own(times(&wv, u))).for_each(|(o, v)| *o += weight * v);
                }
                let mean = o.iter().sum::<f64>() / size as f64;
                let variance = o.iter().map(|o| (o - mean).powi(2)).sum::<f64>() / size as f64;
                mixed.extend(o.iter().map(|o| (o - mean) / (variance + 1e-5).sqrt()));
            }
            let gated: Vec<f64> =
                mixed.iter().zip(times(&wg, t)).map(|(o, g)| o * g / (1.0 + (-g).exp())).collect();
            for (index, row) in wo.chunks(d).enumerate() {
                let (wanted, got) = (dot(row, &gated), got[t * d + index]);
                assert!((wanted - got).abs() < 1e-9, "token {t}, {index}: {got}, not {wanted}");
            }
        }
    }

    #[test]
    fn a_learned_decay_begins_as_the_fixed_one() {
        let [fixed, learned] = [Decay::Fixed, Decay::Learned].map(|decay| {
            let backbone = Linear { heads: 2, decay, ..Linear::default() };
            let x: Vec<f64> = (0..12).map(|index| (index as f64).cos()).collect();
            let traced = traced(&backbone, 3);
            (traced.parameters().len(), traced.run(&[("x", &x)]).unwrap().outputs.remove(0))
        });
        assert_eq!(fixed.1, learned.1);
        assert_eq!(learned.0, fixed.0 + 1);
    }
}
