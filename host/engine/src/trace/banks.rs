//! Banks: parameters that are updated together in one State, each a named slice of it.
//!
//! A bank is flat and holds a role, or it is a stack of the matrices of one shape. Moments and gradients copy the layout,
//! so an element-wise optimizer is one kernel for a whole role, and one of matrices a batch of products for each shape.

use std::collections::BTreeMap;

use graph::{DType, Ty};
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

/// What parameters of one bank have in common. The order of banks is theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub role: u8,
    /// Updated by the fallback and not by the run's optimizer.
    pub by_fallback: bool,
    /// Rows and columns, where the bank is a stack of matrices.
    pub matrix: Option<[usize; 2]>,
}

/// Parameters of one place, in the order of their declaration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bank {
    pub place: Place,
    pub parameters: Vec<Parameter>,
    /// First element of each parameter.
    pub offsets: Vec<usize>,
    pub elements: usize,
}

/// All banks, by place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Banks {
    pub banks: Vec<Bank>,
}

/// `matrix`
pub fn role_name(role: u8) -> &'static str {
    role::NAMES.get(role as usize).copied().unwrap_or("other")
}

impl Parameter {
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

impl Bank {
    /// `matrix`
    pub fn role_name(&self) -> &'static str {
        role_name(self.place.role)
    }

    /// `matrix`, or `matrix.512x128` where it is a stack.
    pub fn name(&self) -> String {
        match self.place.matrix {
            Some([rows, columns]) => format!("{}.{rows}x{columns}", self.role_name()),
            None => self.role_name().to_string(),
        }
    }

    /// `[n]`, or `[k, m, n]` where it is a stack.
    pub fn ty(&self) -> Ty {
        match self.place.matrix {
            Some([rows, columns]) => Ty::new(DType::F32, &[self.parameters.len(), rows, columns]),
            None => Ty::new(DType::F32, &[self.elements]),
        }
    }

    /// Extents of a parameter as a part of the bank, which is a slice of its first axis.
    pub fn part(&self, elements: usize) -> Vec<usize> {
        self.place.matrix.map_or_else(|| vec![elements], |[rows, columns]| vec![1, rows, columns])
    }

    /// Name of the State that holds the bank.
    pub fn state(&self) -> String {
        format!("parameters.{}", self.name())
    }

    /// (parameter, its elements' range in the bank)
    pub fn slices(&self) -> impl Iterator<Item = (&Parameter, std::ops::Range<usize>)> {
        self.parameters.iter().zip(&self.offsets).map(|(p, offset)| (p, *offset..offset + p.elements()))
    }
}

impl Banks {
    /// Parameters of one place share a bank.
    pub fn new(parameters: impl IntoIterator<Item = (Place, Parameter)>) -> Banks {
        let mut banks: BTreeMap<Place, Bank> = BTreeMap::new();
        for (place, parameter) in parameters {
            let bank = banks.entry(place).or_insert_with(|| Bank { place, ..Bank::default() });
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
