//! Initial values: a function of the seed and the parameter's path, whatever else the model holds.

use std::ops::Range;

use data::Stream;
use plugin_api::abi::init;

use crate::Error;
use crate::trace::{Bank, Parameter};

/// Draws the values of a bank and hands each parameter's to `write` with its first element. As many parameters as there are
/// cores are drawn side by side, and no more are held: each depends on nothing but its own stream.
pub fn draw_bank(
    bank: &Bank,
    seed: u64,
    mut write: impl FnMut(usize, &[f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let slices: Vec<(&Parameter, Range<usize>)> = bank.slices().collect();
    for some in slices.chunks(threads) {
        let mut drawn: Vec<Vec<f32>> = some.iter().map(|(_, range)| vec![0.0; range.len()]).collect();
        std::thread::scope(|scope| {
            for ((parameter, _), out) in some.iter().zip(&mut drawn) {
                scope.spawn(move || fill(parameter, seed, out));
            }
        });
        for ((_, range), values) in some.iter().zip(&drawn) {
            write(range.start, values)?;
        }
    }
    Ok(())
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
