//! Teach signals, by the library that models of nested learning link.
//!
//! B sequences, T tokens, D width, V vocabulary.

use nested::teach::{Lesson, Schedule, Teach, TeachNorm, surprise};
use plugin_api::{DType, Op, Tensor, attention};

use super::trace::{Given, Outputs};

/// The mean over all tokens with a target, as it is.
const MEAN: Teach = Teach { norm: TeachNorm::Batch, scale: 1.0, clip: 0.0 };

fn layer_norm<'c>(given: &Given<'c>, x: Tensor<'c>, name: &str) -> Tensor<'c> {
    let [gain, shift] = ["w", "b"].map(|part| given.x(&format!("{name}_{part}")));
    given.cx.emit(Op::LayerNorm, &[x, gain, shift], &[], &[1e-5])
}

/// The next token of each, and `last[B, 1]` behind.
fn next_tokens<'c>(given: &Given<'c>, last: Tensor<'c>) -> Tensor<'c> {
    let tokens = given.x("tokens");
    given.cx.concat(&[tokens.slice(1, 1, tokens.dim(1).saturating_sub(1)), last], 1)
}

/// A target that no token has, `[B, 1]`.
fn nothing<'c>(given: &Given<'c>, target: f64) -> Tensor<'c> {
    given.cx.constant(target, DType::I32, &[given.x("tokens").dim(0), 1])
}

/// Losses under the tied head; a negative target is none.
fn lesson<'c>(given: &Given<'c>, hidden: Tensor<'c>, targets: Tensor<'c>) -> Lesson<'c> {
    let zero = given.cx.constant(0.0, DType::I32, &targets.dims());
    let losses_bc = given.cx.linear_cross_entropy(hidden, given.x("E"), targets);
    Lesson { losses_bc, active_bc: Some(1.0 - targets.less(zero).cast(DType::F32)) }
}

pub fn global<'c>(given: &Given<'c>) -> Outputs<'c> {
    let (cx, u) = (given.cx, given.x("u"));
    let ignore_index = given.number("ignore_index");
    let h = layer_norm(given, u, "ln");
    let mut outputs: Outputs<'c> = vec![("logits".into(), h.dot_last(given.x("E")))];
    let boundary = given.x("boundary");
    for (name, last) in
        [("plain", nothing(given, ignore_index)), ("boundary", boundary.reshape(&[boundary.dim(0), 1]))]
    {
        let all = next_tokens(given, last);
        let dims = all.dims();
        let whole = |value| cx.constant(value, DType::I32, &dims);
        let targets = given.x("ignore").equals(whole(1.0)).select(whole(ignore_index), all);
        let lesson = lesson(given, h, targets);
        outputs.push((format!("{name}.targets"), targets));
        outputs.push((format!("{name}.loss"), MEAN.norm.loss(lesson, 1.0)));
        let names = ["delta", "delta_prenorm"].map(|delta| format!("{name}.{delta}"));
        outputs.extend(names.into_iter().zip(MEAN.signals(cx, lesson, None, &[h, u])));
    }
    outputs
}

pub fn layers<'c>(given: &Given<'c>) -> Outputs<'c> {
    let (cx, heads) = (given.cx, given.number("heads") as usize);
    let mut x = given.x("E").rows(given.x("tokens"));
    let width = x.dim(2);
    let (mut names, mut outputs) = (Vec::new(), Vec::new());
    for block in 0..given.number("layers") as usize {
        let weight = |name: &str| given.x(&format!("b{block}.{name}"));
        let projected = x.dot_last(weight("qkv"));
        let [q, k, v] = [0, 1, 2].map(|part| projected.slice(2, part * width, width).split_heads(heads));
        let mixed = attention(q, k, v).merge_heads().dot_last(weight("o"));
        let a = layer_norm(given, x + mixed, &format!("b{block}.ln1"));
        let inner = layer_norm(given, a, &format!("b{block}.ln2")).dot_last(weight("w1")).gelu();
        x = a + inner.dot_last(weight("w2"));
        names.push(format!("delta_l{block}"));
        outputs.push(x);
    }
    let h = layer_norm(given, x, "lnf");
    names.push("delta_head".into());
    outputs.push(h);
    let lesson = lesson(given, h, next_tokens(given, nothing(given, -100.0)));
    let mut results: Outputs<'c> = vec![("loss".into(), MEAN.norm.loss(lesson, 1.0))];
    results.extend(names.into_iter().zip(MEAN.signals(cx, lesson, None, &outputs)));
    results
}

/// The loss is the product of the case's signal with itself held fixed, so the signal is its gradient.
pub fn schedule<'c>(given: &Given<'c>) -> Outputs<'c> {
    let (cx, delta) = (given.cx, given.x("delta"));
    let count = |key| given.number(key) as usize;
    let schedule = Schedule {
        warmup: count("warmup"),
        decay_start: count("decay_start"),
        decay_steps: count("decay_duration"),
    };
    let teach =
        Teach { norm: TeachNorm::Token, scale: given.number("teach_scale"), clip: given.number("clip") };
    let losses_bc = (delta * delta.stop_grad()).sum(&[2]).reshape(&[delta.dim(0), delta.dim(1)]);
    let steps = given.list("steps");
    // A counter as a run has one, and not a constant for each step, of which the factor would be another.
    let counter = cx.range(steps.iter().max().map_or(1, |last| last + 1));
    let (mut factors, mut scaled, mut surprises) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        let factor = schedule.at(counter.slice(0, step, 1).reshape(&[]));
        factors.push(factor.reshape(&[1]));
        for signal in teach.signals(cx, Lesson { losses_bc, active_bc: None }, Some(factor), &[delta]) {
            scaled.push(signal.reshape(&[&[1], &delta.dims()[..]].concat()));
            surprises.push(surprise(signal).reshape(&[1]));
        }
    }
    let joined = |name: &str, parts: Vec<Tensor<'c>>| (name.to_string(), cx.concat(&parts, 0));
    vec![joined("schedule", factors), joined("scaled", scaled), joined("surprise", surprises)]
}
