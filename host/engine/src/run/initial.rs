//! Initial values: a function of the seed and the parameter's path, whatever else the model holds.

use data::Stream;
use plugin_api::abi::init;

use crate::trace::{Bank, Parameter};

/// Values of a whole bank.
pub fn bank_values(bank: &Bank, seed: u64) -> Vec<f32> {
    bank.parameters.iter().flat_map(|parameter| values(parameter, seed)).collect()
}

fn values(parameter: &Parameter, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, &format!("initial.{}", parameter.path), 0);
    let argument = parameter.init_argument;
    let mut draw = || match parameter.init {
        init::NORMAL => stream.normal() * argument,
        init::UNIFORM => (2.0 * stream.uniform() - 1.0) * argument,
        _ => argument,
    };
    (0..parameter.elements()).map(|_| draw() as f32).collect()
}
