//! Random numbers as plugins draw them: words against Threefry itself, on every device and number of threads.

use device_wgpu::Wgpu;
use engine::plugins::Registry;
use engine::trace::{Context, Tracer, key};
use graph::interp::Tensor as Value;
use graph::{Graph, NodeId};
use host_tests::devices;
use host_tests::replay::{Replay, prepared};
use plugin_api::abi::GraphBuilder_TO;
use plugin_api::abi_stable::RRef;
use plugin_api::abi_stable::sabi_trait::TD_Opaque;
use plugin_api::{Cx, Scan, Tensor};

const SEED: u64 = 0x0123_4567_89ab_cdef;
const MICRO_BATCH: u64 = 5;

/// A trace in training whose outputs are what `build` returns.
fn traced(build: impl for<'c> Fn(&'c Cx<'c>) -> Vec<Tensor<'c>>) -> Graph {
    let registry = Registry::of(Vec::new());
    let context = Context { registry: &registry, attention: None, vocab: 0 };
    let tracer = Tracer::new(&context, None, true);
    let ids: Vec<u32> = {
        let builder = GraphBuilder_TO::from_ptr(RRef::new(&tracer), TD_Opaque);
        let cx = Cx::new(&builder);
        build(&cx).into_iter().map(Tensor::id).collect()
    };
    tracer.graph(|graph| {
        ids.iter().enumerate().for_each(|(index, id)| graph.output(&index.to_string(), NodeId(*id)))
    });
    tracer.finish("test").unwrap_or_else(|error| panic!("{error}")).graph
}

fn run(graph: &Graph, replay: Result<Replay, String>) -> Vec<Vec<f64>> {
    let words = |name: &str| key(name, SEED, MICRO_BATCH).expect("every input is a key");
    let feed =
        |decl: &graph::Decl| Value { ty: decl.ty.clone(), data: words(&decl.name).map(f64::from).to_vec() };
    let inputs: Vec<Value> = graph.inputs.iter().map(feed).collect();
    let outputs = replay.and_then(|mut replay| replay.run(&inputs));
    outputs.unwrap_or_else(|error| panic!("{error}")).into_iter().map(|tensor| tensor.data).collect()
}

/// On 1, 2 and 3 threads, which must not differ.
fn on_cpu(graph: &Graph) -> Vec<Vec<f64>> {
    let [one, two, three] = [1, 2, 3].map(|threads| run(graph, Replay::cpu(graph, &[], threads)));
    assert_eq!(one, two);
    assert_eq!(one, three);
    one
}

/// None where there is no adapter.
fn on_wgpu(graph: &Graph) -> Option<Vec<Vec<f64>>> {
    let device = devices::wgpu()?;
    let set = prepared(graph, &Wgpu::caps(), &[]);
    Some(run(graph, set.and_then(|set| Replay::loaded(graph, device, set))))
}

/// Words of a stream as the definition says: blocks of two, the iteration in the second word of the counter.
fn expected(path: &str, count: usize, iteration: u32) -> Vec<f64> {
    let key =
        data::threefry([SEED as u32, (SEED >> 32) as u32], [data::stream_number(path), MICRO_BATCH as u32]);
    (0..count).map(|i| f64::from(data::threefry(key, [i as u32 / 2, iteration])[i % 2])).collect()
}

#[test]
fn words_are_threefry_of_scope_micro_batch_and_iteration() {
    let graph = traced(|cx| {
        let one = cx.random_words(&[3, 5]);
        let (two, three) = cx.scope("a", || (cx.random_words(&[4]), cx.random_words(&[4])));
        let many = cx.scope("many", || cx.random_words(&[300, 301]));
        let (_, inner) = cx.scan(Scan::over(3), &[], &[], |_, _, _| {
            let (_, ys) = cx.scan(Scan::over(2).reverse(), &[], &[], |_, _, _| {
                (vec![], vec![cx.scope("b", || cx.random_words(&[4]))])
            });
            (vec![], ys)
        });
        vec![one, two, three, many, inner[0]]
    });
    let in_loops: Vec<f64> = (0..6).flat_map(|iteration| expected("b", 4, iteration)).collect();
    let wanted = [
        expected("", 15, 0),
        expected("a", 4, 0),
        expected("a#1", 4, 0),
        expected("many", 90300, 0),
        in_loops,
    ];
    let mut devices = vec![run(&graph, Ok(Replay::interpreter(&graph))), on_cpu(&graph)];
    devices.extend(on_wgpu(&graph));
    for outputs in devices {
        for (index, (actual, wanted)) in outputs.iter().zip(&wanted).enumerate() {
            let differs = actual.iter().zip(wanted).position(|(actual, wanted)| actual != wanted);
            assert_eq!((differs, actual.len()), (None, wanted.len()), "output {index}");
        }
    }
}

#[test]
fn a_loop_in_groups_draws_what_the_plain_loop_draws() {
    let draws = |scan: Scan| {
        let graph =
            traced(|cx| cx.scan(scan, &[], &[], |step, _, _| (vec![], vec![cx.random_words(&[3]), step])).1);
        on_cpu(&graph)
    };
    let plain = draws(Scan::over(6));
    assert_eq!(plain[1], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(plain, draws(Scan::over(6).every(2)));
    assert_eq!(plain, draws(Scan::over(6).every(3).reverse()));
}

#[test]
fn numbers_are_made_from_words_as_defined() {
    let graph =
        traced(|cx| vec![cx.scope("u", || cx.uniform(&[3, 5])), cx.scope("n", || cx.normal(&[3, 5]))]);
    let unit = 0.5f64.powi(24);
    let upper = |word: &f64| (*word as u32 >> 8) as f64;
    let uniform: Vec<f64> = expected("u", 15, 0).iter().map(|word| upper(word) * unit).collect();
    let blocks = expected("n", 16, 0);
    let normal: Vec<f64> = blocks
        .chunks(2)
        .flat_map(|block| {
            let radius = (-2.0 * ((upper(&block[0]) + 1.0) * unit).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * upper(&block[1]) * unit).sin_cos();
            [radius * cos, radius * sin]
        })
        .take(15)
        .collect();
    let mut devices = vec![(run(&graph, Ok(Replay::interpreter(&graph))), 1e-10), (on_cpu(&graph), 2e-5)];
    devices.extend(on_wgpu(&graph).map(|outputs| (outputs, 2e-5)));
    for (outputs, tolerance) in devices {
        assert_eq!(outputs[0], uniform);
        for (actual, expected) in outputs[1].iter().zip(&normal) {
            assert!((actual - expected).abs() < tolerance, "{actual} for {expected}");
        }
    }
}

#[test]
fn dropout_keeps_the_mean_and_drops_its_share() {
    let graph = traced(|cx| {
        let ones = cx.constant(1.0, plugin_api::DType::F32, &[100, 1000]);
        vec![cx.dropout(ones, 0.2)]
    });
    let outputs = on_cpu(&graph);
    assert_eq!(
        outputs,
        run(&graph, Ok(Replay::interpreter(&graph)))
            .iter()
            .map(|values| { values.iter().map(|x| f64::from(*x as f32)).collect::<Vec<_>>() })
            .collect::<Vec<_>>()
    );
    let dropped = outputs[0].iter().filter(|x| **x == 0.0).count();
    // The standard deviation of the count is 126.
    assert!(dropped.abs_diff(20_000) < 700, "{dropped} of 100000");
    assert!(outputs[0].iter().all(|x| *x == 0.0 || *x == 1.25));
}
