//! Banks: all parameters of one role in one flat State, each a named slice of it.
//!
//! Moments and gradients copy the layout, so an element-wise optimizer is one kernel for a whole role.

use std::collections::BTreeMap;

use plugin_api::abi::role;

/// A trained tensor as the model declared it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// `layers.0.attention.wq`
    pub path: String,
    pub dims: Vec<usize>,
    pub role: u8,
    pub init: u8,
    pub init_argument: f64,
}

/// Parameters of one role, in the order of their declaration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bank {
    pub role: u8,
    pub parameters: Vec<Parameter>,
    /// First element of each parameter.
    pub offsets: Vec<usize>,
    pub elements: usize,
}

/// All banks, by role.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Banks {
    pub banks: Vec<Bank>,
}

impl Parameter {
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

impl Bank {
    /// `matrix`
    pub fn role_name(&self) -> &'static str {
        role::NAMES.get(self.role as usize).copied().unwrap_or("other")
    }

    /// Name of the State that holds the bank.
    pub fn state(&self) -> String {
        format!("parameters.{}", self.role_name())
    }

    /// (parameter, its elements' range in the bank)
    pub fn slices(&self) -> impl Iterator<Item = (&Parameter, std::ops::Range<usize>)> {
        self.parameters.iter().zip(&self.offsets).map(|(p, offset)| (p, *offset..offset + p.elements()))
    }
}

impl Banks {
    pub fn new(parameters: Vec<Parameter>) -> Banks {
        let mut banks: BTreeMap<u8, Bank> = BTreeMap::new();
        for parameter in parameters {
            let role = parameter.role;
            let bank = banks.entry(role).or_insert_with(|| Bank { role, ..Bank::default() });
            bank.offsets.push(bank.elements);
            bank.elements += parameter.elements();
            bank.parameters.push(parameter);
        }
        Banks { banks: banks.into_values().collect() }
    }

    /// Bank and offset of a parameter.
    pub fn find(&self, path: &str) -> Option<(&Bank, usize)> {
        self.banks.iter().find_map(|bank| {
            let index = bank.parameters.iter().position(|parameter| parameter.path == path)?;
            Some((bank, bank.offsets[index]))
        })
    }

    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.banks.iter().flat_map(|bank| &bank.parameters)
    }

    pub fn elements(&self) -> usize {
        self.banks.iter().map(|bank| bank.elements).sum()
    }
}
