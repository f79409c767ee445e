//! Evals at the end of a run: `train.evals` names them, `[eval.NAME]` holds the options of each.

use figment::Figment;

use super::{Opened, layers};
use crate::Error;
use crate::plugins::{Kind, Registry};

/// Section of their options.
pub(super) const SECTION: &str = "eval";
/// Key that names them.
const NAMES: &str = "train.evals";

/// Whether a key of `--set`, shortened or not, is that of the names.
pub(super) fn is_names(key: &str) -> bool {
    key == NAMES || NAMES.strip_prefix("train.") == Some(key)
}

/// The evals of a run in their order. Names of the wrong type are left to the check of all settings.
pub(super) fn open(figment: &Figment, registry: &Registry) -> Result<Vec<Opened>, Error> {
    let names: Vec<String> = figment.extract_inner(NAMES).unwrap_or_default();
    let mut opened: Vec<Opened> = Vec::new();
    for name in names {
        let refuse = |reason: String| {
            Error::said(format!("{NAMES}: {reason} (from {})", layers::origin(figment, NAMES)))
        };
        let component = registry.find(Kind::Eval, &name).map_err(|error| refuse(error.to_string()))?;
        let short = component.name();
        if opened.iter().any(|other| other.component.name() == short) {
            return Err(refuse(format!(
                "{short} is named twice, and its options are one table; name it once"
            )));
        }
        opened.push(Opened::new(SECTION, component)?);
    }
    Ok(opened)
}
