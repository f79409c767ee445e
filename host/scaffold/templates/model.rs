//! @NAME@: blocks of the run's attention backbone and a gated feed-forward layer, with RMS norms (Llama's block:
//! Touvron et al. 2023, section 2.2).
//!
//! B batch, T tokens, D width, V vocabulary.

use plugin_api::prelude::*;

options! {
    /// Embedding, blocks, norm; the head is the embedding again.
    pub struct @TYPE@ {
        /// Width D.
        #[schemars(range(min = 1))]
        pub d_model: usize = 64,
        /// Blocks.
        #[schemars(range(min = 1))]
        pub layers: usize = 2,
        /// Width of the feed-forward layer; 0 means 3 D.
        pub d_hidden: usize = 0,
    }
}

impl Model for @TYPE@ {
    fn forward<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>) -> Output<'c> {
        let d_hidden = if self.d_hidden == 0 { 3 * self.d_model } else { self.d_hidden };
        let table = cx.embedding("embedding", cx.vocab(), self.d_model);
        let mut x = table.rows(tokens_bt);
        let positions = Some(cx.positions(x));
        for layer in 0..self.layers {
            x = cx.scope(&format!("layers.{layer}"), || {
                // The backbone's parameters go below `layers.N.attention`.
                let mixed = cx.scope("attention", || cx.attention(cx.rms_norm("norm", x), positions));
                let x = x + mixed;
                x + cx.swiglu("mlp", cx.rms_norm("norm", x), d_hidden, 1.0)
            });
        }
        Output { hidden: cx.rms_norm("norm", x), head: table }
    }
}

component! { model "@NAME@" => @TYPE@, "@SUMMARY@" }
export_plugin!();

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_testing::{I32, VOCAB, trace};

    #[test]
    fn an_untrained_model_knows_nothing() {
        let model = @TYPE@ { d_model: 8, ..@TYPE@::default() };
        let inputs = [("tokens", I32, &[1, 4][..]), ("targets", I32, &[1, 4][..])];
        let traced = trace(&inputs, |cx, x| vec![model.train(cx, x[0], x[1]).token_losses]).unwrap();
        assert_eq!(traced.dims(), [[1, 4]]);
        let text = [("tokens", &[1.0, 2.0, 3.0, 4.0][..]), ("targets", &[2.0, 3.0, 4.0, 5.0][..])];
        // Small weights say little: a loss is close to that of a uniform guess, ln V.
        let guess = (VOCAB as f64).ln();
        for loss in &traced.run(&text).unwrap().outputs[0] {
            assert!((loss - guess).abs() < 0.3, "{loss} beside {guess}");
        }
    }
}
