//! The plans of a run over the model of a case, as the engine traces them, with the parameters of the case in the banks.

use std::collections::BTreeMap;

use engine::config::{Chosen, Resolved, Settings};
use engine::plugins::Kind;
use engine::trace::{
    Banks, CONTEXT_START, POSITION, Programs, ROWS, STREAM_READ, SessionPrograms, SessionShape, Shape,
};
use graph::Graph;
use graph::interp::Tensor;
use serde_json::{Value as Json, json};

use super::file::Case;
use super::model::{Subject, broken, chosen, collect, named, parameter, shifted, window};
use super::{Device, Stop, Value, Values};
use crate::replay::Replay;

fn resolved(subject: &Subject<'_>, optimizer: Chosen) -> Resolved {
    Resolved {
        settings: Settings::default(),
        model: subject.model.clone(),
        attention: subject.attention.clone(),
        optimizer,
        fallback: None,
        evals: Vec::new(),
        origins: Vec::new(),
    }
}

/// All plans of a run with this optimizer.
fn programs(case: &Case, subject: &Subject<'_>, optimizer: Chosen, clip: f64) -> Result<Programs, Stop> {
    let resolved = resolved(subject, optimizer);
    let window = window(case)?;
    let shape = Shape {
        batch: window.batch,
        window: window.tokens,
        vocab: window.vocab,
        accumulate: 1,
        clip,
        stream: 1,
    };
    Programs::trace(&resolved, subject.plugins, shape).map_err(broken)
}

/// A plan that is ready to run from the parameters of the case.
fn loaded(case: &Case, device: Device, banks: &Banks, graph: &Graph) -> Result<Replay, Stop> {
    let mut replay = device.load(graph)?;
    for bank in &banks.banks {
        let mut data = Vec::new();
        for (of, range) in bank.slices() {
            data.extend(parameter(case, &of.path, range.len())?);
        }
        let states = graph.states.iter().enumerate();
        for (index, decl) in states.filter(|(_, decl)| decl.name == bank.state()) {
            let value = Tensor { ty: decl.ty.clone(), data: data.clone() };
            replay.write_state(index, &value).map_err(Stop::Broken)?;
        }
    }
    Ok(replay)
}

fn program<'p>(programs: &'p Programs, name: &str) -> Result<&'p engine::trace::Program, Stop> {
    programs.find(name).ok_or_else(|| Stop::Broken(format!("the engine has no plan {name}")))
}

/// Logits `[B, T, V]`: of every position, since a session asks for one at a time. Each row is a sequence.
pub fn logits(case: &Case, device: Device, subject: &Subject<'_>) -> Result<Value, Stop> {
    let optimizer = chosen(subject.plugins, Kind::Optimizer, "adamw", &json!({}))?;
    let (resolved, window) = (resolved(subject, optimizer), window(case)?);
    let programs = programs(case, subject, resolved.optimizer.clone(), 0.0)?;
    let shape = SessionShape {
        rows: window.batch,
        capacity: window.tokens,
        width: window.tokens,
        vocab: window.vocab,
    };
    let session =
        SessionPrograms::trace(&resolved, subject.plugins, &programs.banks, shape).map_err(broken)?;
    let read = session.list.iter().find(|program| program.name == "read");
    let graph = &read.ok_or_else(|| Stop::Broken("a session has no plan read".into()))?.graph;
    let mut replay = loaded(case, device, &programs.banks, graph)?;
    let tokens = shifted(case, 0)?;
    let mut rows = vec![Vec::new(); window.batch];
    for position in 0..window.tokens {
        let each = |value: f64| vec![value; window.batch];
        let mut inputs = Vec::new();
        for decl in &graph.inputs {
            let data = match decl.name.as_str() {
                "tokens" | "targets" => tokens.clone(),
                POSITION => each(position as f64),
                CONTEXT_START | STREAM_READ => each(0.0),
                ROWS => each(1.0),
                other => return Err(Stop::Broken(format!("nothing feeds input {other}"))),
            };
            inputs.push(Tensor { ty: decl.ty.clone(), data });
        }
        let outputs = replay.run(&inputs).map_err(Stop::Broken)?;
        let at = graph.outputs.iter().position(|decl| decl.name == "logits");
        let logits = at.map_or(&[][..], |at| &outputs[at].data).chunks(window.vocab);
        rows.iter_mut().zip(logits).for_each(|(row, logits)| row.extend(logits));
    }
    Ok(Value { dims: vec![window.batch, window.tokens, window.vocab], data: rows.concat() })
}

/// A step of training: `loss` and `grad_norm`, parameters `after.NAME`, and `loss_after` of the same tokens with them.
pub fn step(case: &Case, device: Device, subject: &Subject<'_>) -> Result<Values, Stop> {
    let (lr, clip) = (scalar(case, "lr")?.as_f64(), scalar(case, "clip")?.as_f64());
    let (Some(lr), Some(clip)) = (lr, clip) else {
        return Err(Stop::Broken("lr and clip should be numbers".into()));
    };
    let programs = programs(case, subject, adamw(case, subject)?, clip)?;
    let graph = &program(&programs, "step")?.graph;
    let mut replay = loaded(case, device, &programs.banks, graph)?;
    let run = |replay: &mut Replay, step: u64| -> Result<BTreeMap<&str, Value>, Stop> {
        let mut inputs = Vec::new();
        for decl in &graph.inputs {
            let data = match (decl.name.as_str(), programs.scalars.get(&decl.name)) {
                ("tokens", _) => shifted(case, 0)?,
                ("targets", _) => shifted(case, 1)?,
                (_, Some(scalar)) => vec![scalar.value(lr, step)],
                (other, None) => return Err(Stop::Broken(format!("nothing feeds input {other}"))),
            };
            inputs.push(Tensor { ty: decl.ty.clone(), data });
        }
        let outputs = replay.run(&inputs).map_err(Stop::Broken)?;
        let names = graph.outputs.iter().map(|decl| decl.name.as_str());
        let values = outputs.into_iter().map(|tensor| Value { dims: tensor.ty.dims, data: tensor.data });
        Ok(names.zip(values).collect())
    };
    let first = run(&mut replay, 1)?;
    let mut values: Values = first.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let states = replay.states().map_err(Stop::Broken)?;
    let mut parameters = Vec::new();
    for (decl, state) in graph.states.iter().zip(states) {
        for bank in programs.banks.banks.iter().filter(|bank| bank.state() == decl.name) {
            for (of, range) in bank.slices() {
                let (name, part) = named(&of.path);
                let value = Value { dims: of.dims.clone(), data: state.data[range].to_vec() };
                parameters.push((part, format!("after.{name}"), value));
            }
        }
    }
    parameters.sort_by_key(|(part, _, _)| *part);
    parameters.into_iter().for_each(|(_, name, value)| collect(&mut values, &name, value));
    // A step tells the loss before it, so the second one has that after the first.
    let after = run(&mut replay, 2)?.remove("loss");
    values.extend(after.map(|loss| ("loss_after".to_string(), loss)));
    Ok(values)
}

/// AdamW of the case. It decays what has the role of a matrix; of embeddings the case says whether it does.
fn adamw(case: &Case, subject: &Subject<'_>) -> Result<Chosen, Stop> {
    let betas = scalar(case, "betas")?;
    let decay = scalar(case, "decay")?.as_array().map_or(&[][..], |names| names);
    let options = json!({
        "beta1": betas[0], "beta2": betas[1], "eps": scalar(case, "eps")?,
        "weight_decay": scalar(case, "wd")?, "decay_embeddings": decay.iter().any(|name| name == "E"),
    });
    chosen(subject.plugins, Kind::Optimizer, "adamw", &options)
}

fn scalar<'c>(case: &'c Case, key: &str) -> Result<&'c Json, Stop> {
    case.scalars.get(key).ok_or_else(|| Stop::Broken(format!("the case has no scalar {key:?}")))
}
