//! Sessions: what a model reads call by call is what it reads at once, and rows do not meet.

use engine::config::{Request, Resolved, resolve};
use engine::plugins::Registry;
use engine::session::{Mode, Price, Session};
use engine::trace::{Programs, SessionShape, Shape};
use graph::interp::Tensor;
use host_tests::replay::{Replay, inputs};

const VOCAB: usize = 256;
const TOKENS: usize = 24;

fn registry() -> Registry {
    Registry::of(vec![host_tests::host().with_file_name("plugins")])
}

/// A small model with its initial values.
struct Small {
    resolved: Resolved,
    registry: Registry,
    programs: Programs,
    parameters: Vec<(String, Vec<f32>)>,
}

fn small(model: &str, settings: &[&str]) -> Small {
    let registry = registry();
    let mut set: Vec<String> =
        vec!["device=interpreter".into(), "model.d_model=8".into(), "model.layers=2".into()];
    set.push("attention.heads=2".into());
    set.extend(settings.iter().map(|setting| setting.to_string()));
    let request = Request {
        model: Some(model.into()),
        optimizer: Some("adamw".into()),
        no_preset: true,
        sets: set,
        ..Request::default()
    };
    let resolved = resolve(&request, &registry).unwrap();
    let shape = Shape { batch: 1, window: TOKENS, vocab: VOCAB, accumulate: 1, clip: 0.0, stream: 1 };
    let programs = Programs::trace(&resolved, &registry, shape).unwrap();
    let eval = &programs.find("eval").unwrap().graph;
    let (_, states) = inputs(eval, 5);
    let parameters = eval
        .states
        .iter()
        .zip(states)
        .map(|(decl, state)| (decl.name.clone(), state.data.iter().map(|value| *value as f32).collect()));
    let parameters = parameters.collect();
    Small { resolved, registry, programs, parameters }
}

impl Small {
    fn session(&self, rows: usize, capacity: usize) -> Session {
        let shape = SessionShape { rows, capacity, width: 5, vocab: VOCAB };
        let banks = &self.programs.banks;
        let parameter = |name: &str| {
            let found = self.parameters.iter().find(|(known, _)| known == name);
            Ok(found.unwrap().1.clone())
        };
        Session::open(&self.resolved, &self.registry, banks, shape, (0, Some(10)), parameter).unwrap()
    }

    /// Loss of each target in the evaluation of a run, in double precision, and whether its logit is the highest.
    fn evaluated(&self, text: &[i32]) -> (Vec<f64>, Vec<f64>) {
        let graph = &self.programs.find("eval").unwrap().graph;
        let mut replay = Replay::interpreter(graph);
        for (index, decl) in graph.states.iter().enumerate() {
            let data = &self.parameters.iter().find(|(name, _)| *name == decl.name).unwrap().1;
            let data = data.iter().map(|value| f64::from(*value)).collect();
            replay.write_state(index, &Tensor { ty: decl.ty.clone(), data }).unwrap();
        }
        let given: Vec<Tensor> = graph
            .inputs
            .iter()
            .map(|decl| {
                let from = usize::from(decl.name == "targets");
                let data = text[from..from + TOKENS].iter().map(|id| f64::from(*id)).collect();
                Tensor { ty: decl.ty.clone(), data }
            })
            .collect();
        let mut outputs = replay.run(&given).unwrap().into_iter().map(|tensor| tensor.data);
        (outputs.next().unwrap(), outputs.next().unwrap())
    }
}

fn text(seed: i32) -> Vec<i32> {
    (0..=TOKENS as i32).map(|i| (i * i * 7 + i * 31 + seed * 17) % VOCAB as i32).collect()
}

/// Prices of a text read in pieces, each row's pieces of its own lengths.
fn read(session: &mut Session, texts: &[Vec<i32>], pieces: &[usize], mode: Mode) -> Vec<Vec<Price>> {
    let mut prices = vec![Vec::new(); texts.len()];
    let mut done = vec![0; texts.len()];
    let mut turn = 0;
    while done.iter().zip(texts).any(|(done, text)| *done < text.len()) {
        let mut calls = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            let length = pieces[(turn + row) % pieces.len()].min(text.len() - done[row]);
            calls.push(text[done[row]..done[row] + length].to_vec());
            done[row] += length;
        }
        let told = session.read(&calls, mode).unwrap();
        prices.iter_mut().zip(told).for_each(|(all, told)| all.extend(told));
        turn += 1;
    }
    prices
}

const HOPE: [&str; 6] = [
    "model.periods=[4,8,12]",
    "model.online_chunk=4",
    "model.memory_lr=0.5",
    "model.d_hidden=12",
    "train.window=24",
    "threads=1",
];

#[test]
fn a_session_gives_the_losses_of_evaluation() {
    let near = [&HOPE[..], &["attention.sliding_window=6"]].concat();
    // A recurrence cannot read on: its contexts are read whole.
    let linear = [&HOPE[4..], &["attention.name=linear"]].concat();
    for (model, settings) in
        [("hope", &HOPE[..]), ("transformer", &HOPE[4..]), ("hope", &near), ("transformer", &linear)]
    {
        let small = small(model, settings);
        let texts = [text(1), text(2), text(3)];
        let mut session = small.session(texts.len(), TOKENS + 1);
        assert_eq!(session.chunk(), (model == "hope").then_some(4));
        for pieces in [&[1][..], &[3, 0, 7, 1], &[TOKENS + 1]] {
            session.reset(&[true; 3]).unwrap();
            let prices = read(&mut session, &texts, pieces, Mode::Learn);
            for (text, prices) in texts.iter().zip(prices) {
                let (losses, hits) = small.evaluated(text);
                assert_eq!(prices.len(), TOKENS, "{model}, pieces {pieces:?}");
                for (at, price) in prices.iter().enumerate() {
                    let (loss, wanted) = (price.loss, losses[at]);
                    assert!(
                        (loss - wanted).abs() < 1e-5,
                        "{model}, pieces {pieces:?}, {at}: {loss} for {wanted}"
                    );
                    assert_eq!(price.is_best, hits[at] == 1.0, "{model}, pieces {pieces:?}, {at}");
                }
            }
        }
    }
}

#[test]
fn what_is_read_and_what_is_learned_cost_what_they_cost_by_themselves() {
    // Nothing is learned before the first chunk ends, and what is only read is never learned.
    let small = small("hope", &HOPE);
    let text = text(8);
    let price = |parts: &[(usize, Mode)]| {
        let mut session = small.session(1, TOKENS + 1);
        let mut prices = Vec::new();
        let mut done = 0;
        for (length, mode) in parts {
            let part = text[done..done + length].to_vec();
            prices.extend(session.read(&[part], *mode).unwrap().remove(0));
            done += length;
        }
        prices.into_iter().map(|price| price.loss).collect::<Vec<f64>>()
    };
    let still = price(&[(TOKENS + 1, Mode::Read)]);
    let mixed = price(&[(2, Mode::Learn), (6, Mode::Read), (9, Mode::Learn), (8, Mode::Read)]);
    assert_eq!((still.len(), mixed.len()), (TOKENS, TOKENS));
    let differ = |at: usize| (still[at] - mixed[at]).abs() > 1e-4;
    // The first four tokens predict without any memory; one of them had a target to learn.
    assert!((0..4).all(|at| !differ(at)));
    assert!((4..TOKENS).any(differ), "nothing was learned");
}

#[test]
fn memories_learn_what_they_are_told_to_and_come_back() {
    // On the CPU, where a snapshot holds all bits of a State.
    let small = small("hope", &[&HOPE[..], &["device=cpu"]].concat());
    let (text, other) = (text(4), text(5));
    let logits = |session: &mut Session, ids: &[i32]| {
        session.read(&[ids.to_vec()], Mode::Read).unwrap();
        session.logits(0).unwrap().to_vec()
    };
    let memory = "layers.1.cms.0.w1";
    let mut session = small.session(1, 2 * TOKENS);
    session.read(std::slice::from_ref(&text), Mode::Read).unwrap();
    assert!(session.memory(memory).unwrap().iter().all(|value| *value == 0.0), "reading taught something");
    let unread = session.snapshot().unwrap();
    session.read(std::slice::from_ref(&other), Mode::Learn).unwrap();
    let learned = session.memory(memory).unwrap();
    assert!(learned.iter().any(|value| *value != 0.0), "nothing was learned");
    let after = logits(&mut session, &[7, 8]);
    session.restore(&unread).unwrap();
    assert!(session.memory(memory).unwrap().iter().all(|value| *value == 0.0));
    session.read(&[other], Mode::Learn).unwrap();
    assert_eq!(logits(&mut session, &[7, 8]), after, "a restored session goes another way");
    session.reset(&[true]).unwrap();
    assert!(session.memory(memory).unwrap().iter().all(|value| *value == 0.0));
}

#[test]
fn a_flush_writes_what_is_pending() {
    let small = small("hope", &HOPE);
    // Ten tokens: two chunks of four are learned, two tokens wait; the slowest level's period of twelve is not over.
    let mut session = small.session(2, TOKENS);
    let texts = vec![text(6)[..10].to_vec(), text(7)[..10].to_vec()];
    session.read(&texts, Mode::Learn).unwrap();
    let row = |session: &Session, path: &str, row: usize| {
        let all = session.memory(path).unwrap();
        all[row * all.len() / 2..(row + 1) * all.len() / 2].to_vec()
    };
    let slow = "layers.0.cms.2.w2";
    assert!(session.memory(slow).unwrap().iter().all(|value| *value == 0.0));
    let pending = row(&session, "layers.0.cms.2.w2.pending", 0);
    assert!(pending.iter().any(|value| *value != 0.0));
    let other = row(&session, "layers.0.cms.0.w1", 1);
    session.flush(&[true, false]).unwrap();
    let written = row(&session, slow, 0);
    // All that was pending, and what the last two tokens added, times the step.
    assert!(written.iter().zip(&pending).any(|(value, slope)| (value + 0.5 * slope).abs() > 1e-9));
    assert!(written.iter().any(|value| *value != 0.0), "nothing was flushed");
    assert!(row(&session, "layers.0.cms.2.w2.pending", 0).iter().all(|value| *value == 0.0));
    assert!(row(&session, slow, 1).iter().all(|value| *value == 0.0), "the other row was flushed too");
    assert_eq!(row(&session, "layers.0.cms.0.w1", 1), other);
}

#[test]
fn a_text_longer_than_the_context_goes_on() {
    for (model, settings) in [("hope", &HOPE[..]), ("transformer", &HOPE[4..])] {
        let small = small(model, settings);
        let mut session = small.session(1, 12);
        let long: Vec<i32> = (0..5).flat_map(text).collect();
        let mut told = 0;
        for piece in long.chunks(7) {
            let prices = session.read(&[piece.to_vec()], Mode::Learn).unwrap().remove(0);
            told += prices.len();
            assert!(prices.iter().all(|price| price.loss.is_finite()), "{model}");
        }
        // One token alone in a fresh row is not what it is after a long text.
        assert_eq!(told, long.len() - 1, "{model}: each token but the first has one price");
        session.read(&[vec![3]], Mode::Read).unwrap();
        let late = session.logits(0).unwrap().to_vec();
        session.reset(&[true]).unwrap();
        session.read(&[vec![3]], Mode::Read).unwrap();
        assert_ne!(session.logits(0).unwrap(), late);
    }
}
