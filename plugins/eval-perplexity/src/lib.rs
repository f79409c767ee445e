//! Bits per byte of validation texts, each read from its first token to its last with all that came before it as context.

use plugin_api::eval::{From, Scoring};
use plugin_api::prelude::*;

options! {
    /// The price of validation texts.
    pub struct Perplexity {
        /// Texts at most; 0 for as many as the run evaluates.
        pub texts: usize = 0,
        /// Whether memories learn from a text while it is read.
        pub learn: bool = true,
    }
}

/// Texts that are asked for at once, so that progress can be told.
const GROUP: usize = 64;

impl Eval for Perplexity {
    fn run(&self, model: &Trained<'_>) -> Result<Vec<Metric>, String> {
        let limit = [self.texts, model.facts()?.limit].into_iter().filter(|limit| *limit > 0).min();
        let texts = model.texts(limit.unwrap_or(0))?;
        let (mut bits_per_byte, mut nats, mut tokens) = (Vec::new(), 0.0, 0);
        for (at, group) in texts.chunks(GROUP).enumerate() {
            let scoring = |text: &plugin_api::eval::Text| Scoring {
                context: Vec::new(),
                text: text.tokens.clone(),
                from: From::Reset,
                learn: self.learn,
            };
            let scored = model.score(&group.iter().map(scoring).collect::<Vec<_>>())?;
            for (text, scored) in group.iter().zip(scored) {
                let cost: f64 = scored.losses.iter().sum();
                bits_per_byte.push(cost / std::f64::consts::LN_2 / text.bytes.max(1) as f64);
                nats += cost;
                tokens += scored.losses.len();
            }
            if !model.progress(at * GROUP + group.len(), texts.len())? {
                break;
            }
        }
        let bits = Metric::mean("bits_per_byte", &bits_per_byte, "bits/byte");
        let per_token = (nats / tokens.max(1) as f64).exp();
        // The interval of bits carries over where a token is always as many bytes.
        let scale = |bound: f64| per_token.powf(bound / bits.value);
        let perplexity = Metric {
            name: "perplexity".into(),
            value: per_token,
            n: bits.n,
            low: scale(bits.low),
            high: scale(bits.high),
            unit: String::new(),
        };
        Ok(vec![bits, perplexity])
    }
}

component! { eval "perplexity" => Perplexity, "Bits per byte of validation texts." }
export_plugin!();
