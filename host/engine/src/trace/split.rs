//! Who updates which parameters, and in which layout: what the run's optimizer says of each role, then its fallback.

use std::collections::BTreeMap;

use abi_stable::std_types::RBox;
use plugin_api::abi::{OptimizerObject_TO, layout};

use super::banks::{Banks, Parameter, Place, role_name};
use crate::Error;
use crate::config::Chosen;

/// An optimizer that is ready to be traced.
pub(super) struct Ready<'t> {
    pub chosen: &'t Chosen,
    pub object: OptimizerObject_TO<'static, RBox<()>>,
    /// Its learning rate as a factor of the schedule's.
    pub rate: f64,
}

impl<'t> Ready<'t> {
    pub fn new(chosen: &'t Chosen, rate: f64) -> Result<Ready<'t>, Error> {
        Ok(Ready { chosen, object: chosen.component.optimizer(&chosen.options)?, rate })
    }

    fn name(&self) -> String {
        self.chosen.component.name()
    }

    /// Its layout for each role of `parameters`.
    fn layouts(&self, parameters: &[Parameter]) -> Result<BTreeMap<u8, u8>, Error> {
        let mut layouts = BTreeMap::new();
        for role in parameters.iter().map(|parameter| parameter.role) {
            if layouts.contains_key(&role) {
                continue;
            }
            let wanted = self.chosen.component.outcome(self.object.layout(role))?;
            if ![layout::FLAT, layout::STACKED, layout::NOT_TAKEN].contains(&wanted) {
                return Err(Error::said(format!(
                    "optimizer {} wants {} parameters in layout number {wanted}, which this host does not know",
                    self.name(),
                    role_name(role)
                )));
            }
            layouts.insert(role, wanted);
        }
        Ok(layouts)
    }
}

/// Where a parameter goes whose role has this layout; None if it is not taken.
fn place(parameter: &Parameter, wanted: u8, by_fallback: bool) -> Option<Place> {
    let role = parameter.role;
    match (wanted, &parameter.dims[..]) {
        (layout::FLAT, _) => Some(Place { role, by_fallback, matrix: None }),
        (layout::STACKED, [rows, rest @ ..]) if !rest.is_empty() => {
            Some(Place { role, by_fallback, matrix: Some([*rows, rest.iter().product()]) })
        }
        _ => None,
    }
}

/// The banks of all parameters.
pub(super) fn split(
    own: &Ready<'_>,
    fallback: Option<&Ready<'_>>,
    parameters: Vec<Parameter>,
) -> Result<Banks, Error> {
    let owns = own.layouts(&parameters)?;
    let theirs = fallback.map(|fallback| fallback.layouts(&parameters)).transpose()?;
    let mut placed = Vec::new();
    for parameter in parameters {
        let by_fallback = || place(&parameter, *theirs.as_ref()?.get(&parameter.role)?, true);
        let found = owns.get(&parameter.role).and_then(|wanted| place(&parameter, *wanted, false));
        let Some(place) = found.or_else(by_fallback) else {
            let (name, role) = (own.name(), role_name(parameter.role));
            let left =
                format!("optimizer {name} does not take {} ({role} {:?})", parameter.path, parameter.dims);
            return Err(Error::said(match fallback {
                Some(fallback) => {
                    let other = fallback.name();
                    format!(
                        "{left}, nor does its fallback {other}; set optimizer.{name}.fallback to one that does"
                    )
                }
                None => format!(
                    "{left} and has no option `fallback` to name one that does; choose another optimizer"
                ),
            }));
        };
        placed.push((place, parameter));
    }
    Ok(Banks::new(placed))
}
