//! Values of a replay that may still be on their way from a device, so that the next can begin before they are read.

use plan::Outputs;

use super::{Backend, Machine, floats};
use crate::Error;

/// What a replay computes.
pub struct Awaited {
    pub(super) plan: usize,
    pub(super) values: Values,
}

pub(super) enum Values {
    OfDevice(Outputs),
    Here(Vec<Vec<f32>>),
}

impl Awaited {
    /// Whether there is nothing to wait for.
    pub fn is_here(&self) -> bool {
        !matches!(self.values, Values::OfDevice(Outputs::Coming(_)))
    }
}

impl Machine {
    /// The outputs of a replay by name, as soon as they are there.
    pub fn finish(&mut self, Awaited { plan, values }: Awaited) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let values = match (values, &mut self.backend) {
            (Values::OfDevice(outputs), Backend::Device(device)) => {
                device.fetch(outputs)?.iter().map(|bytes| floats(bytes).collect()).collect()
            }
            (Values::Here(values), _) => values,
            (Values::OfDevice(_), Backend::Interpreter { .. }) => {
                return Err(Error::said("the interpreter never began this replay"));
            }
        };
        Ok(self.outputs[plan].iter().map(|decl| decl.name.clone()).zip(values).collect())
    }
}
