//! Whole models: the real plugin, traced by the engine, with the parameters of the case.

use engine::config::Chosen;
use engine::plugins::{Kind, Registry};
use engine::trace::{Window, loss_alone};
use graph::interp::Tensor;
use serde_json::{Value as Json, json};

use super::file::{Case, Golden};
use super::{Device, Stop, Value, Values, plans};

/// How the case of a model is computed.
pub type Run = fn(&Case, Device, &Registry) -> Result<Values, Stop>;

/// A model and its backbone, ready to be traced.
pub struct Subject<'p> {
    pub plugins: &'p Registry,
    pub model: Chosen,
    pub attention: Chosen,
}

/// A transformer whose attention is normalised behind it and whose feed-forward network before it, without positions.
pub fn transformer(case: &Case, device: Device, plugins: &Registry) -> Result<Values, Stop> {
    let model = json!({
        "d_model": case.scalars.get("d"), "layers": case.scalars.get("layers"),
        "d_hidden": golden(case, "b0.w1")?.dims[0], "norm": "post", "mlp_norm": "pre", "norm_bias": true,
        "positions": "none",
    });
    let attention = json!({ "heads": case.scalars.get("heads") });
    let subject = subject(plugins, "transformer", (&model, &attention))?;
    let mut values = Values::new();
    for (name, value) in alone(case, device, &subject)? {
        collect(&mut values, &name.replace("gradient.", "grad_"), value);
    }
    values.push(("logits".into(), plans::logits(case, device, &subject)?));
    values.extend(plans::step(case, device, &subject)?);
    Ok(values)
}

/// Loss, gradients and memories of HOPE with attention, under each way in which gradients may pass: `grad_` through
/// reads only, `grad_tw_` through writes, `grad_kvdetach_` with the keys of earlier chunks held fixed. A step is with the
/// first. What it gives as logits reads without writing, so there is nothing to compare with the logits of the case.
pub fn hope(case: &Case, device: Device, plugins: &Registry) -> Result<Values, Stop> {
    let (mut values, mut stepped) = (Values::new(), Values::new());
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
        let subject = subject(plugins, "hope", (&model, &attention))?;
        for (name, value) in alone(case, device, &subject)? {
            match name.strip_prefix("gradient.") {
                Some(of) => collect(&mut values, &format!("{prefix}{of}"), value),
                None if prefix == "grad_" => collect(&mut values, &name, value),
                None => {}
            }
        }
        if prefix == "grad_" {
            stepped = plans::step(case, device, &subject)?;
        }
    }
    values.extend(stepped);
    Ok(values)
}

pub fn broken(error: engine::Error) -> Stop {
    Stop::Broken(error.to_string())
}

/// A component with these options, and its defaults for the rest.
pub fn chosen(plugins: &Registry, kind: Kind, name: &str, options: &Json) -> Result<Chosen, Stop> {
    let component = plugins.find(kind, name).map_err(broken)?;
    let options = component.resolve(options).map_err(broken)?;
    Ok(Chosen { component, options })
}

fn subject<'p>(
    plugins: &'p Registry,
    model: &str,
    (options, attention): (&Json, &Json),
) -> Result<Subject<'p>, Stop> {
    let model = chosen(plugins, Kind::Model, model, options)?;
    Ok(Subject { plugins, model, attention: chosen(plugins, Kind::Attention, "full", attention)? })
}

/// Tokens and targets of the case are one sequence: `[B, T]` of it, from the token at `by`.
pub fn shifted(case: &Case, by: usize) -> Result<Vec<f64>, Stop> {
    let (tokens, Window { tokens: length, .. }) = (golden(case, "tokens")?, window(case)?);
    Ok(tokens.data.chunks(length + 1).flat_map(|row| row[by..by + length].iter().copied()).collect())
}

pub fn window(case: &Case) -> Result<Window, Stop> {
    let dims = &golden(case, "tokens")?.dims;
    Ok(Window { vocab: golden(case, "E")?.dims[0], batch: dims[0], tokens: dims[1] - 1 })
}

/// What the case has for a parameter of so many elements.
pub fn parameter<'c>(case: &'c Case, path: &str, elements: usize) -> Result<&'c [f64], Stop> {
    let (name, part) = named(path);
    let whole = &golden(case, &name)?.data;
    Ok(part.map_or(whole, |part| &whole[part * elements..][..elements]))
}

/// Outputs under the names of the case. A gradient of queries, keys or values is a part of that of `qkv`.
fn alone(case: &Case, device: Device, subject: &Subject<'_>) -> Result<Values, Stop> {
    let traced = loss_alone(subject.plugins, &subject.model, &subject.attention, window(case)?);
    let graph = traced.map_err(broken)?.graph;
    let mut inputs = Vec::new();
    for decl in &graph.inputs {
        let data = match decl.name.as_str() {
            "tokens" => shifted(case, 0)?,
            "targets" => shifted(case, 1)?,
            path => parameter(case, path, decl.ty.elements())?.to_vec(),
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
pub fn named(path: &str) -> (String, Option<usize>) {
    let mut name = path.replace("layers.", "b").replace(".cms.", ".cms");
    for (ours, theirs) in [
        (".attention.norm.gain", ".ln1_w"),
        (".attention.norm.bias", ".ln1_b"),
        (".mlp.norm.gain", ".ln2_w"),
        (".mlp.norm.bias", ".ln2_b"),
        (".mlp.w_in", ".w1"),
        (".mlp.w_out", ".w2"),
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

pub fn golden<'c>(case: &'c Case, name: &str) -> Result<&'c Golden, Stop> {
    case.tensors.get(name).ok_or_else(|| Stop::Broken(format!("the case has no tensor {name}")))
}

/// Adds a value; parts of one tensor come in order and are joined along the first axis.
pub fn collect(values: &mut Values, name: &str, value: Value) {
    match values.iter_mut().find(|(known, _)| known == name) {
        Some((_, whole)) => {
            whole.dims[0] += value.dims[0];
            whole.data.extend(value.data);
        }
        None => values.push((name.to_string(), value)),
    }
}
