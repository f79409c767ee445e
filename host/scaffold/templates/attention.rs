//! @NAME@: attention by the angle between query and key alone (QK-norm: Henry et al. 2020, arXiv 2010.04245).
//!
//! B batch, T tokens, D width, H heads.

use plugin_api::prelude::*;

options! {
    /// softmax(g cos(q, k)) v over all earlier positions.
    pub struct @TYPE@ {
        /// Heads H; divides the model width.
        #[schemars(range(min = 1))]
        pub heads: usize = 4,
        /// Factor g of the cosines.
        #[schemars(range(min = 0.0))]
        pub scale: f64 = 10.0,
        /// Base of the rotary angles, where the model asks for rotary positions.
        #[schemars(range(min = 1.0))]
        pub rope_theta: f64 = 1e4,
    }
}

impl Attention for @TYPE@ {
    fn trace<'c>(&self, cx: &'c Cx<'c>, x_btd: Tensor<'c>, positions: Option<Tensor<'c>>) -> Tensor<'c> {
        let d = x_btd.dim(-1);
        let [q, k, v] = ["wq", "wk", "wv"].map(|name| cx.linear(name, x_btd, d).split_heads(self.heads));
        let turned = |x| positions.map_or(x, |positions| cx.rope(x, positions, self.rope_theta));
        let [q, k] = [q, k].map(|x| turned(x.l2_normalize_rsqrt(1e-6)));

        // Keys and values of what was read before come first: in a session, and where a model reads in chunks.
        let past = cx.kv_memory(k, v, false);
        let seen = past.seen(Mask::Causal).scale(self.scale);
        cx.linear("wo", attention_with(q, past.keys, past.values, seen).merge_heads(), d)
    }

    fn validate(&self, dims: &Dims) -> Vec<Fault> {
        match dims.width.filter(|d| !d.is_multiple_of(self.heads)) {
            Some(d) => vec![("heads".into(), format!("{} heads do not divide d_model = {d}", self.heads))],
            None => Vec::new(),
        }
    }
}

component! { attention "@NAME@" => @TYPE@, "@SUMMARY@" }
export_plugin!();

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_testing::{F32, trace};

    #[test]
    fn no_token_sees_a_later_one() {
        let backbone = @TYPE@ { heads: 2, ..@TYPE@::default() };
        let x = [("x", F32, &[1, 3, 4][..])];
        let traced = trace(&x, |cx, x| vec![backbone.trace(cx, x[0], None)]).unwrap();
        assert_eq!(traced.dims(), [[1, 3, 4]]);

        let (mut text, last) = ((0..12).map(f64::from).collect::<Vec<_>>(), 8..12);
        let before = traced.run(&[("x", &text)]).unwrap();
        text[last.start] = -5.0;
        let after = traced.run(&[("x", &text)]).unwrap();
        assert_eq!(before.outputs[0][..last.start], after.outputs[0][..last.start]);
        assert_ne!(before.outputs[0][last.clone()], after.outputs[0][last]);
    }
}
