//! Learning-rate factors: each output of the case is named after a schedule of the engine.

use engine::config::{ScheduleKind, Train};
use engine::run::learning_rate;

use super::file::Case;
use super::{Device, Stop, Value, Values};

pub fn run(case: &Case, device: Device) -> Result<Values, Stop> {
    let number = |key: &str| {
        let number = case.scalars.get(key).and_then(serde_json::Value::as_f64);
        number.ok_or_else(|| Stop::Broken(format!("the case has no number {key:?}")))
    };
    let (total, warmup) = (number("total_steps")?, number("warmup")?);
    let (decay, final_lr) = (number("decay_steps")? / total, number("min_ratio")?);
    let no_steps = || Stop::Broken("the case has no tensor step".into());
    let steps = case.tensors.get("step").ok_or_else(no_steps)?;
    let mut values = Values::new();
    for (name, golden) in case.wanted() {
        let schedule: ScheduleKind = serde_json::from_value(name.into())
            .map_err(|_| Stop::Broken(format!("the engine has no schedule {name}")))?;
        let train = Train { lr: 1.0, warmup: warmup as u64, schedule, final_lr, decay, ..Train::default() };
        let rate = |step: &f64| {
            // The case counts steps from 1.
            let rate = learning_rate(&train, (*step as u64).saturating_sub(1), total as u64);
            // A compiled plan gets it as an f32.
            if device == Device::Interpreter { rate } else { f64::from(rate as f32) }
        };
        let data = steps.data.iter().map(rate).collect();
        values.push((name.into(), Value { dims: golden.dims.clone(), data }));
    }
    Ok(values)
}
