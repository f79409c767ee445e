//! Chains of memories alone, taught by signals that the test chooses: which writes happen, how far they go and what they
//! leave of earlier ones.
//!
//! The bias b2 of a level moves by the sum of its teach signals, whatever the level reads, so it can be followed here
//! with a few numbers.

use engine::config::Chosen;
use engine::plugins::{Kind, Registry};
use engine::trace::{Context, Tracer};
use graph::interp::{self, Tensor as Value};
use graph::{DType, NodeId, Ty};
use host_tests::replay::inputs;
use nested::cms::{Chain, Form, Gate, GateOf, Metric, Rules, Surprise, WriteGrad};
use plugin_api::{Cx, Init, Lifetime, Role, Tensor};
use serde_json::json;

/// Sequences, tokens, width, tokens of a chunk.
const BATCH: usize = 2;
const TOKENS: usize = 14;
const WIDTH: usize = 3;
const CHUNK: usize = 2;

fn rules() -> Rules {
    Rules {
        hidden: 4,
        periods: vec![4],
        rates: vec![0.3],
        learn_rates: false,
        retain: 1.0,
        write_grad: WriteGrad::Full,
        form: Form::Auto,
        gate: Gate { of: GateOf::Off, metric: Metric::L2, threshold: 1.0, relative: true },
    }
}

/// What a chain was given and what it made of that.
struct Taught {
    /// By input name: `x`, `teach` `[B, T, D]`, `losses`, `entropy`, `counted` `[B, T]`, and parameters.
    given: Vec<(String, Value)>,
    /// What it read, `[B, T, D]`.
    read: Vec<f64>,
    /// b2 of each level after the flush, beyond its start: `[B, D]`.
    moved: Vec<Vec<f64>>,
}

/// Teaches a chain. `change` may change what it is given.
fn taught(rules: &Rules, change: impl Fn(&str, &mut [f64])) -> Taught {
    let registry = Registry::of(vec![host_tests::host().with_file_name("plugins")]);
    let component = registry.find(Kind::Model, "hope").expect("it is staged");
    let options = component.resolve(&json!({})).expect("it has defaults");
    let context = Context { registry: &registry, attention: None, vocab: 8 };
    let tracer = Tracer::new(&context, None, true);
    let input =
        |name: &str, dims: &[usize]| tracer.graph(|graph| graph.input(name, Ty::new(DType::F32, dims))).0;
    let [x, teach] = ["x", "teach"].map(|name| input(name, &[BATCH, TOKENS, WIDTH]));
    let [losses, entropy, counted] =
        ["losses", "entropy", "counted"].map(|name| input(name, &[BATCH, TOKENS]));
    let outputs = tracer.call(&Chosen { component, options }, |builder| {
        let cx = Cx::new(&builder);
        let tensors = [x, teach, losses, entropy, counted].map(|id| cx.tensor(id));
        Ok(chain(&cx, rules, tensors)
            .into_iter()
            .map(|(name, tensor)| (name, tensor.id()))
            .collect::<Vec<_>>())
    });
    for (name, id) in outputs.unwrap_or_default() {
        tracer.graph(|graph| graph.output(&name, NodeId(id)));
    }
    let graph = tracer.finish("the chain").unwrap_or_else(|error| panic!("{error}")).graph;

    let (mut values, _) = inputs(&graph, 5);
    for (decl, value) in graph.inputs.iter().zip(&mut values) {
        match decl.name.as_str() {
            "losses" | "entropy" => value.data.iter_mut().for_each(|x| *x += 1.5),
            "counted" => value.data.iter_mut().for_each(|x| *x = f64::from(u8::from(*x > -0.6))),
            _ => {}
        }
        change(&decl.name, &mut value.data);
    }
    let outputs = interp::run(&graph, &values, &mut []);
    let of = |name: &str| {
        let at = graph.outputs.iter().position(|decl| decl.name == name);
        outputs[at.unwrap_or_else(|| panic!("no output {name}"))].data.clone()
    };
    Taught {
        read: of("read"),
        moved: (0..rules.periods.len()).map(|level| of(&format!("moved.{level}"))).collect(),
        given: graph.inputs.iter().map(|decl| decl.name.clone()).zip(values).collect(),
    }
}

/// The chain over all chunks, every level with the same teach signal.
fn chain<'c>(cx: &'c Cx<'c>, rules: &Rules, tensors: [Tensor<'c>; 5]) -> Vec<(String, Tensor<'c>)> {
    let mut chain = Chain::new(cx, rules, TOKENS);
    let (mut read, mut outputs) = (0, Vec::new());
    let joined = cx.chunks(&tensors, CHUNK, |chunk| {
        let output = chain.read(chunk[0]);
        let known = Surprise { losses: Some(chunk[2]), entropy: Some(chunk[3]), counted: Some(chunk[4]) };
        chain.observe(&vec![chunk[1]; rules.periods.len()], known);
        read += CHUNK;
        if read == TOKENS {
            chain.finish(WIDTH);
            for level in 0..rules.periods.len() {
                let moved = cx.scope(&format!("cms.{level}"), || {
                    let start = cx.parameter("b2", &[WIDTH], Role::Bias, Init::Constant(0.0));
                    cx.fast("b2", start, Lifetime::Stream).value() - start
                });
                outputs.push((format!("moved.{level}"), moved));
            }
        }
        vec![output]
    });
    outputs.push(("read".into(), joined[0]));
    outputs
}

impl Taught {
    fn row(&self, name: &str, sequence: usize) -> &[f64] {
        let (_, value) = self.given.iter().find(|(known, _)| known == name).expect("the chain was given it");
        let length = value.data.len() / BATCH;
        &value.data[sequence * length..][..length]
    }

    /// b2 of a level beyond its start, computed token by token from the rules.
    fn followed(&self, rules: &Rules, level: usize, sequence: usize) -> Vec<f64> {
        let gate = &rules.gate;
        let teach: Vec<&[f64]> = self.row("teach", sequence).chunks(WIDTH).collect();
        let surprise: Vec<f64> = match gate.metric {
            Metric::L2 => teach.iter().map(|t| t.iter().map(|x| x * x).sum::<f64>().sqrt()).collect(),
            Metric::Loss => self.row("losses", sequence).to_vec(),
            Metric::Entropy => self.row("entropy", sequence).to_vec(),
        };
        let counted = self.row("counted", sequence);
        let (mut moved, mut mean) = (vec![0.0; WIDTH], 0.0);
        let tokens: Vec<usize> = (0..TOKENS).collect();
        for period in tokens.chunks(rules.periods[level]) {
            let bound = if gate.relative { gate.threshold * mean } else { gate.threshold };
            let taken = |t: &&usize| gate.of != GateOf::Token || surprise[**t] >= bound;
            let slope = |d: usize| period.iter().filter(taken).map(|t| teach[*t][d]).sum::<f64>();
            let count = period.iter().map(|t| counted[*t]).sum::<f64>().max(1.0);
            let value = period.iter().map(|t| surprise[*t] * counted[*t]).sum::<f64>() / count;
            if gate.of != GateOf::Chunk || value >= bound {
                for (d, moved) in moved.iter_mut().enumerate() {
                    *moved = rules.retain * *moved - rules.rates[level] * slope(d);
                }
            }
            mean = if mean == 0.0 { value } else { 0.9 * mean + 0.1 * value };
        }
        moved
    }
}

#[test]
fn writes_follow_their_rules() {
    let gate = |of, metric, threshold, relative| Gate { of, metric, threshold, relative };
    let gates = [
        gate(GateOf::Off, Metric::L2, 1.0, true),
        gate(GateOf::Chunk, Metric::L2, 1.0, true),
        gate(GateOf::Chunk, Metric::L2, 0.9, false),
        gate(GateOf::Chunk, Metric::Loss, 1.0, true),
        gate(GateOf::Chunk, Metric::Entropy, 1.5, false),
        gate(GateOf::Token, Metric::L2, 1.1, true),
        gate(GateOf::Token, Metric::L2, 0.9, false),
        gate(GateOf::Token, Metric::Loss, 1.4, false),
        gate(GateOf::Token, Metric::Entropy, 1.0, true),
    ];
    let mut seen: Vec<Vec<f64>> = Vec::new();
    for gate in gates {
        for (retain, form) in [(1.0, Form::Dense), (0.6, Form::Factored), (0.0, Form::Dense)] {
            let rules = Rules {
                gate: gate.clone(),
                retain,
                form,
                // A level that is written after each chunk, one with two tokens left at the end, and the flush alone.
                periods: vec![2, 4, 16],
                rates: vec![0.3, 0.2, 0.5],
                ..rules()
            };
            let taught = taught(&rules, |_, _| {});
            for (level, moved) in taught.moved.iter().enumerate() {
                for (sequence, moved) in moved.chunks(WIDTH).enumerate() {
                    let wanted = taught.followed(&rules, level, sequence);
                    let off = moved.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(
                        off < 1e-12,
                        "{gate:?}, retain {retain}, level {level}: {moved:?} for {wanted:?}"
                    );
                }
            }
            // Without retention only the last write is left, which several gates may let through.
            let own = taught.moved.concat();
            assert!(retain == 0.0 || !seen.contains(&own), "{gate:?}, retain {retain} changes nothing");
            seen.push(own);
        }
    }
}

#[test]
fn what_is_not_retained_is_forgotten_by_the_next_write() {
    // Only the first period teaches. The second writes nothing new; the third reads what is left.
    let first_alone = |name: &str, data: &mut [f64]| {
        if name == "teach" {
            data.chunks_mut(TOKENS * WIDTH).for_each(|row| row[4 * WIDTH..].fill(0.0));
        }
    };
    let silent = |name: &str, data: &mut [f64]| {
        if name == "teach" {
            data.fill(0.0);
        }
    };
    for form in [Form::Dense, Form::Factored] {
        let read = |retain: f64, change: &dyn Fn(&str, &mut [f64])| {
            let read = taught(&Rules { retain, form, ..rules() }, change).read;
            let part = |tokens: std::ops::Range<usize>| -> Vec<f64> {
                read.chunks(TOKENS * WIDTH)
                    .flat_map(|row| &row[tokens.start * WIDTH..tokens.end * WIDTH])
                    .copied()
                    .collect()
            };
            (part(4..8), part(8..TOKENS))
        };
        let far = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let (_, untaught) = read(0.0, &silent);
        let (forgetful, keeping) = (read(0.0, &first_alone), read(1.0, &first_alone));
        assert!(far(&forgetful.1, &untaught) < 1e-12, "{form:?}: every weight is the initial one again");
        assert!(far(&keeping.1, &untaught) > 1e-3, "{form:?}: a memory that retains has learned");
        assert!(far(&forgetful.0, &keeping.0) < 1e-12, "{form:?}: until then both have written the same");
    }
}
