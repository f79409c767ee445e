//! Initial values: a function of the seed and the parameter's path, whatever else the model holds.

use data::Stream;
use plugin_api::abi::init;

use crate::trace::{Bank, Parameter};

/// Values of a whole bank. Parameters are drawn side by side; each depends on nothing but its own stream.
pub fn bank_values(bank: &Bank, seed: u64) -> Vec<f32> {
    let mut bank_values = vec![0.0; bank.elements];
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let mut shares: Vec<Vec<(&Parameter, &mut [f32])>> = (0..threads).map(|_| Vec::new()).collect();
    let mut rest = &mut bank_values[..];
    for (index, parameter) in bank.parameters.iter().enumerate() {
        let (own, others) = rest.split_at_mut(parameter.elements());
        shares[index % threads].push((parameter, own));
        rest = others;
    }
    std::thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || share.into_iter().for_each(|(parameter, out)| fill(parameter, seed, out)));
        }
    });
    bank_values
}

fn fill(parameter: &Parameter, seed: u64, out: &mut [f32]) {
    let mut stream = Stream::new(seed, &format!("initial.{}", parameter.path), 0);
    let argument = parameter.init_argument;
    out.fill_with(|| match parameter.init {
        init::NORMAL => (stream.normal() * argument) as f32,
        init::UNIFORM => ((2.0 * stream.uniform() - 1.0) * argument) as f32,
        _ => argument as f32,
    });
}
