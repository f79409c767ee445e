//! HOPE: each sequence owns its memories, and writes change what is read.

use engine::config::Chosen;
use engine::plugins::{Kind, Registry};
use engine::trace::{Window, loss_alone};
use graph::Graph;
use graph::interp::{self, Tensor};
use host_tests::replay::{Replay, inputs};
use host_tests::{Sandbox, says};
use serde_json::{Value, json};

fn traced(batch: usize, options: Value) -> Graph {
    traced_with(batch, options, json!({ "heads": 2 }))
}

fn traced_with(batch: usize, options: Value, attention: Value) -> Graph {
    let registry = registry();
    let chosen = |kind, name, options: &Value| {
        let component = registry.find(kind, name).unwrap();
        let options = component.resolve(options).unwrap();
        Chosen { component, options }
    };
    let mut model =
        json!({ "d_model": 8, "layers": 2, "d_hidden": 12, "periods": [2, 4], "online_chunk": 2 });
    model.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let model = chosen(Kind::Model, "hope", &model);
    let attention = chosen(Kind::Attention, "full", &attention);
    loss_alone(&registry, &model, &attention, Window { vocab: 8, batch, tokens: 9 }).unwrap().graph
}

fn registry() -> Registry {
    Registry::of(vec![host_tests::host().with_file_name("plugins")])
}

/// Outputs by name.
fn run(graph: &Graph, inputs: &[Tensor]) -> Vec<(String, Tensor)> {
    let outputs = interp::run(graph, inputs, &mut []);
    graph.outputs.iter().map(|decl| decl.name.clone()).zip(outputs).collect()
}

/// One row of a batch, where a tensor has one.
fn row(tensor: &Tensor, index: usize) -> Vec<f64> {
    let length = tensor.data.len() / tensor.ty.dims[0];
    tensor.data[index * length..][..length].to_vec()
}

#[test]
fn a_sequence_of_a_batch_keeps_the_memories_it_would_have_alone() {
    const BATCH: usize = 3;
    let (together, alone) =
        (traced(BATCH, json!({ "memory_lr": 0.3 })), traced(1, json!({ "memory_lr": 0.3 })));
    let (all, _) = inputs(&together, 4);
    let memories: Vec<(String, Tensor)> =
        run(&together, &all).into_iter().filter(|(name, _)| name.starts_with("memory.")).collect();
    assert!(memories.len() > 20, "{} memories", memories.len());
    for index in 0..BATCH {
        let own: Vec<Tensor> = alone
            .inputs
            .iter()
            .map(|decl| {
                let at = together.inputs.iter().position(|other| other.name == decl.name).unwrap();
                let is_text = matches!(decl.name.as_str(), "tokens" | "targets");
                let data = if is_text { row(&all[at], index) } else { all[at].data.clone() };
                Tensor { ty: decl.ty.clone(), data }
            })
            .collect();
        for (name, single) in run(&alone, &own).iter().filter(|(name, _)| name.starts_with("memory.")) {
            let (_, of_batch) = memories.iter().find(|(known, _)| known == name).unwrap();
            // Keys and values have a batch axis too, so every memory is compared by row.
            for (a, b) in row(of_batch, index).iter().zip(&single.data) {
                assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{name}, sequence {index}: {a} for {b}");
            }
        }
    }
}

#[test]
fn writes_change_the_loss_and_a_closed_gate_does_not() {
    let loss = |options: Value| {
        let graph = traced(2, options);
        let (inputs, _) = inputs(&graph, 7);
        let outputs = run(&graph, &inputs);
        outputs.iter().find(|(name, _)| name == "loss").unwrap().1.data[0]
    };
    let (on, off) = (loss(json!({ "memory_lr": 0.3 })), loss(json!({ "writes": false })));
    let closed =
        loss(json!({ "memory_lr": 0.3, "gate": "chunk", "gate_threshold": 1e6, "gate_relative": false }));
    assert!((on - off).abs() > 1e-3, "{on} with writes, {off} without");
    assert!((closed - off).abs() < 1e-12, "{closed} behind a closed gate, {off} without writes");
}

/// The loss after so many steps, and whether all results are finite. The first chunk has no targets.
fn after_steps(steps: f64, options: Value) -> (f64, bool) {
    let mut with = json!({ "memory_lr": 0.3 });
    with.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let graph = traced(2, with);
    let (mut given, _) = inputs(&graph, 7);
    for (decl, tensor) in graph.inputs.iter().zip(&mut given) {
        match decl.name.as_str() {
            "step_index" => tensor.data.fill(steps),
            "targets" => tensor.data.chunks_mut(9).for_each(|row| row[..2].fill(-1.0)),
            _ => {}
        }
    }
    let outputs = run(&graph, &given);
    let finite = outputs.iter().all(|(_, tensor)| tensor.data.iter().all(|x| x.is_finite()));
    (outputs.iter().find(|(name, _)| name == "loss").unwrap().1.data[0], finite)
}

#[test]
fn the_teach_signal_grows_falls_and_is_clipped() {
    let same = |(a, _): (f64, bool), (b, _): (f64, bool)| (a - b).abs() < 1e-12;
    let plain = |options: Value| after_steps(0.0, options);
    let scheduled = |steps, options: Value| {
        let mut all = json!({ "teach_warmup": 4, "teach_decay_start": 10, "teach_decay_steps": 4 });
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        after_steps(steps, all)
    };
    let (full, off) = (plain(json!({})), plain(json!({ "writes": false })));
    assert!(!same(full, off));
    assert!(same(scheduled(0.0, json!({})), plain(json!({ "teach_scale": 0.25 }))));
    assert!(same(scheduled(9.0, json!({})), full));
    assert!(same(scheduled(10.0, json!({})), plain(json!({ "teach_scale": 0.75 }))));
    assert!(same(scheduled(13.0, json!({})), off));
    // Nothing is as long as this.
    assert!(same(plain(json!({ "teach_clip": 1e6 })), full));
    for write_grad in ["none", "chunk", "full"] {
        let clipped = plain(json!({ "teach_clip": 1e-2, "write_grad": write_grad }));
        assert!(clipped.1, "a signal of zero has a derivative");
        assert!(!same(clipped, full));
    }
}

#[test]
fn what_gradients_see_of_writes_changes_no_value() {
    let graphs = ["none", "chunk", "full"].map(|write_grad| traced(2, json!({ "write_grad": write_grad })));
    let (given, _) = inputs(&graphs[0], 9);
    let [none, chunk, full] = graphs.map(|graph| run(&graph, &given));
    let of = |results: &[(String, Tensor)], wanted: &str| -> f64 {
        let found = results.iter().find(|(name, _)| name == wanted).unwrap();
        found.1.data.iter().map(|x| x * x).sum()
    };
    for other in [&chunk, &full] {
        assert!((of(&none, "loss") - of(other, "loss")).abs() < 1e-12);
        assert!((of(&none, "gradient.embedding") - of(other, "gradient.embedding")).abs() > 1e-9);
    }
}

/// Largest difference of loss and gradients, relative to 1 + |value|.
fn difference(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> f64 {
    let compared = a.iter().filter(|(name, _)| name == "loss" || name.starts_with("gradient."));
    let mut worst: f64 = 0.0;
    for (name, tensor) in compared {
        let (_, other) = b.iter().find(|(known, _)| known == name).unwrap();
        for (x, y) in tensor.data.iter().zip(&other.data) {
            worst = worst.max((x - y).abs() / (1.0 + y.abs()));
        }
    }
    worst
}

#[test]
fn factored_writes_are_dense_writes() {
    for write_grad in ["none", "chunk", "full"] {
        for retain in [1.0, 0.9, 0.0] {
            let of = |form: &str| {
                let options =
                    json!({ "write_grad": write_grad, "form": form, "retain": retain, "memory_lr": 0.3 });
                traced(3, options)
            };
            let (dense, factored) = (of("dense"), of("factored"));
            let (given, _) = inputs(&dense, 11);
            let exact = difference(&run(&factored, &given), &run(&dense, &given));
            assert!(exact <= 1e-12, "{write_grad}, retain {retain}: {exact:e} in the interpreter");
            let [dense, factored] = [dense, factored].map(|graph| {
                let outputs = Replay::cpu(&graph, &[], 2).unwrap().run(&given).unwrap();
                let names = graph.outputs.iter().map(|decl| decl.name.clone());
                names.zip(outputs).collect::<Vec<(String, Tensor)>>()
            });
            let rounded = difference(&factored, &dense);
            assert!(rounded <= 1e-5, "{write_grad}, retain {retain}: {rounded:e} on the CPU");
        }
    }
}

#[test]
fn a_window_of_attention_does_not_see_where_chunks_end() {
    let loss = |chunk: usize, window: usize| {
        let options = json!({ "writes": false, "online_chunk": chunk, "periods": [chunk] });
        let graph = traced_with(2, options, json!({ "heads": 2, "sliding_window": window }));
        let (inputs, _) = inputs(&graph, 11);
        let outputs = run(&graph, &inputs);
        outputs.iter().find(|(name, _)| name == "loss").unwrap().1.data[0]
    };
    let all = loss(9, 0);
    // 9 tokens: windows shorter than a chunk, as long, longer, and longer than the sequence.
    for window in [1, 3, 4, 6, 12] {
        let whole = loss(9, window);
        for chunk in [2, 4] {
            let parts = loss(chunk, window);
            assert!((parts - whole).abs() < 1e-12, "window {window}, chunks of {chunk}: {parts} for {whole}");
        }
        assert_eq!((whole - all).abs() < 1e-12, window >= 9, "window {window}: {whole} beside {all}");
    }
}

/// What a memory holds after a sequence beyond what it starts from, for the batch.
fn moved(mut options: Value, path: &str) -> Vec<f64> {
    options["form"] = json!("dense");
    let graph = traced(2, options);
    let (given, _) = inputs(&graph, 13);
    let start = graph.inputs.iter().position(|decl| decl.name == path).unwrap();
    let outputs = run(&graph, &given);
    let (_, end) = outputs.iter().find(|(name, _)| *name == format!("memory.{path}")).unwrap();
    end.data.iter().zip(given[start].data.iter().cycle()).map(|(end, start)| end - start).collect()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
}

#[test]
fn a_block_teaches_all_its_levels_the_same() {
    let biases =
        |options: Value| [0, 1].map(|level| moved(options.clone(), &format!("layers.0.cms.{level}.b2")));
    // Levels of one pace, which what they are taught alone can tell apart.
    let same_pace = |teach: &str| biases(json!({ "periods": [4, 4], "teach": teach, "memory_lr": 0.3 }));
    let [fast, slow] = same_pace("block");
    assert!(near(&fast, &slow) && fast.iter().any(|x| x.abs() > 1e-3));
    let [fast, slow] = same_pace("task");
    assert!(!near(&fast, &slow), "each level has a signal of its own");
    // The last level gives the output of its block: descent on a distance is twice its own signal.
    let alone = |teach: &str, scale: f64| {
        moved(json!({ "periods": [4], "teach": teach, "teach_scale": scale }), "layers.1.cms.0.w2")
    };
    assert!(near(&alone("block", 1.0), &alone("task", 2.0)));
    assert!(!near(&alone("block", 1.0), &alone("task", 1.0)));
}

#[test]
fn each_level_has_a_step_of_its_own() {
    let fast = |rates: Value| moved(json!({ "periods": [2, 4], "memory_lr": rates }), "layers.0.cms.0.w1");
    let slow = |rates: Value| moved(json!({ "periods": [2, 4], "memory_lr": rates }), "layers.1.cms.1.w1");
    assert!(near(&fast(json!(0.3)), &fast(json!([0.3, 0.3]))));
    assert!(near(&slow(json!(0.3)), &slow(json!([0.3, 0.3]))));
    assert!(!near(&slow(json!(0.3)), &slow(json!([0.3, 0.1]))));
    assert!(slow(json!([0.3, 0.0])).iter().all(|x| *x == 0.0), "a step of 0 writes nothing");
    assert!(fast(json!([0.3, 0.0])).iter().any(|x| *x != 0.0));
}

#[test]
fn a_learned_step_has_the_derivative_of_its_logarithm() {
    let learned = json!({ "periods": [2, 4], "memory_lr": [0.3, 0.1], "learn_memory_lr": true });
    let graph = traced(2, learned);
    for (path, rate) in [("layers.0.cms.0.log_rate", 0.3_f64), ("layers.1.cms.1.log_rate", 0.1)] {
        let (mut given, _) = inputs(&graph, 13);
        for (decl, tensor) in graph.inputs.iter().zip(&mut given) {
            if decl.name.ends_with(".log_rate") {
                tensor.data.fill(if decl.name.contains("cms.0") { 0.3_f64.ln() } else { 0.1_f64.ln() });
            }
        }
        // The derivative of the loss by a logarithm, against a difference.
        let at = graph.inputs.iter().position(|decl| decl.name == path).unwrap();
        let of = |results: &[(String, Tensor)], wanted: &str| {
            results.iter().find(|(name, _)| name == wanted).unwrap().1.data[0]
        };
        let told = of(&run(&graph, &given), &format!("gradient.{path}"));
        let mut loss = |by: f64| {
            given[at].data.fill(rate.ln() + by);
            of(&run(&graph, &given), "loss")
        };
        let measured = (loss(1e-4) - loss(-1e-4)) / 2e-4;
        assert!((told - measured).abs() < 1e-7 && told.abs() > 1e-6, "{path}: {told} for {measured}");
    }
}

/// Whether the first level is written where every token has one prediction, and the surprise of that prediction.
fn writes_at(metric: &str, threshold: f64) -> (bool, f64) {
    let gate = json!({ "periods": [2], "gate": "chunk", "gate_metric": metric, "gate_threshold": threshold,
                       "gate_relative": false });
    let graph = traced(1, gate);
    let (mut given, _) = inputs(&graph, 17);
    let at = |name: &str| graph.inputs.iter().position(|decl| decl.name == name).unwrap();
    // So small a gain that logits are those of the shift, and a teach signal passes all the same.
    given[at("norm.gain")].data.fill(1e-7);
    given[at("targets")].data.fill(3.0);
    let (shift, table) = (&given[at("norm.bias")].data, &given[at("embedding")].data);
    let logits: Vec<f64> =
        table.chunks(8).map(|row| row.iter().zip(shift).map(|(a, b)| a * b).sum()).collect();
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    let chances: Vec<f64> = logits.iter().map(|x| x.exp() / sum).collect();
    let surprise = match metric {
        "loss" => -chances[3].ln(),
        _ => chances.iter().map(|p| -p * p.ln()).sum(),
    };
    let outputs = run(&graph, &given);
    let (_, bias) = outputs.iter().find(|(name, _)| name == "memory.layers.0.cms.0.b2").unwrap();
    (bias.data != given[at("layers.0.cms.0.b2")].data, surprise)
}

#[test]
fn a_gate_measures_the_loss_or_the_entropy_of_predictions() {
    for metric in ["loss", "entropy"] {
        let (_, surprise) = writes_at(metric, 0.0);
        assert!(writes_at(metric, surprise - 1e-4).0, "{metric} is {surprise}");
        assert!(!writes_at(metric, surprise + 1e-4).0, "{metric} is {surprise}");
    }
}

#[test]
fn steps_that_cannot_be_are_refused() {
    let sandbox = Sandbox::new();
    let refused = |options: &[&str], parts: &[&str]| {
        let words = [&["--plugin=hope", "--set=online_chunk=8", "--set=periods=[8, 16]"], options].concat();
        says(&sandbox.refused(&words), parts);
    };
    refused(&["--set=memory_lr=[0.1]"], &["memory_lr", "1 numbers for 2 levels"]);
    refused(&["--set=memory_lr=[0.1, 0.2, 0.3]"], &["memory_lr", "3 numbers for 2 levels"]);
    refused(&["--set=memory_lr=-0.1"], &["memory_lr", "a step is at least 0"]);
    refused(&["--set=memory_lr=[0.1, -0.1]"], &["memory_lr", "a step is at least 0"]);
    refused(&["--set=memory_lr=fast"], &["memory_lr", "fast", "a number"]);
    refused(&["--set=memory_lr=[0.1, \"fast\"]"], &["memory_lr", "fast", "a number"]);
    let learn = "--set=learn_memory_lr=true";
    refused(&[learn, "--set=memory_lr=[0.1, 0.0]"], &["memory_lr", "above 0", "logarithm"]);
    refused(&[learn, "--set=write_grad=none"], &["learn_memory_lr", "write_grad"]);
    refused(&[learn, "--set=window=16"], &["learn_memory_lr", "period 16", "window of 16 tokens"]);
}
