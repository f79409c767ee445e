//! Whole models: the real plugin, traced by the engine, with the parameters of the case.

use engine::config::Chosen;
use engine::plugins::{Kind, Registry};
use engine::trace::{Window, loss_alone};
use graph::interp::Tensor;
use serde_json::{Value as Json, json};

use super::file::{Case, Golden};
use super::{Device, Stop, Value, Values};

/// Loss, gradients and memories of HOPE with attention, under each way in which gradients may pass: `grad_` through
/// reads only, `grad_tw_` through writes, `grad_kvdetach_` with the keys of earlier chunks held fixed.
pub fn hope(case: &Case, device: Device, plugins: &Registry) -> Result<Values, Stop> {
    let mut values = Values::new();
    for (prefix, write_grad, kv_grad) in
        [("grad_", "none", "full"), ("grad_tw_", "full", "full"), ("grad_kvdetach_", "none", "detach")]
    {
        let model = json!({
            "d_model": case.scalars.get("d"), "layers": case.scalars.get("layers"),
            "d_hidden": golden(case, "b0.cms0.w1")?.dims[0], "periods": case.scalars.get("periods"),
            "online_chunk": case.scalars.get("online_chunk"), "memory_lr": case.scalars.get("cms_lr"),
            "teach_scale": case.scalars.get("teach_scale"), "teach_norm": "chunk", "write_grad": write_grad,
            "rope": false, "form": "dense",
        });
        let attention = json!({ "heads": case.scalars.get("heads"), "kv_grad": kv_grad });
        for (name, value) in once(case, device, plugins, (model, attention))? {
            match name.strip_prefix("gradient.") {
                Some(of) => collect(&mut values, &format!("{prefix}{of}"), value),
                None if prefix == "grad_" => collect(&mut values, &name, value),
                None => {}
            }
        }
    }
    Ok(values)
}

/// Outputs under the names of the case. A gradient of queries, keys or values is a part of that of `qkv`.
fn once(
    case: &Case,
    device: Device,
    plugins: &Registry,
    (model, attention): (Json, Json),
) -> Result<Values, Stop> {
    let broken = |error: engine::Error| Stop::Broken(error.to_string());
    let chosen = |kind, name, options: &Json| -> Result<Chosen, Stop> {
        let component = plugins.find(kind, name).map_err(broken)?;
        let options = component.resolve(options).map_err(broken)?;
        Ok(Chosen { component, options })
    };
    let tokens = golden(case, "tokens")?;
    let (batch, length) = (tokens.dims[0], tokens.dims[1] - 1);
    let window = Window { vocab: golden(case, "E")?.dims[0], batch, tokens: length };
    let model = chosen(Kind::Model, "hope", &model)?;
    let attention = chosen(Kind::Attention, "full", &attention)?;
    let graph = loss_alone(plugins, &model, &attention, window).map_err(broken)?.graph;
    let mut inputs = Vec::new();
    for decl in &graph.inputs {
        let shifted = |by: usize| -> Vec<f64> {
            tokens.data.chunks(length + 1).flat_map(|row| row[by..by + length].iter().copied()).collect()
        };
        let data = match decl.name.as_str() {
            "tokens" => shifted(0),
            "targets" => shifted(1),
            path => {
                let (name, part) = named(path);
                let whole = &golden(case, &name)?.data;
                match part {
                    Some(part) => whole[part * decl.ty.elements()..][..decl.ty.elements()].to_vec(),
                    None => whole.clone(),
                }
            }
        };
        inputs.push(Tensor { ty: decl.ty.clone(), data });
    }
    let outputs = device.load(&graph)?.run(&inputs).map_err(Stop::Broken)?;
    let mut results: Vec<_> = graph
        .outputs
        .iter()
        .zip(outputs)
        .map(|(decl, tensor)| {
            let (name, part) = match (decl.name.strip_prefix("gradient."), decl.name.strip_prefix("memory."))
            {
                (Some(path), _) => (format!("gradient.{}", named(path).0), named(path).1),
                (_, Some(path)) => (format!("fast.{}", named(path).0), None),
                _ => (decl.name.clone(), None),
            };
            (part, name, Value { dims: tensor.ty.dims, data: tensor.data })
        })
        .collect();
    results.sort_by_key(|(part, _, _)| *part);
    Ok(results.into_iter().map(|(_, name, value)| (name, value)).collect())
}

/// The case's name of a parameter, and which third of it the parameter is.
fn named(path: &str) -> (String, Option<usize>) {
    let mut name = path.replace("layers.", "b").replace(".cms.", ".cms");
    for (ours, theirs) in [
        (".attention.wo", ".o"),
        (".gain", ".ln_w"),
        (".shift", ".ln_b"),
        (".norm.ln_w", ".ln1_w"),
        (".norm.bias", ".ln1_b"),
    ] {
        name = name.strip_suffix(ours).map(|head| format!("{head}{theirs}")).unwrap_or(name);
    }
    for (part, ours) in [".attention.wq", ".attention.wk", ".attention.wv"].into_iter().enumerate() {
        if let Some(head) = name.strip_suffix(ours) {
            return (format!("{head}.qkv"), Some(part));
        }
    }
    match name.as_str() {
        "embedding" => ("E".into(), None),
        "norm.ln_w" => ("lnf_w".into(), None),
        "norm.bias" => ("lnf_b".into(), None),
        _ => (name, None),
    }
}

fn golden<'c>(case: &'c Case, name: &str) -> Result<&'c Golden, Stop> {
    case.tensors.get(name).ok_or_else(|| Stop::Broken(format!("the case has no tensor {name}")))
}

/// Adds a value; parts of one tensor come in order and are joined along the first axis.
fn collect(values: &mut Values, name: &str, value: Value) {
    match values.iter_mut().find(|(known, _)| known == name) {
        Some((_, whole)) => {
            whole.dims[0] += value.dims[0];
            whole.data.extend(value.data);
        }
        None => values.push((name.to_string(), value)),
    }
}
