//! Optimizers: the real plugin, traced by the engine as in a run, takes the steps of the case.

use engine::config::Chosen;
use engine::plugins::{Kind, Registry};
use engine::trace::{Bank, Banks, Parameter, banks_alone, update_alone};
use graph::interp::Tensor;
use plugin_api::abi::{init, role};
use serde_json::{Map, Value as Json};

use super::file::{Case, Golden};
use super::{Device, Stop, Value, Values};

/// Runs the optimizer `name` over the gradients of the case and returns parameters and states after each step.
///
/// All tensors of a case are parameters of the role that every optimizer treats fully: matrices. They lie in the banks
/// that the optimizer asks for: one, or a stack for each shape. Scalars become options of the same name; one that is no option of the plugin says what the plugin does anyway, or the
/// values differ. A state of the case is compared where the plugin has one of that name.
pub fn run(name: &str, case: &Case, device: Device, plugins: &Registry) -> Result<Values, Stop> {
    if !plugins.components(Kind::Optimizer).any(|(_, component)| component.name == name) {
        return Err(Stop::Unsupported(format!("no optimizer plugin {name}")));
    }
    let broken = |error: engine::Error| Stop::Broken(error.to_string());
    let component = plugins.find(Kind::Optimizer, name).map_err(broken)?;
    let schema = component.schema().map_err(broken)?;
    let is_option = |key: &str| schema["properties"].get(key).is_some();
    let options: Map<String, Json> =
        case.scalars.iter().filter(|(key, _)| is_option(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let options = component.resolve(&Json::Object(options)).map_err(broken)?;
    let no_rate = || Stop::Broken("the case has no number \"lr\"".into());
    let lr = case.scalars.get("lr").and_then(Json::as_f64).ok_or_else(no_rate)?;

    let chosen = Chosen { component, options };
    let banks = banks_alone(&chosen, parameters(case)).map_err(broken)?;
    let steps = steps(case, &banks)?;
    let traced = update_alone(plugins, &chosen, &banks).map_err(broken)?;
    let graph = &traced.graph;
    let mut replay = device.load(graph)?;
    for bank in &banks.banks {
        let own = graph.states.iter().enumerate().filter(|(_, decl)| decl.name == bank.state());
        for (index, decl) in own {
            let value = Tensor { ty: decl.ty.clone(), data: gathered(case, bank, "param_init", 0, 1)? };
            replay.write_state(index, &value).map_err(Stop::Broken)?;
        }
    }
    let mut values = Values::new();
    for step in 0..steps {
        let mut inputs = Vec::new();
        for decl in &graph.inputs {
            let gradient_of = decl.name.strip_prefix("gradient.");
            let bank = banks.banks.iter().find(|bank| gradient_of == Some(&bank.name()));
            let data = match (traced.scalars.get(&decl.name), bank) {
                (Some(scalar), _) => vec![scalar.value(lr, step as u64 + 1)],
                (None, Some(bank)) => gathered(case, bank, "grads", step, steps)?,
                (None, None) => return Err(Stop::Broken(format!("nothing feeds input {}", decl.name))),
            };
            inputs.push(Tensor { ty: decl.ty.clone(), data });
        }
        replay.run(&inputs).map_err(Stop::Broken)?;
        for (decl, state) in graph.states.iter().zip(replay.states().map_err(Stop::Broken)?) {
            for bank in &banks.banks {
                append(&mut values, bank, &decl.name, &state, steps);
            }
        }
    }
    Ok(values)
}

/// `NAME_param_init` of the case as parameters NAME.
fn parameters(case: &Case) -> Vec<Parameter> {
    let parameters = case.tensors.iter().filter_map(|(name, golden)| {
        let path = name.strip_suffix("_param_init")?.to_string();
        let (role, init) = (role::MATRIX, init::CONSTANT);
        Some(Parameter { path, dims: golden.dims.clone(), role, init, init_argument: 0.0 })
    });
    parameters.collect()
}

fn tensor<'c>(case: &'c Case, name: &str) -> Result<&'c Golden, Stop> {
    let missing = || Stop::Broken(format!("the case has no tensor {name}"));
    case.tensors.get(name).ok_or_else(missing)
}

/// Steps of the case, where all gradients are of so many steps and of their parameter's shape.
fn steps(case: &Case, banks: &Banks) -> Result<usize, Stop> {
    let mut steps = None;
    for Parameter { path, dims, .. } in banks.parameters() {
        let name = format!("{path}_grads");
        let found = &tensor(case, &name)?.dims;
        let steps = *steps.get_or_insert(found.first().copied().unwrap_or(0));
        let wanted = [&[steps], &dims[..]].concat();
        if *found != wanted {
            return Err(Stop::Broken(format!("{name} is {found:?}, not {wanted:?}")));
        }
    }
    steps.ok_or_else(|| Stop::Broken("the case has no tensor NAME_param_init".into()))
}

/// Elements of a bank at one step, from the tensors `NAME_SUFFIX` of its parameters NAME, `[steps, ...]` each.
fn gathered(case: &Case, bank: &Bank, suffix: &str, step: usize, steps: usize) -> Result<Vec<f64>, Stop> {
    let mut data = Vec::new();
    for parameter in &bank.parameters {
        data.extend(row(tensor(case, &format!("{}_{suffix}", parameter.path))?, step, steps));
    }
    Ok(data)
}

/// Elements of one step of `[steps, ...]`.
fn row(golden: &Golden, step: usize, steps: usize) -> &[f64] {
    let length = golden.data.len() / steps.max(1);
    &golden.data[step * length..(step + 1) * length]
}

/// Adds a State after a step to the values `NAME_params` or `NAME_STATE` of each parameter. States that do not follow
/// the layout of their bank belong to no parameter.
fn append(values: &mut Values, bank: &Bank, state: &str, value: &Tensor, steps: usize) {
    let moment = state.strip_prefix(&format!("optimizer.{}.", bank.name()));
    let suffix = if state == bank.state() { Some("params") } else { moment };
    let (Some(suffix), true) = (suffix, value.data.len() == bank.elements) else { return };
    for (parameter, range) in bank.slices() {
        let name = format!("{}_{suffix}", parameter.path);
        let known = values.iter().position(|(known, _)| *known == name);
        let index = known.unwrap_or_else(|| {
            let dims = [&[steps], &parameter.dims[..]].concat();
            values.push((name, Value { dims, data: Vec::new() }));
            values.len() - 1
        });
        values[index].1.data.extend(&value.data[range]);
    }
}
