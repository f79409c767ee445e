//! The memory of whole programs: arenas near their live sets, and budgets that change no bit of a result.

use compiler::{CompileError, Options};
use device_cpu::Cpu;
use engine::config::{Request, resolve};
use engine::plugins::Registry;
use graph::Graph;
use host_tests::bench::{plans, request};
use host_tests::programs::random_graph;
use host_tests::replay::{Replay, inputs, prepared, prepared_within};
use host_tests::{SMALL, Sandbox, host, root, says};
use plan::Plan;

/// Characters of the story corpus, about.
const VOCAB: usize = 96;

/// Plans of a bench or a preset.
fn program(name: &str) -> Vec<Plan> {
    let preset = || {
        let files = vec![root().join("configs").join(format!("{name}.toml"))];
        (Request { files, no_preset: true, ..Request::default() }, VOCAB)
    };
    let (request, vocab) = request(name).unwrap_or_else(preset);
    let registry = Registry::of(vec![host().with_file_name("plugins")]);
    let resolved = resolve(&request, &registry).unwrap_or_else(|error| panic!("{name}: {error}"));
    plans(&resolved, &registry, vocab, Options::default).unwrap_or_else(|error| panic!("{name}: {error}")).1
}

#[test]
fn arenas_are_near_their_live_sets() {
    for name in ["tiny", "craft-1m", "craft-1m-dropout", "30m", "hope-tiny", "reference/pilot-smoke"] {
        // Plans take turns in one arena.
        let plans = program(name);
        let plan = plans.iter().max_by_key(|plan| plan.arena_bytes).expect("a run has plans");
        let (arena, live) = (plan.arena_bytes, plan.live_bytes);
        let above = 100.0 * (arena as f64 / live as f64 - 1.0);
        println!("{name} {}: arena {arena} bytes, {live} alive at the peak, {above:.1} % above", plan.name);
        plan.peak.iter().take(10).for_each(|held| println!("  {:>12} {}", held.bytes, held.name));
        assert!(arena * 10 <= live * 11, "{name} {}: arena {arena}, live {live}", plan.name);
        assert_eq!(plan.peak.iter().map(|held| held.bytes).sum::<usize>(), live, "the account adds up");
    }
}

/// Outputs and States of a replay, as bits.
fn results(graph: &Graph, set: plan::PlanSet, seed: u64) -> Vec<Vec<u64>> {
    let (values, states) = inputs(graph, seed);
    let mut replay =
        Replay::loaded(graph, Box::new(Cpu::new(2)), set).unwrap_or_else(|error| panic!("{error}"));
    for (index, state) in states.iter().enumerate() {
        replay.write_state(index, state).unwrap_or_else(|error| panic!("{error}"));
    }
    let outputs = replay.run(&values).unwrap_or_else(|error| panic!("{error}"));
    let states = replay.states().unwrap_or_else(|error| panic!("{error}"));
    let bits = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    outputs.iter().chain(&states).map(|tensor| tensor.data.iter().map(bits).collect()).collect()
}

/// Replays a graph in less and less memory until the budget cannot be met. Returns the smallest part of its own arena
/// in which it ran, per cent.
fn squeezed(graph: &Graph, seed: u64) -> usize {
    let full = prepared(graph, &Cpu::caps(), &[]).unwrap_or_else(|error| panic!("{error}"));
    let arena = full.plans[0].arena_bytes;
    let expected = results(graph, full, seed);
    let mut least = 100;
    for share in [95, 85, 75, 65, 50, 35] {
        match prepared_within(graph, &Cpu::caps(), &[], Some(arena * share / 100)) {
            Ok(set) => {
                assert!(set.plans[0].arena_bytes <= arena * share / 100);
                assert_eq!(results(graph, set, seed), expected, "in {share} % of the arena");
                least = share;
            }
            Err(error) => {
                says(&error, &["the memory budget leaves it", "largest tensors"]);
                break;
            }
        }
    }
    least
}

/// A training step of a bench or of the tests, smaller where `sets` say so.
fn step(model: &str, sets: &[&str], vocab: usize) -> Graph {
    let request = Request {
        model: Some(model.into()),
        optimizer: Some("adamw".into()),
        sets: sets.iter().map(|set| set.to_string()).collect(),
        no_preset: true,
        ..Request::default()
    };
    let registry = Registry::of(vec![host().with_file_name("plugins")]);
    let resolved = resolve(&request, &registry).unwrap_or_else(|error| panic!("{error}"));
    let train = &resolved.settings.train;
    let shape = engine::trace::Shape {
        batch: train.batch,
        window: train.window,
        vocab,
        accumulate: 1,
        clip: 1.0,
        stream: 1,
    };
    let programs = engine::trace::Programs::trace(&resolved, &registry, shape);
    let programs = programs.unwrap_or_else(|error| panic!("{error}"));
    programs.find("step").expect("a run has a step").graph.clone()
}

#[test]
fn a_budget_changes_no_bit_of_a_transformer_step() {
    let sets =
        ["d_model=64", "layers=4", "heads=4", "batch=8", "window=64", "dropout=0.2", "positions=learned"];
    let least = squeezed(&step("transformer", &sets, 65), 1);
    println!("transformer: down to {least} % of the arena");
    assert!(least <= 75, "{least} %");
}

#[test]
fn a_budget_changes_no_bit_of_a_step_with_second_derivatives_and_guards() {
    let sets = [
        "d_model=32",
        "layers=2",
        "heads=2",
        "batch=2",
        "window=64",
        "periods=[16,64]",
        "online_chunk=16",
        "kv_grad=full",
    ];
    let least = squeezed(&step("hope", &sets, 65), 2);
    println!("hope: down to {least} % of the arena");
    assert!(least <= 95, "{least} %");
}

#[test]
fn a_budget_changes_no_bit_of_a_random_program() {
    let shares: Vec<usize> = (0..60).map(|seed| squeezed(&random_graph(seed), seed)).collect();
    println!("random programs: {shares:?} % of the arena");
    assert!(shares.iter().any(|share| *share < 100), "no program was made to do with less");
}

#[test]
fn a_budget_that_cannot_be_met_names_the_least() {
    let graph = step("transformer", &["d_model=32", "layers=1", "heads=2", "batch=2", "window=32"], 65);
    let states = prepared(&graph, &Cpu::caps(), &[]).unwrap_or_else(|error| panic!("{error}")).states;
    let options = Options { budget: Some(1000), ..Options::default() };
    let refused = compiler::compile("step", &graph, &states, &Cpu::caps(), options);
    let Err(CompileError::Budget { least, budget: 1000, .. }) = refused else { panic!("{refused:?}") };
    let options = Options { budget: Some(least), ..Options::default() };
    let plan = compiler::compile("step", &graph, &states, &Cpu::caps(), options);
    assert!(plan.is_ok_and(|plan| plan.arena_bytes <= least), "what it names it can do");

    let sandbox = Sandbox::new();
    let run = |words: &[&str]| sandbox.host(&[&["run", "--steps=2"][..], SMALL, words].concat());
    let sentence = run(&["--memory-budget=64KiB", "--out=small"]).failed();
    says(&sentence, &["memory_budget", "are too little", "needs", "MiB at least", "largest tensors"]);
    says(&run(&["--memory-budget=5apples"]).failed(), &["memory_budget", "5apples", "512MiB"]);
    let report = run(&["--set=memory_budget=1GiB", "--out=large"]).succeeded().stdout;
    says(&report, &["memory  ", "at the peak", "layers.0.mlp: "]);
}
