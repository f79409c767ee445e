//! A plan of a small HOPE that reads texts window by window, replayed without a run around it: what a test gives is the
//! windows and where in its text each row stands, what it gets is outputs and States.
//!
//! Nothing mixes tokens but the memories (`fixtures/alone`), so that a text may be cut into windows of any length.

use data::Stream;
use engine::config::{Request, resolve};
use engine::plugins::Registry;
use engine::trace::{Programs, STEP_INDEX, STREAM_FRESH, STREAM_READ, Shape};
use graph::Graph;
use graph::interp::Tensor;

use crate::replay::Replay;

/// Tokens that the texts are made of.
pub const VOCAB: usize = 8;

/// The plan `name` of a run with these settings, over the model of the tests: a block of width 8, chunks of 2 tokens.
/// Its optimizer keeps the gradient of each bank as its State `m`.
pub fn plan(
    registry: &Registry,
    name: &str,
    [batch, window, stream]: [usize; 3],
    settings: &[&str],
) -> Result<Graph, engine::Error> {
    let small = ["d_model=8", "d_hidden=12", "layers=1", "online_chunk=2", "memory_lr=0.3", "beta1=0.0"];
    let sets = small.iter().chain(settings).map(|set| set.to_string()).collect();
    let [model, attention, optimizer] = ["hope", "alone", "adamw"].map(|name| Some(name.to_string()));
    let request = Request { model, attention, optimizer, sets, no_preset: true, ..Request::default() };
    let resolved = resolve(&request, registry)?;
    let shape = Shape { batch, window, vocab: VOCAB, accumulate: 1, clip: 0.0, stream };
    let programs = Programs::trace(&resolved, registry, shape)?;
    Ok(programs.find(name).unwrap_or_else(|| panic!("no plan {name}")).graph.clone())
}

/// Where rows stand: tokens read before of each, and 1 for those that start a new text.
pub struct Place<'p> {
    pub read: &'p [usize],
    pub fresh: &'p [bool],
}

/// A plan that keeps its States from one window to the next.
pub struct Reader {
    graph: Graph,
    replay: Replay,
}

impl Reader {
    /// Parameters have values of their own by bank, the same in every plan; other States are zeros.
    pub fn new(graph: Graph, mut replay: Replay) -> Reader {
        for (index, decl) in graph.states.iter().enumerate() {
            let mut stream = Stream::new(3, &decl.name, 0);
            // The scalars are logarithms of the steps of writes.
            let mut value = || match decl.name.as_str() {
                "parameters.scalar" => -1.5,
                _ => f64::from((stream.uniform() - 0.5) as f32),
            };
            if decl.name.starts_with("parameters.") {
                let data = (0..decl.ty.elements()).map(|_| value()).collect();
                let given = replay.write_state(index, &Tensor { ty: decl.ty.clone(), data });
                given.unwrap_or_else(|error| panic!("{}: {error}", decl.name));
            }
        }
        Reader { graph, replay }
    }

    /// Reads `text`, rows of token ids one longer than the window, of which each token is the target of the one before.
    /// Every fourth target is none. Returns all outputs by name.
    pub fn read(&mut self, text: &[Vec<usize>], place: &Place<'_>) -> Vec<(String, Tensor)> {
        let target = |row: &Vec<usize>, from: usize| -> Vec<f64> {
            let is_target = |at: usize| !(from + at).is_multiple_of(4);
            row[1..]
                .iter()
                .enumerate()
                .map(|(at, id)| if is_target(at) { *id as f64 } else { -1.0 })
                .collect()
        };
        let feed = |name: &str| -> Vec<f64> {
            match name {
                "tokens" => text.iter().flat_map(|row| &row[..row.len() - 1]).map(|id| *id as f64).collect(),
                "targets" => text.iter().zip(place.read).flat_map(|(row, read)| target(row, *read)).collect(),
                STREAM_READ => place.read.iter().map(|read| *read as f64).collect(),
                STREAM_FRESH => place.fresh.iter().map(|fresh| f64::from(u8::from(*fresh))).collect(),
                STEP_INDEX | "learning_rate" => vec![0.0],
                // Corrections of biases: none.
                _ => vec![1.0],
            }
        };
        let inputs =
            self.graph.inputs.iter().map(|decl| Tensor { ty: decl.ty.clone(), data: feed(&decl.name) });
        let outputs = self.replay.run(&inputs.collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{error}"));
        self.graph.outputs.iter().map(|decl| decl.name.clone()).zip(outputs).collect()
    }

    /// Every State by name.
    pub fn states(&self) -> Vec<(String, Tensor)> {
        let values = self.replay.states().unwrap_or_else(|error| panic!("{error}"));
        self.graph.states.iter().map(|decl| decl.name.clone()).zip(values).collect()
    }
}

/// An output of a plan by its name.
#[track_caller]
pub fn output<'o>(outputs: &'o [(String, Tensor)], wanted: &str) -> &'o [f64] {
    let found = outputs.iter().find(|(name, _)| name == wanted);
    found.map_or_else(|| panic!("no output {wanted}"), |(_, tensor)| &tensor.data)
}

/// Texts of `tokens` and one more, one for each row.
pub fn texts(rows: usize, tokens: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut stream = Stream::new(seed, "texts", 0);
    (0..rows).map(|_| (0..=tokens).map(|_| stream.below(VOCAB as u64) as usize).collect()).collect()
}
