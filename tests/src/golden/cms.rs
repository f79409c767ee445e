//! Continuum memory systems read token by token, with teach signals that the case gives.

use nested::cms::{Chain, Form, Gate, GateOf, Metric, Rules, Surprise, WriteGrad};
use plugin_api::{DType, Tensor};

use super::trace::{Given, Outputs};

/// What the case calls the parts of a level.
const PARTS: [(&str, &str); 6] =
    [("gain", "ln_w"), ("shift", "ln_b"), ("w1", "w1"), ("b1", "b1"), ("w2", "w2"), ("b2", "b2")];

/// The case's name of a parameter of a level, by its scope.
pub fn named(scope: &str, name: &str) -> Option<String> {
    let level = scope.strip_prefix("cms.")?;
    let (_, theirs) = PARTS.iter().find(|(ours, _)| *ours == name)?;
    Some(format!("l{level}.{theirs}"))
}

/// Levels in sequence. The case has gradients of two kinds, each of a trace of its own.
pub fn sequential<'c>(given: &Given<'c>) -> Outputs<'c> {
    let mut outputs = stream(given, WriteGrad::Full);
    let straight = stream(given, WriteGrad::None);
    let loss = |outputs: &Outputs<'c>| {
        let y = outputs.iter().find(|(name, _)| name == "y").map(|(_, y)| *y);
        y.map(|y| (y * given.x("ct_y")).total())
    };
    if let (Some(through), Some(straight)) = (loss(&outputs), loss(&straight)) {
        for (prefix, loss) in [("grad_tw_", through), ("grad_st_", straight)] {
            let wanted = given.case.wanted().filter_map(|(name, _)| name.strip_prefix(prefix));
            let wanted: Vec<String> = wanted.map(String::from).collect();
            let inputs: Vec<Tensor<'c>> = wanted.iter().map(|name| given.x(name)).collect();
            for (name, gradient) in wanted.iter().zip(given.cx.grad(loss, &inputs)) {
                outputs.push((format!("{prefix}{name}"), gradient));
            }
        }
        outputs.push(("loss".into(), through));
    }
    outputs
}

/// The whole stream, and the parameters at its end and after the flush.
fn stream<'c>(given: &Given<'c>, write_grad: WriteGrad) -> Outputs<'c> {
    let cx = given.cx;
    let [x, delta] = ["x", "delta"].map(|name| given.x(name));
    let periods = given.list("periods");
    let is_task = given.case.scalars.get("delta_mode").and_then(|mode| mode.as_str()) == Some("task");
    let scale = if is_task { 1.0 } else { 2.0 };
    // A token without a signal is out, as a constant of every gradient.
    let threshold = given.optional("gate_threshold").unwrap_or(1e-30);
    let rules = Rules {
        hidden: given.x("l0.w1").dim(0),
        rates: vec![given.number("lr"); periods.len()],
        learn_rates: false,
        retain: 1.0,
        write_grad,
        form: Form::Dense,
        gate: Gate { of: GateOf::Token, metric: Metric::L2, threshold: scale * threshold, relative: false },
        periods,
    };
    let (tokens, width) = (x.dim(1), x.dim(2));
    let mut chain = Chain::new(cx, &rules, tokens);
    let mut ends = Outputs::new();
    let mut read = 0;
    // Calls change nothing: they are where the case looks.
    let calls: Vec<usize> = given
        .list("call_lengths")
        .iter()
        .scan(0, |end, length| {
            *end += length;
            Some(*end)
        })
        .collect();
    let known = Surprise { losses: None, entropy: None, counted: None };
    let y = cx.chunks(&[x, delta], 1, |token| {
        let y = chain.read(token[0]);
        let teach = if is_task {
            let outputs: Vec<Tensor<'c>> = chain.readings().iter().map(|reading| reading.output).collect();
            cx.grad((y * token[1]).total(), &outputs)
        } else {
            vec![token[1] * scale; rules.periods.len()]
        };
        chain.observe(&teach, known);
        read += 1;
        if let Some(call) = calls.iter().position(|end| *end == read) {
            let pending: Vec<f64> = chain.pending().into_iter().map(|tokens| tokens as f64).collect();
            let start = if call == 0 { 0 } else { calls[call - 1] };
            let surprise = nested::teach::surprise(delta.slice(1, start, read - start));
            ends.push((format!("call{}.pending", call + 1), counts(given, &pending)));
            ends.push((format!("call{}.surprise", call + 1), surprise));
        }
        if read == tokens {
            ends.extend(parameters(given, &rules, "end"));
            let stats = |value: fn(&nested::cms::Stats<'c>) -> Option<Tensor<'c>>| {
                let each: Vec<Tensor<'c>> = chain.stats().iter().filter_map(value).collect();
                cx.concat(&each.iter().map(|number| number.reshape(&[1])).collect::<Vec<_>>(), 0)
            };
            ends.push(("writes".into(), stats(|stats| stats.writes).cast(DType::I32)));
            chain.finish(width);
            let flushed: Vec<f64> = chain.stats().iter().map(|stats| stats.pending as f64).collect();
            ends.push(("flushed_tokens".into(), counts(given, &flushed)));
            ends.extend(parameters(given, &rules, "flushed"));
        }
        vec![y]
    });
    ends.push(("y".into(), y[0]));
    ends
}

fn counts<'c>(given: &Given<'c>, numbers: &[f64]) -> Tensor<'c> {
    let each = numbers.iter().map(|number| given.cx.constant(*number, DType::I32, &[1]));
    given.cx.concat(&each.collect::<Vec<_>>(), 0)
}

/// The weights in force, under the names of the case.
fn parameters<'c>(given: &Given<'c>, rules: &Rules, when: &str) -> Outputs<'c> {
    let batch = given.x("x").dim(0);
    let mut list = Outputs::new();
    for level in 0..rules.periods.len() {
        for (ours, theirs) in PARTS {
            let name = format!("l{level}.{theirs}");
            let start = given.x(&name);
            let value = given.cx.scope(&format!("cms.{level}"), || {
                given.cx.fast(ours, start, plugin_api::Lifetime::Stream).value()
            });
            let own = [&[batch], &start.dims()[..]].concat();
            list.push((format!("{when}.{name}"), value.repeat(&own)));
        }
    }
    list
}
