//! Cross-entropies: the mean over targets that are not ignored.

use plugin_api::{DType, Tensor};

use super::trace::{Given, Outputs};

/// From logits[N, V], with the z-loss of the case.
pub fn cross_entropy<'c>(given: &Given<'c>) -> Outputs<'c> {
    given.fixed("label_smoothing", 0.0);
    let (logits, targets) = (given.x("logits"), given.x("targets"));
    let losses = given.cx.cross_entropy(logits, targets);
    let losses = losses + logits.logsumexp().square() * given.number("z_weight");
    vec![("loss".into(), active_mean(given, losses, targets))]
}

pub fn linear_cross_entropy<'c>(given: &Given<'c>) -> Outputs<'c> {
    let targets = given.x("targets");
    let losses = given.cx.linear_cross_entropy(given.x("x"), given.x("W"), targets);
    vec![("loss".into(), active_mean(given, losses, targets))]
}

/// Sum of the losses whose target is not the ignored id, over their number or 1. Any id may be the ignored one, while
/// the losses themselves leave out only those outside the vocabulary.
fn active_mean<'c>(given: &Given<'c>, losses: Tensor<'c>, targets: Tensor<'c>) -> Tensor<'c> {
    let constant = |value: f64| given.cx.constant(value, DType::F32, &targets.dims());
    let ignored = given.cx.constant(given.number("ignore_index"), DType::I32, &targets.dims());
    let ignored = targets.equals(ignored);
    let count = ignored.select(constant(0.0), constant(1.0)).total();
    let one = given.cx.constant(1.0, DType::F32, &[]);
    ignored.select(constant(0.0), losses).total() / count.max(one)
}
