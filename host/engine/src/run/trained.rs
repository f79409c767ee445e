//! A trained model without its training: what sessions of it need, from a run in memory or from its folder.
//!
//! A folder is opened without the plans of training, which take longer to trace and compile than a small eval takes to
//! run: one trace says which parameters there are, and their values are those of the newest checkpoint.

use std::path::Path;

use data::Dataset;
use plugin_api::Dims;

use super::checkpoint::{self, Values};
use super::prepare::{dims, judged, recorded};
use crate::Error;
use crate::config::{Request, Resolved};
use crate::plugins::Registry;
use crate::session::Session;
use crate::trace::{Banks, Programs, SessionShape, Shape};

/// A model with its parameters and the run's data.
pub struct Trained<'t> {
    pub resolved: &'t Resolved,
    pub dataset: &'t Dataset,
    pub registry: &'t Registry,
    /// Steps that the parameters were trained for.
    pub step: u64,
    pub(super) shape: Shape,
    pub(super) banks: &'t Banks,
    /// By the States of the banks.
    pub(super) parameters: &'t Values,
}

impl Trained<'_> {
    /// The model as it stands, in a session whose contexts are as long as windows.
    pub fn session(&self, rows: usize) -> Result<Session, Error> {
        /// Tokens of a text that are read at once.
        const WIDTH: usize = 16;
        let window = self.shape.window;
        let shape =
            SessionShape { rows, capacity: window, width: WIDTH.min(window), vocab: self.shape.vocab };
        // Training windows start where texts do, and a context cut in mid-sentence is strange to the model.
        let newline = self.dataset.tokenizer().encode("\n").ok().and_then(|ids| ids.first().copied());
        Session::open(self.resolved, self.registry, self.banks, shape, (self.step, newline), |name| {
            let known = self.parameters.get(name).cloned();
            known.ok_or_else(|| Error::said(format!("there are no parameters {name}")))
        })
    }

    /// What evals are told of the run before their options are judged.
    pub fn dims(&self) -> Dims {
        dims(self.resolved, self.shape)
    }
}

/// The run of a folder as its newest checkpoint has it, finished or not.
pub(crate) struct Reopened {
    pub resolved: Resolved,
    dataset: Dataset,
    shape: Shape,
    banks: Banks,
    parameters: Values,
    step: u64,
}

impl Reopened {
    pub fn open(folder: &Path, registry: &Registry) -> Result<Reopened, Error> {
        let resolved = recorded(folder, &Request { no_evals: true, ..Request::default() }, registry)?;
        let (dataset, shape) = judged(&resolved)?;
        super::folder::same_data(folder, dataset.content_hash())?;
        let banks = Programs::banks(&resolved, registry, shape)?;
        let (progress, parameters) = checkpoint::parameters(folder, &banks)?;
        Ok(Reopened { resolved, dataset, shape, banks, parameters, step: progress.step })
    }

    pub fn trained<'t>(&'t self, registry: &'t Registry) -> Trained<'t> {
        Trained {
            resolved: &self.resolved,
            dataset: &self.dataset,
            registry,
            step: self.step,
            shape: self.shape,
            banks: &self.banks,
            parameters: &self.parameters,
        }
    }
}
