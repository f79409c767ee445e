//! @NAME@: how often the next token of a held-out text is the one that the model finds most probable.

use plugin_api::eval::{From, Scoring, Text};
use plugin_api::prelude::*;

options! {
    /// Accuracy of the next token at the beginnings of held-out texts.
    pub struct @TYPE@ {
        /// Tokens of a text that are read, from its first.
        #[schemars(range(min = 2))]
        pub tokens: usize = 64,
        /// Whether memories learn from a text while it is read.
        pub learn: bool = true,
    }
}

/// Texts that are asked for at once: the host reads them side by side, and progress is told after each group.
const GROUP: usize = 64;

impl Eval for @TYPE@ {
    fn run(&self, model: &Trained<'_>) -> Result<Vec<Metric>, String> {
        let scoring = |text: &Text| Scoring {
            context: Vec::new(),
            text: text.tokens.iter().copied().take(self.tokens).collect(),
            from: From::Reset,
            learn: self.learn,
        };
        // As many as `--limit` says; 0 is as many as the run evaluates.
        let texts = model.texts(model.facts()?.limit)?;
        let mut percents = Vec::new();
        for group in texts.chunks(GROUP) {
            // The first token has nothing before it and no price, so a text of n tokens has n - 1.
            for scored in model.score(&group.iter().map(scoring).collect::<Vec<_>>())? {
                let right = scored.best.iter().filter(|best| **best).count();
                percents.push(100.0 * right as f64 / scored.best.len().max(1) as f64);
            }
            if !model.progress(percents.len(), texts.len())? {
                break;
            }
        }
        // Tokens of one text depend on each other, texts do not: the interval is that over texts.
        Ok(vec![Metric::mean("accuracy", &percents, "%")])
    }
}

component! { eval "@NAME@" => @TYPE@, "@SUMMARY@" }
export_plugin!();

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_testing::Scripted;

    #[test]
    fn right_is_what_the_model_expects() {
        // A model that expects every letter to be followed by the next one of the alphabet.
        let price = |before: &[i32], token: i32| match before.last() == Some(&(token - 1)) {
            true => (0.1, true),
            false => (3.0, false),
        };
        let model = Scripted::new(&["abcde", "abcxz"], &price);
        let metrics = @TYPE@ { tokens: 5, ..@TYPE@::default() }.run(&model.trained()).unwrap();
        assert_eq!((metrics[0].value, metrics[0].n), (75.0, 2));
        let metrics = @TYPE@ { tokens: 3, ..@TYPE@::default() }.run(&model.trained()).unwrap();
        assert_eq!(metrics[0].value, 100.0);
    }
}
