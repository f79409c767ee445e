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

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::abi::role;

    fn parameter(path: &str, role: u8, dims: &[usize]) -> Parameter {
        Parameter { path: path.into(), dims: dims.to_vec(), role, init: 0, init_argument: 0.0 }
    }

    #[test]
    fn a_stacked_parameter_is_a_matrix_or_not_taken() {
        let matrix = |dims: &[usize]| {
            let found = place(&parameter("w", role::MATRIX, dims), layout::STACKED, false);
            found.map(|place| place.matrix)
        };
        assert_eq!(matrix(&[8, 3]), Some(Some([8, 3])));
        assert_eq!(matrix(&[8, 1, 4, 2]), Some(Some([8, 8])), "a filter is its first axis and the rest");
        assert_eq!((matrix(&[8]), matrix(&[])), (None, None));
        assert_eq!(place(&parameter("w", role::MATRIX, &[8, 3]), layout::NOT_TAKEN, false), None);
    }

    #[test]
    fn banks_hold_one_shape_or_one_role() {
        let all = [
            (parameter("norm", role::GAIN, &[6]), layout::FLAT, true),
            (parameter("a", role::MATRIX, &[4, 6]), layout::STACKED, false),
            (parameter("b", role::MATRIX, &[6, 4]), layout::STACKED, false),
            (parameter("filter", role::MATRIX, &[4, 2, 3]), layout::STACKED, false),
            (parameter("vector", role::MATRIX, &[5]), layout::FLAT, true),
        ];
        let placed = all.map(|(parameter, wanted, by_fallback)| {
            (place(&parameter, wanted, by_fallback).expect("it is taken"), parameter)
        });
        let banks = Banks::new(placed);
        let found: Vec<_> = banks
            .banks
            .iter()
            .map(|bank| (bank.state(), bank.ty().dims, bank.place.by_fallback, bank.offsets.clone()))
            .collect();
        assert_eq!(
            found,
            [
                ("parameters.matrix.4x6".to_string(), vec![2, 4, 6], false, vec![0, 24]),
                ("parameters.matrix.6x4".to_string(), vec![1, 6, 4], false, vec![0]),
                ("parameters.matrix".to_string(), vec![5], true, vec![0]),
                ("parameters.gain".to_string(), vec![6], true, vec![0]),
            ]
        );
    }
}
