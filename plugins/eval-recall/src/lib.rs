//! The questions of the stories: whether a model gives the answer to a question about an earlier fact, token by token the
//! most probable one, and what the answer costs.

use plugin_api::eval::{Answer, From, Scored, Scoring, Text};
use plugin_api::prelude::*;

options! {
    /// Answers about earlier facts, beside the chance of a guess.
    pub struct Recall {
        /// Texts at most; 0 for as many as the run evaluates.
        pub texts: usize = 0,
        /// Whether memories learn from a story while it is read.
        pub learn: bool = true,
    }
}

/// Texts that are asked for at once, so that progress can be told.
const GROUP: usize = 64;

/// An answer: what was asked, whether it was right, its price in bits for each byte, the chance of a guess.
struct Given {
    kind: String,
    is_right: bool,
    bits: f64,
    chance: f64,
}

impl Eval for Recall {
    fn run(&self, model: &Trained<'_>) -> Result<Vec<Metric>, String> {
        let limit = [self.texts, model.facts()?.limit].into_iter().filter(|limit| *limit > 0).min();
        let texts = model.texts(limit.unwrap_or(0))?;
        if texts.iter().all(|text| text.answers.is_empty()) {
            return Err("the run's data has no questions: recall needs the embedded stories".into());
        }
        let mut given = Vec::new();
        for (at, group) in texts.chunks(GROUP).enumerate() {
            let scoring = |text: &Text| Scoring {
                context: Vec::new(),
                text: text.tokens.clone(),
                from: From::Reset,
                learn: self.learn,
            };
            let scored = model.score(&group.iter().map(scoring).collect::<Vec<_>>())?;
            for (text, scored) in group.iter().zip(&scored) {
                given.extend(text.answers.iter().map(|answer| judged(answer, scored)));
            }
            if !model.progress(at * GROUP + group.len(), texts.len())? {
                break;
            }
        }
        let mut metrics = vec![accuracy("accuracy", given.iter())];
        for kind in ["who", "where"] {
            let of_kind = || given.iter().filter(|answer| answer.kind == kind);
            if of_kind().next().is_some() {
                metrics.push(accuracy(&format!("accuracy.{kind}"), of_kind()));
            }
        }
        let percent: Vec<f64> = given.iter().map(|answer| 100.0 * answer.chance).collect();
        metrics.push(Metric::mean("chance", &percent, "%"));
        let bits: Vec<f64> = given.iter().map(|answer| answer.bits).collect();
        metrics.push(Metric::mean("bits_per_byte", &bits, "bits/byte"));
        Ok(metrics)
    }
}

/// Prices begin with that of the second token.
fn judged(answer: &Answer, scored: &Scored) -> Given {
    let span = answer.start - 1..answer.end - 1;
    let nats: f64 = scored.losses[span.clone()].iter().sum();
    Given {
        kind: answer.kind.clone(),
        is_right: scored.best[span.clone()].iter().all(|best| *best),
        bits: nats / std::f64::consts::LN_2 / span.len() as f64,
        chance: answer.chance,
    }
}

fn accuracy<'g>(name: &str, given: impl Iterator<Item = &'g Given>) -> Metric {
    let right: Vec<bool> = given.map(|answer| answer.is_right).collect();
    Metric::share(name, right.iter().filter(|right| **right).count(), right.len())
}

component! { eval "recall" => Recall, "Answers to the questions of the stories." }
export_plugin!();
