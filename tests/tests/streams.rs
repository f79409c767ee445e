//! Texts read window by window: memories carry everything over that one long window would, and nothing else does.

use engine::plugins::Registry;
use graph::Graph;
use graph::interp::Tensor;
use host_tests::replay::Replay;
use host_tests::windows::{Place, Reader, output, plan, texts};
use host_tests::{Run, Sandbox, says};

const ROWS: usize = 2;
/// Tokens of a window, and windows of a text.
const WINDOW: usize = 4;
const WINDOWS: usize = 4;

/// Levels that are written within a window, at its end, after two, and after all four but for the flush, which comes too
/// late to be read.
const PERIODS: &str = "periods=[2, 4, 8, 16]";

fn traced(registry: &Registry, name: &str, sizes: [usize; 3], settings: &[&str]) -> Graph {
    plan(registry, name, sizes, settings).unwrap_or_else(|error| panic!("{settings:?}: {error}"))
}

fn reader(graph: &Graph, on_cpu: bool) -> Reader {
    let replay = if on_cpu { Replay::cpu(graph, &[], 2) } else { Ok(Replay::interpreter(graph)) };
    Reader::new(graph.clone(), replay.unwrap_or_else(|error| panic!("{error}")))
}

/// Window `part` of each text, and the token after it.
fn window(texts: &[Vec<usize>], part: usize) -> Vec<Vec<usize>> {
    texts.iter().map(|row| row[part * WINDOW..=(part + 1) * WINDOW].to_vec()).collect()
}

/// Reads all windows of texts. Returns the outputs of each.
fn stream(reader: &mut Reader, texts: &[Vec<usize>]) -> Vec<Vec<(String, Tensor)>> {
    let read = |part: usize| {
        let place = Place { read: &vec![part * WINDOW; texts.len()], fresh: &vec![part == 0; texts.len()] };
        reader.read(&window(texts, part), &place)
    };
    (0..WINDOWS).map(read).collect()
}

/// Token losses of a row of `[ROWS, T]`.
fn losses(outputs: &[(String, Tensor)], row: usize) -> Vec<f64> {
    let all = output(outputs, "token_losses");
    let tokens = all.len() / ROWS;
    all[row * tokens..][..tokens].to_vec()
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs() / (1.0 + b.abs()))
        .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

#[test]
fn windows_of_a_text_are_read_as_one_long_window() {
    let sandbox = Sandbox::new();
    let registry = sandbox.registry_with("alone");
    let texts = texts(ROWS, WINDOW * WINDOWS, 1);
    let cases: &[&[&str]] = &[
        &["layers=2"],
        &["writes=false"],
        &["retain=0.5", "write_grad=none"],
        &["learn_memory_lr=true", "write_grad=chunk", "periods=[2]"],
        &["teach=block", "memory_lr=[0.3, 0.2, 0.1, 0.0]"],
        &["gate=chunk", "gate_metric=loss", "gate_threshold=1.02"],
        &["gate=chunk", "gate_threshold=0.9", "retain=0.5"],
        &["gate=token", "gate_metric=loss", "gate_threshold=2.1", "gate_relative=false"],
        &["gate=token", "gate_metric=entropy", "gate_threshold=1.0"],
    ];
    let mut seen: Vec<Vec<f64>> = Vec::new();
    for case in cases {
        let settings = [&[PERIODS], *case].concat();
        let long = traced(&registry, "eval", [ROWS, WINDOW * WINDOWS, 1], &settings);
        let short = traced(&registry, "eval", [ROWS, WINDOW, WINDOWS], &settings);
        for on_cpu in [false, true] {
            let (mut long, mut short) = (reader(&long, on_cpu), reader(&short, on_cpu));
            let whole = long.read(&texts, &Place { read: &[0; ROWS], fresh: &[true; ROWS] });
            // Read twice: what an earlier text has left is not read by the next.
            for _ in 0..2 {
                let parts = stream(&mut short, &texts);
                for row in 0..ROWS {
                    let joined: Vec<f64> = parts.iter().flat_map(|outputs| losses(outputs, row)).collect();
                    let off = worst(&joined, &losses(&whole, row));
                    let most = if on_cpu { 2e-5 } else { 1e-12 };
                    assert!(off <= most, "{case:?}, on the CPU: {on_cpu}, row {row}: {off:e}");
                }
            }
            if !on_cpu {
                // Each case is another computation, or it would prove nothing.
                let own = losses(&whole, 0);
                assert!(seen.iter().all(|other| worst(&own, other) > 1e-9), "{case:?} changes nothing");
                seen.push(own);
            }
        }
    }
}

#[test]
fn a_row_that_starts_a_new_text_starts_from_zeros() {
    let sandbox = Sandbox::new();
    let registry = sandbox.registry_with("alone");
    let settings = [PERIODS, "gate=token"];
    let texts = texts(ROWS, WINDOW * WINDOWS, 2);
    let graph = traced(&registry, "eval", [ROWS, WINDOW, WINDOWS], &settings);
    let start = Place { read: &[0; ROWS], fresh: &[true; ROWS] };
    for on_cpu in [false, true] {
        let after = |before: Option<usize>, place: &Place<'_>| {
            let mut reader = reader(&graph, on_cpu);
            if let Some(part) = before {
                reader.read(&window(&texts, part), &start);
            }
            reader.read(&window(&texts, 1), place)
        };
        let new = after(None, &start);
        let on = after(Some(0), &Place { read: &[WINDOW; ROWS], fresh: &[false; ROWS] });
        // One row goes on, the other starts.
        let mixed = after(Some(0), &Place { read: &[WINDOW, 0], fresh: &[false, true] });
        assert_ne!(losses(&new, 1), losses(&on, 1), "memories are read");
        assert_eq!(losses(&mixed, 0), losses(&on, 0), "on the CPU: {on_cpu}");
        assert_eq!(losses(&mixed, 1), losses(&new, 1), "on the CPU: {on_cpu}");
    }
}

/// Gradients of each bank, from the State of an optimizer that keeps nothing else.
fn gradients(reader: &Reader) -> Vec<(String, Vec<f64>)> {
    let states = reader
        .states()
        .into_iter()
        .filter(|(name, _)| name.starts_with("optimizer.") && name.ends_with(".m"));
    states.map(|(name, tensor)| (name, tensor.data)).collect()
}

#[test]
fn gradients_stop_at_a_window_and_writes_do_not() {
    let sandbox = Sandbox::new();
    let registry = sandbox.registry_with("alone");
    let texts = texts(ROWS, WINDOW * WINDOWS, 3);
    for (write_grad, same) in [("none", true), ("chunk", false), ("full", false)] {
        let settings = [PERIODS, &format!("write_grad={write_grad}")];
        let mut long = reader(&traced(&registry, "step", [ROWS, WINDOW * WINDOWS, 1], &settings), false);
        let whole = long.read(&texts, &Place { read: &[0; ROWS], fresh: &[true; ROWS] });
        let wanted = gradients(&long);
        let mut short = reader(&traced(&registry, "step", [ROWS, WINDOW, WINDOWS], &settings), false);
        let (mut loss, mut sums) = (0.0, Vec::new());
        for part in 0..WINDOWS {
            let place = Place { read: &[part * WINDOW; ROWS], fresh: &[part == 0; ROWS] };
            loss += output(&short.read(&window(&texts, part), &place), "loss")[0] / WINDOWS as f64;
            let own = gradients(&short);
            if sums.is_empty() {
                sums = own.iter().map(|(_, data)| vec![0.0; data.len()]).collect();
            }
            for (sum, (_, data)) in sums.iter_mut().zip(&own) {
                sum.iter_mut().zip(data).for_each(|(sum, value)| *sum += value / WINDOWS as f64);
            }
        }
        let whole = output(&whole, "loss")[0];
        assert!((loss - whole).abs() < 1e-12, "{write_grad}: what is read is the same, {loss} for {whole}");
        let off = wanted.iter().zip(&sums).map(|((_, wanted), sum)| worst(sum, wanted)).fold(0.0, f64::max);
        // Where no gradient passes a write, none is lost between windows.
        assert_eq!(off < 1e-12, same, "{write_grad}: gradients differ by {off:e}");
    }
}

#[test]
fn a_period_that_fits_no_window_is_refused() {
    let sandbox = Sandbox::new();
    let registry = sandbox.registry_with("alone");
    for (periods, layer) in [("periods=[2, 6]", "layers.0.cms.1"), ("periods=[6]", "layers.0.cms.0")] {
        let trace = |sizes| plan(&registry, "eval", sizes, &[periods]);
        assert!(trace([ROWS, WINDOW, 1]).is_ok(), "without a stream {periods} is no fault");
        let error = trace([ROWS, WINDOW, WINDOWS]).err().map(|error| error.to_string()).unwrap_or_default();
        says(&error, &[layer, "a period of 6 tokens", "the 4 tokens", "periods", "train.window"]);
    }
}

/// Two levels that are written in a window and once in two windows.
const STREAMING: [&str; 8] = [
    "--plugin=hope",
    "--set=train.stream=4",
    "--set=window=16",
    "--set=d_model=16",
    "--set=online_chunk=8",
    "--set=periods=[8, 32]",
    "--set=batch=2",
    "--set=save_every=5",
];

#[test]
fn a_resumed_stream_goes_on_to_the_bit() {
    let sandbox = Sandbox::new();
    let run =
        |out: &str| sandbox.train(out, &[&STREAMING[..], &["--steps=11", "--set=eval_every=3"]].concat());
    let (whole, cut) = (run("whole"), run("cut"));
    assert_eq!(whole.checkpoints(), ["step-00000005", "step-00000010", "step-00000011"]);
    let state = |run: &Run, step: &str| {
        let file = run.folder.join("checkpoints").join(step).join("state.safetensors");
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    let names = memories(&state(&whole, "step-00000005"));
    assert!(names.iter().any(|name| name == "memory.train.layers.0.cms.0.w1"), "{names:?}");
    assert!(names.iter().any(|name| name == "memory.train.layers.1.cms.1.b2.pending"), "{names:?}");
    // As if the run had died after its second text began.
    sandbox.write("cut/checkpoints/latest", "step-00000005");
    sandbox.host(&["run", "--resume=cut"]).succeeded();
    assert_eq!(cut.trace(), whole.trace());
    assert_eq!(cut.metrics(), whole.metrics());
    for step in ["step-00000010", "step-00000011"] {
        assert!(state(&cut, step) == state(&whole, step), "{step}");
    }
    assert_eq!(cut.json("summary.json")["val_loss"], whole.json("summary.json")["val_loss"]);
}

#[test]
fn a_step_in_the_middle_of_a_text_can_be_compared() {
    let sandbox = Sandbox::new();
    // Each node of the step is compiled alone, so the model is as small as it can be.
    let least = ["--optim=adamw", "--set=layers=1", "--set=d_model=8", "--set=periods=[8, 32]", "--steps=6"];
    sandbox.train("run", &[&STREAMING[..], &least].concat());
    let text = sandbox.host(&["bisect", "run", "7"]).succeeded().stdout;
    says(&text, &["step 7: ", "the checkpoint of step 6", "no divergence above 1e-4"]);
}

/// Names of memories of a checkpoint.
fn memories(bytes: &[u8]) -> Vec<String> {
    let file = safetensors::SafeTensors::deserialize(bytes).expect("a checkpoint is a safetensors file");
    file.names().into_iter().filter(|name| name.starts_with("memory.")).map(|name| name.to_string()).collect()
}

#[test]
fn a_stream_of_micro_batches_is_refused() {
    let sandbox = Sandbox::new();
    let sentence = sandbox.refused(&[&STREAMING[..], &["--set=accumulate=2"]].concat());
    says(&sentence, &["train.stream", "micro-batches", "train.accumulate = 1"]);
    let sentence = sandbox.refused(&[&STREAMING[..], &["--set=periods=[8, 24]"]].concat());
    says(&sentence, &["layers.0.cms.1", "a period of 24 tokens", "the 16 tokens", "periods", "train.window"]);
}
