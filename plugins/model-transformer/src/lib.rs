//! A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019).
//!
//! B batch, T tokens, D width, V vocabulary. Each block mixes tokens with the run's attention backbone, then each
//! token with a two-layer network.

use plugin_api::prelude::*;

options! {
    /// Where a sublayer is normalised.
    pub enum Norm {
        /// x + f(norm(x)): trains without care.
        Pre,
        /// norm(x + f(x)): the original.
        Post,
    }
}

options! {
    /// Where the feed-forward network is normalised.
    pub enum MlpNorm {
        /// Where attention is.
        Same,
        /// x + f(norm(x))
        Pre,
        /// norm(x + f(x))
        Post,
    }
}

options! {
    /// How order enters.
    pub enum Positions {
        /// Only causality tells order.
        None,
        /// One vector for each position of the window.
        Learned,
        /// Queries and keys are turned (Su et al. 2021); the backbone does it.
        Rope,
    }
}

options! {
    /// Nonlinearity of the feed-forward network.
    pub enum Activation {
        Gelu,
        Relu,
        Silu,
    }
}

options! {
    /// Embedding, blocks of attention and feed-forward network, final norm, head.
    pub struct Transformer {
        /// Width D.
        #[schemars(range(min = 1))]
        pub d_model: usize = 128,
        /// Blocks.
        #[schemars(range(min = 1))]
        pub layers: usize = 4,
        /// Width of the feed-forward network; 0 means 4 D.
        pub d_hidden: usize = 0,
        /// Where attention is normalised, and the feed-forward network with it unless `mlp_norm` says otherwise.
        pub norm: Norm = Norm::Pre,
        /// For blocks that normalise the two differently.
        pub mlp_norm: MlpNorm = MlpNorm::Same,
        pub positions: Positions = Positions::Rope,
        /// One matrix for embedding and head.
        pub tied: bool = true,
        /// Biases in norms and the feed-forward network. The backbone has its own switch.
        pub bias: bool = false,
        /// Biases in norms even where `bias` is off.
        pub norm_bias: bool = false,
        /// Multiplies embeddings by sqrt(D).
        pub embed_scale: bool = false,
        pub activation: Activation = Activation::Gelu,
        /// Share of elements set to zero in training, in the embeddings and in what each sublayer adds.
        #[schemars(range(min = 0.0, max = 0.999999))]
        pub dropout: f64 = 0.0,
    }
}

impl Transformer {
    fn norm<'c>(&self, cx: &'c Cx<'c>, name: &str, x: Tensor<'c>) -> Tensor<'c> {
        cx.layer_norm(name, x, self.bias || self.norm_bias)
    }

    /// Where the feed-forward network is normalised.
    fn mlp_norm(&self) -> Norm {
        match self.mlp_norm {
            MlpNorm::Same => self.norm,
            MlpNorm::Pre => Norm::Pre,
            MlpNorm::Post => Norm::Post,
        }
    }

    /// x + f(norm(x)) or norm(x + f(x)), with dropout on f.
    fn sublayer<'c>(
        &self,
        cx: &'c Cx<'c>,
        (name, norm): (&str, Norm),
        x: Tensor<'c>,
        f: impl FnOnce(Tensor<'c>) -> Tensor<'c>,
    ) -> Tensor<'c> {
        let f = |x| cx.dropout(f(x), self.dropout);
        cx.scope(name, || match norm {
            Norm::Pre => x + f(self.norm(cx, "norm", x)),
            Norm::Post => self.norm(cx, "norm", x + f(x)),
        })
    }

    fn feed_forward<'c>(&self, cx: &'c Cx<'c>, x_btd: Tensor<'c>) -> Tensor<'c> {
        let d = self.d_model;
        let d_hidden = if self.d_hidden == 0 { 4 * d } else { self.d_hidden };
        let biased = |name: &str, y| if self.bias { cx.bias(name, y) } else { y };
        let h = biased("b_in", cx.linear("w_in", x_btd, d_hidden));
        let h = match self.activation {
            Activation::Gelu => h.gelu(),
            Activation::Relu => h.relu(),
            Activation::Silu => h.silu(),
        };
        biased("b_out", cx.linear("w_out", h, d))
    }
}

impl Model for Transformer {
    fn forward<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>) -> Output<'c> {
        let (d, t) = (self.d_model, tokens_bt.dim(1));
        let table = cx.embedding("embedding", cx.vocab(), d);
        let mut x = table.rows(tokens_bt);
        if self.embed_scale {
            x = x * (d as f64).sqrt();
        }
        if self.positions == Positions::Learned {
            x = x + cx.embedding("positions", t, d);
        }
        x = cx.scope("embedding", || cx.dropout(x, self.dropout));
        let positions = (self.positions == Positions::Rope).then(|| cx.positions(x));

        for layer in 0..self.layers {
            x = cx.scope(&format!("layers.{layer}"), || {
                let x = self.sublayer(cx, ("attention", self.norm), x, |x| cx.attention(x, positions));
                self.sublayer(cx, ("mlp", self.mlp_norm()), x, |x| self.feed_forward(cx, x))
            });
        }
        // A block that ends in a norm has normalised what it returns.
        let hidden = if self.mlp_norm() == Norm::Pre { self.norm(cx, "norm", x) } else { x };
        let head = if self.tied { table } else { cx.embedding("head", cx.vocab(), d) };
        Output { hidden, head }
    }
}

component! { model "transformer" => Transformer, "Decoder-only transformer over the run's attention backbone." }
export_plugin!();
