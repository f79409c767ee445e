//! Mistakes with Scan and When: in a plugin, made by `fixtures/faulty`, each is one sentence; over the bare ABI, made at
//! random, none is a panic.

use std::cell::RefCell;

use data::Stream;
use engine::plugins::Registry;
use engine::trace::{Context, Tracer};
use graph::{DType, Ty};
use host_tests::{SMALL, Sandbox, says};
use plugin_api::Op;
use plugin_api::abi::{GraphBuilder, Loc, ParameterSpec, role};

const SOURCE: &str = "tests/fixtures/faulty/src/regions.rs:";

fn refused(mistake: &str) -> String {
    let sandbox = Sandbox::new();
    let chosen =
        ["run", "--attention=regions", "--out=run", &format!("--set=attention.regions.mistake={mistake}")];
    let sizes = SMALL.iter().filter(|set| !set.contains("heads"));
    let words: Vec<&str> = chosen.iter().chain(sizes).copied().collect();
    let sentence = sandbox.host_with("faulty", &words).failed();
    assert!(!sandbox.path("run").exists(), "a refused run left a folder");
    sentence
}

#[test]
fn errors_in_nested_bodies_name_layer_operands_and_line() {
    let sentence = refused("shape");
    says(
        &sentence,
        &["layers.0.attention.outer.inner", "Dot", "f32[4, 48, 32]", "wrong f32[32, 33]", SOURCE],
    );
    says(&sentence, &["model-transformer > faulty"]);
    let sentence = refused("dtype");
    says(&sentence, &["layers.0.attention.outer.inner", "Add", "f32[4, 48, 32]", "i32[4, 48, 32]", SOURCE]);
}

#[test]
fn a_missing_derivative_in_a_nested_body_prints_its_path() {
    let sentence = refused("derivative");
    says(&sentence, &["layers.0.attention.outer.inner", "Bitcast", "has no derivative rule; the path is "]);
    says(&sentence, &["u32[4, 48, 32]", "f32[4, 48, 32]", "use stop_grad"]);
}

#[test]
fn bodies_that_do_not_fit_are_refused() {
    says(
        &refused("carry"),
        &["Scan", "as carry 0", "f32[4, 1, 32]", "f32[4, 48, 32]", "keeps its dtype", SOURCE],
    );
    says(&refused("count"), &["the body returns 1 carries, and began with 2", SOURCE]);
    says(&refused("uneven"), &["7 steps cannot keep its carries every 2", SOURCE]);
    says(&refused("slices"), &["Scan", "takes 5 slices of", "f32[4, 48, 32]", SOURCE]);
}

#[test]
fn a_tensor_of_a_body_that_has_ended_is_refused() {
    for mistake in ["usedafter", "foreign"] {
        let sentence = refused(mistake);
        says(&sentence, &["layers.0.attention", "f32[4, 48, 32], which belongs to a region that has ended"]);
        says(&sentence, &["return it from the body", SOURCE]);
    }
}

#[test]
fn effects_in_a_body_are_refused() {
    says(&refused("write"), &["writes optimizer state inside a Scan", "use it outside", SOURCE]);
    says(&refused("report"), &["reports metric size inside a Scan", "use it outside", SOURCE]);
}

#[test]
fn a_body_without_an_end_is_named() {
    says(
        &refused("panic"),
        &["layers.0.attention", "attention regions of plugin faulty", "the body gave up", SOURCE],
    );
    says(&refused("leftopen"), &["layers.0.attention", "Scan is begun here and never ended", SOURCE]);
}

fn here() -> Loc<'static> {
    Loc { file: "src/lib.rs".into(), line: 1, column: 1 }
}

/// Calls of the builder with operands, attributes and order at random: ids of any node, of none, of closed bodies.
struct Hostile<'t> {
    tracer: Tracer<'t>,
    stream: RefCell<Stream>,
    ids: RefCell<Vec<u32>>,
    /// Values that each open body began from.
    open: RefCell<Vec<usize>>,
}

impl Hostile<'_> {
    fn below(&self, n: u64) -> u64 {
        self.stream.borrow_mut().below(n)
    }

    fn id(&self) -> u32 {
        let ids = self.ids.borrow();
        match self.below(100) {
            0 => u32::MAX - self.below(2) as u32,
            1..4 => self.below(200) as u32,
            // Tensors of one type, so that some calls fit.
            4..60 => ids[0],
            _ => ids[self.below(ids.len() as u64) as usize],
        }
    }

    /// Up to `most` of them.
    fn some(&self, most: u64) -> Vec<u32> {
        (0..self.below(most + 1)).map(|_| self.id()).collect()
    }

    fn int(&self) -> i64 {
        [0, 1, 2, 2, 3, -1, i64::MAX, i64::MIN][self.below(8) as usize]
    }

    fn call(&self) {
        let ops =
            [Op::Add, Op::Mul, Op::Tanh, Op::Sum, Op::Reshape, Op::Slice, Op::Scan, Op::Result, Op::Bitcast];
        let made: Vec<u32> = match self.below(20) {
            0..4 => {
                let op = ops[self.below(ops.len() as u64) as usize];
                let ints: Vec<i64> = (0..self.below(3)).map(|_| self.int()).collect();
                let inputs = self.some(2);
                vec![self.tracer.emit(
                    op as u16,
                    inputs[..].into(),
                    ints[..].into(),
                    (&[][..]).into(),
                    here(),
                )]
            }
            4..8 => {
                let op = [Op::Add, Op::Mul][self.below(2) as usize];
                let inputs = [self.id(), self.id()];
                vec![self.tracer.emit(
                    op as u16,
                    inputs[..].into(),
                    (&[][..]).into(),
                    (&[][..]).into(),
                    here(),
                )]
            }
            8..11 => {
                let mut inputs = self.some(3);
                let op = [Op::Scan, Op::When, Op::Add][(self.below(19) / 9) as usize];
                if op == Op::When && self.below(8) > 0 {
                    inputs.insert(0, self.ids.borrow()[2]);
                }
                let ints = match self.below(8) {
                    0 => (0..self.below(6)).map(|_| self.int()).collect(),
                    _ => vec![2, (op == Op::Scan).then_some(inputs.len() as i64).unwrap_or(1), 0, 0],
                };
                let ints = if op == Op::When { &ints[..ints.len().min(2)] } else { &ints[..] };
                let inside: Vec<u32> =
                    self.tracer.region_begin(op as u16, inputs[..].into(), ints.into(), here()).into();
                self.open.borrow_mut().push(inputs.len() - usize::from(op == Op::When && !inputs.is_empty()));
                inside
            }
            11..15 => {
                let wanted = self.open.borrow_mut().pop().unwrap_or(1);
                let mut results = self.some(3);
                if self.below(8) > 0 {
                    results.resize_with(wanted, || self.id());
                }
                self.tracer.region_end(results[..].into(), here()).into()
            }
            15 => {
                let loss = if self.below(4) > 0 { self.ids.borrow()[1] } else { self.id() };
                self.tracer.grad(loss, self.some(3)[..].into(), here()).into()
            }
            16 => {
                let name = ["a", "b"][self.below(2) as usize];
                let dims = [3, self.below(3)];
                let dims = dims[..self.below(3) as usize].into();
                let spec = ParameterSpec {
                    name: name.into(),
                    dims,
                    role: role::MATRIX,
                    init: 0,
                    init_argument: 1.0,
                };
                vec![self.tracer.parameter(spec, here())]
            }
            17 => {
                let dims = [self.below(4), u64::MAX];
                vec![self.tracer.random(dims[..1 + (self.below(8) / 7) as usize].into(), here())]
            }
            18 => vec![self.tracer.scalar(self.below(5) as u16, 0.5, here())],
            _ => {
                self.tracer.report("metric".into(), self.id(), here());
                self.tracer.write(self.id(), self.id(), here());
                self.tracer.component(1, "".into(), "{}".into(), self.some(2)[..].into(), here());
                return;
            }
        };
        self.ids.borrow_mut().extend(made);
    }
}

#[test]
fn hostile_calls_are_errors_and_no_panics() {
    let registry = Registry::of(Vec::new());
    let context = Context { registry: &registry, attention: None, vocab: 8 };
    let (mut whole, mut with_bodies) = (0, 0);
    for seed in 0..4000 {
        let tracer = Tracer::new(&context, None, true);
        let first = tracer.graph(|graph| {
            let x = graph.input("x", Ty::new(DType::F32, &[2, 3]));
            [x, graph.input("loss", Ty::scalar(DType::F32)), graph.input("counter", Ty::scalar(DType::I32))]
        });
        let ids = RefCell::new(first.map(|id| id.0).to_vec());
        let stream = RefCell::new(Stream::new(seed, "hostile", 0));
        let hostile = Hostile { tracer, stream, ids, open: RefCell::default() };
        // Some traces are short enough to be right by chance.
        (0..2 + seed % 30).for_each(|_| hostile.call());
        hostile.tracer.graph(|graph| {
            let ids = hostile.ids.borrow();
            let last = ids.iter().rev().find(|id| (**id as usize) < graph.nodes.len());
            let last = graph::NodeId(*last.expect("the inputs are there"));
            graph.output("last", last);
        });
        if let Ok(traced) = hostile.tracer.finish("test") {
            graph::verify(&traced.graph).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            whole += 1;
            with_bodies += usize::from(!traced.graph.bodies.is_empty());
        }
    }
    assert!(whole > 50 && with_bodies > 0, "{whole} traces were whole, {with_bodies} of them with bodies");
}
