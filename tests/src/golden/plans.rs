//! The plans of a run over the model of a case, as the engine traces them, with the parameters of the case in the banks.

use engine::config::{Chosen, Resolved, Settings};
use engine::plugins::Kind;
use engine::trace::{Programs, Shape};
use graph::interp::Tensor;
use serde_json::json;

use super::file::Case;
use super::model::{Subject, broken, chosen, parameter, shifted, window};
use super::{Device, Stop, Value};
use crate::replay::Replay;

/// All plans of a run with this optimizer.
fn programs(case: &Case, subject: &Subject<'_>, optimizer: Chosen, clip: f64) -> Result<Programs, Stop> {
    let resolved = Resolved {
        settings: Settings::default(),
        model: subject.model.clone(),
        attention: subject.attention.clone(),
        optimizer,
        fallback: None,
        origins: Vec::new(),
    };
    let window = window(case)?;
    let shape =
        Shape { batch: window.batch, window: window.tokens, vocab: window.vocab, accumulate: 1, clip };
    Programs::trace(&resolved, subject.plugins, shape).map_err(broken)
}

/// A plan that is ready to run from the parameters of the case.
fn loaded(case: &Case, device: Device, programs: &Programs, name: &str) -> Result<Replay, Stop> {
    let graph = &program(programs, name)?.graph;
    let mut replay = device.load(graph)?;
    for bank in &programs.banks.banks {
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

/// Logits `[B, T, V]`: of every position of every sequence, since a run asks for one at a time.
pub fn logits(case: &Case, device: Device, subject: &Subject<'_>) -> Result<Value, Stop> {
    let optimizer = chosen(subject.plugins, Kind::Optimizer, "adamw", &json!({}))?;
    let programs = programs(case, subject, optimizer, 0.0)?;
    let graph = &program(&programs, "logits")?.graph;
    let mut replay = loaded(case, device, &programs, "logits")?;
    let window = window(case)?;
    let tokens = shifted(case, 0)?;
    let mut data = Vec::new();
    for sequence in tokens.chunks(window.tokens) {
        for position in 0..window.tokens {
            let mut inputs = Vec::new();
            for decl in &graph.inputs {
                let data = match decl.name.as_str() {
                    "tokens" => sequence.to_vec(),
                    "position" => vec![position as f64],
                    other => return Err(Stop::Broken(format!("nothing feeds input {other}"))),
                };
                inputs.push(Tensor { ty: decl.ty.clone(), data });
            }
            let outputs = replay.run(&inputs).map_err(Stop::Broken)?;
            data.extend(outputs.into_iter().flat_map(|tensor| tensor.data));
        }
    }
    Ok(Value { dims: vec![window.batch, window.tokens, window.vocab], data })
}
