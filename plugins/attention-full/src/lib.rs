//! Full causal attention: every token attends to itself and all earlier ones (Vaswani et al. 2017, eq. 1), or to the
//! nearest of them only, so that whatever lies further back has to be carried by something else.
//!
//! B batch, T tokens, D width, H heads, G key and value heads (grouped-query attention, Ainslie et al. 2023).

use plugin_api::prelude::*;

options! {
    /// What passes from a chunk of a sequence to the keys and values of earlier chunks.
    pub enum KvGrad {
        /// The gradient.
        Full,
        /// Nothing: one backward pass a chunk is enough.
        Detach,
    }
}

options! {
    /// softmax(q k' / sqrt(D / H)) v over all earlier positions, or the nearest ones.
    pub struct Full {
        /// Query heads; divides the model width.
        #[schemars(range(min = 1))]
        pub heads: usize = 4,
        /// Key and value heads; 0 means as many as query heads.
        pub kv_heads: usize = 0,
        /// Positions a token sees, itself included; 0 means all. L layers see L (sliding_window - 1) back.
        pub sliding_window: usize = 0,
        /// Adds a bias to each projection.
        pub bias: bool = false,
        /// Base of the rotary angles, where the model asks for rotary positions.
        #[schemars(range(min = 1.0))]
        pub rope_theta: f64 = 1e4,
        /// Factor on the initial standard deviation of the output projection.
        #[schemars(range(min = 0.0))]
        pub out_init: f64 = 1.0,
        pub kv_grad: KvGrad = KvGrad::Full,
    }
}

impl Full {
    fn groups(&self) -> usize {
        if self.kv_heads == 0 { self.heads } else { self.kv_heads }
    }

    /// Attention of the queries `[B, H, C, D / H]` to what they may see.
    fn mix<'c>(&self, q: Tensor<'c>, past: Past<'c>) -> Tensor<'c> {
        let (past, mask) = match self.sliding_window {
            0 => (past, Mask::Causal),
            // No query sees further back than the first one does.
            window => (past.nearest(q.dim(2) + window - 1), Mask::Sliding(window)),
        };
        attention_with(q, past.keys, past.values, past.seen(mask))
    }
}

impl Attention for Full {
    fn trace<'c>(&self, cx: &'c Cx<'c>, x_btd: Tensor<'c>, positions: Option<Tensor<'c>>) -> Tensor<'c> {
        let d = x_btd.dim(-1);
        let d_kv = d / self.heads * self.groups();
        let biased = |name: &str, y| if self.bias { cx.bias(name, y) } else { y };
        let turned = |x| positions.map_or(x, |positions| cx.rope(x, positions, self.rope_theta));

        let q = biased("bq", cx.linear("wq", x_btd, d)).split_heads(self.heads);
        let k = biased("bk", cx.linear("wk", x_btd, d_kv)).split_heads(self.groups());
        let v = biased("bv", cx.linear("wv", x_btd, d_kv)).split_heads(self.groups());
        // Keys and values of what was read before come first.
        let past = cx.kv_memory(turned(k), v, self.kv_grad == KvGrad::Detach);
        let mixed = self.mix(turned(q), past).merge_heads();
        biased("bo", cx.linear_scaled("wo", mixed, d, self.out_init))
    }

    fn validate(&self, dims: &Dims) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(d) = dims.width.filter(|d| !d.is_multiple_of(self.heads)) {
            faults.push(("heads".into(), format!("{} heads do not divide d_model = {d}", self.heads)));
        }
        if !self.heads.is_multiple_of(self.groups()) {
            faults
                .push(("kv_heads".into(), format!("{} does not divide {} heads", self.kv_heads, self.heads)));
        }
        faults
    }
}

component! { attention "full" => Full, "Causal softmax attention over all earlier positions." }
export_plugin!();
