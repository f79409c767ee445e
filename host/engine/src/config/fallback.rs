//! The second optimizer of a run: what the first one's option `fallback` names, for parameters that it does not take.
//!
//! Any optimizer may have the option; its own options stand beside the first one's, in `[optimizer.NAME]`.

use figment::Figment;
use serde_json::Value;

use super::{Chosen, Opened, layers};
use crate::Error;
use crate::plugins::{Kind, Registry};

/// Option that names the fallback.
const NAME: &str = "fallback";
/// Option that holds its learning rate as a factor of the schedule's; 1 where there is none.
const RATE: &str = "fallback_lr";

/// An optimizer for what the run's own does not take.
#[derive(Clone)]
pub struct Fallback {
    pub chosen: Chosen,
    /// Learning rate as a factor of the schedule's.
    pub rate: f64,
}

/// Whether a key of `--set`, shortened or not, is that of a fallback's name.
pub(super) fn is_name(key: &str) -> bool {
    key.rsplit('.').next() == Some(NAME)
}

/// The fallback's learning rate by the options of the run's optimizer.
pub(super) fn rate(optimizer: &Chosen) -> f64 {
    optimizer.options.get(RATE).and_then(Value::as_f64).unwrap_or(1.0)
}

/// The fallback of `optimizer`, if that has the option. A name of the wrong type is left to the check of all options.
pub(super) fn open(
    figment: &Figment,
    optimizer: &Opened,
    registry: &Registry,
) -> Result<Option<Opened>, Error> {
    let Some(option) = optimizer.schema.pointer(&format!("/properties/{NAME}")) else { return Ok(None) };
    let own = optimizer.component.name();
    let key = format!("{}.{own}.{NAME}", optimizer.section);
    let name = match figment.find_value(&key) {
        Ok(value) => value.into_string(),
        Err(_) => option.get("default").and_then(Value::as_str).map(str::to_string),
    };
    let Some(name) = name else { return Ok(None) };
    let refuse =
        |reason: String| Error::said(format!("{key}: {reason} (from {})", layers::origin(figment, &key)));
    if name.rsplit('/').next() == Some(own.as_str()) {
        return Err(refuse(format!(
            "{own} cannot be its own fallback; name an optimizer that takes all parameters"
        )));
    }
    let component = registry.find(Kind::Optimizer, &name).map_err(|error| refuse(error.to_string()))?;
    Opened::new(optimizer.section, component).map(Some)
}
