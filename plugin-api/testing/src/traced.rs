//! What a trace left, and its values.

use std::collections::BTreeMap;

use graph::interp::{self, Tensor};
use graph::{Graph, Ty};
use plugin_api::Init;

/// A component that was traced.
pub struct Traced {
    pub(crate) graph: Graph,
    pub(crate) parameters: BTreeMap<String, (Vec<usize>, Init)>,
}

/// Values of a run, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// In the order in which the body returned them.
    pub outputs: Vec<Vec<f64>>,
    /// What optimizer states hold afterwards, by name.
    pub states: BTreeMap<String, Vec<f64>>,
}

impl Traced {
    /// Path and extents of each parameter that was asked for.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        self.parameters.iter().map(|(path, (dims, _))| (path.clone(), dims.clone())).collect()
    }

    /// Extents of each output.
    pub fn dims(&self) -> Vec<Vec<usize>> {
        self.graph.outputs.iter().map(|output| output.ty.dims.clone()).collect()
    }

    /// Evaluates the trace in double precision. `given` holds every input by name (scalars of a step too:
    /// `learning_rate`, `bias_correction(0.9)`), parameters where their values matter, and states that are not zero.
    pub fn run(&self, given: &[(&str, &[f64])]) -> Result<Values, String> {
        let value = |name: &str, ty: &Ty, otherwise: Option<Vec<f64>>| {
            let found = given.iter().find(|(known, _)| *known == name).map(|(_, data)| data.to_vec());
            match found.or(otherwise) {
                Some(data) if data.len() == ty.elements() => Ok(Tensor { ty: ty.clone(), data }),
                Some(data) => Err(format!("{name} is {ty}, and got {} numbers", data.len())),
                None => Err(format!("{name} is an input ({ty}) without a value")),
            }
        };
        let inputs = self.graph.inputs.iter().map(|decl| {
            let init = self.parameters.get(&decl.name).map(|(_, init)| initial(*init, decl.ty.elements()));
            value(&decl.name, &decl.ty, init)
        });
        let inputs = inputs.collect::<Result<Vec<Tensor>, String>>()?;
        let states = self.graph.states.iter();
        let states = states.map(|decl| value(&decl.name, &decl.ty, Some(vec![0.0; decl.ty.elements()])));
        let mut states = states.collect::<Result<Vec<Tensor>, String>>()?;
        let outputs = interp::run(&self.graph, &inputs, &mut states);
        let names = self.graph.states.iter().map(|decl| decl.name.clone());
        Ok(Values {
            outputs: outputs.into_iter().map(|tensor| tensor.data).collect(),
            states: names.zip(states.into_iter().map(|tensor| tensor.data)).collect(),
        })
    }
}

/// Values within the spread that was asked for, the same in every run: no generator of random numbers is needed to be
/// irregular enough for a test.
fn initial(init: Init, count: usize) -> Vec<f64> {
    let wave = |index: usize| (1.0 + index as f64 * 2.399_963).sin();
    match init {
        Init::Constant(value) => vec![value; count],
        Init::Uniform(bound) => (0..count).map(|index| bound * wave(index)).collect(),
        // A sine has mean square 1/2.
        Init::Normal(deviation) => {
            (0..count).map(|index| deviation * std::f64::consts::SQRT_2 * wave(index)).collect()
        }
    }
}
