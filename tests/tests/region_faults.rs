//! Mistakes with Scan and When: in a plugin, made by `fixtures/faulty`, each is one sentence; over the bare ABI, made at
//! random, none is a panic.

use std::cell::RefCell;

use data::Stream;
use engine::plugins::Registry;
use engine::trace::{Context, Tracer};
use graph::{DType, NodeId, Ty};
use host_tests::{SMALL, Sandbox, says};
use plugin_api::Op;
use plugin_api::abi::{GraphBuilder, Loc, ParameterSpec, role, scalar};

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
    // Gradients come to the last layer first.
    says(&sentence, &["layers.1.attention.outer.inner", "Bitcast", "has no derivative rule; the path is "]);
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

/// Calls of the builder: some that fit each other, some with operands, attributes and order at random.
struct Hostile<'t> {
    tracer: Tracer<'t>,
    stream: RefCell<Stream>,
    /// f32[2, 3] of the top level and of each open body.
    visible: RefCell<Vec<Vec<u32>>>,
    /// Whatever a call returned.
    all: RefCell<Vec<u32>>,
    counter: u32,
}

impl Hostile<'_> {
    fn below(&self, n: u64) -> u64 {
        self.stream.borrow_mut().below(n)
    }

    fn choose<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn emit(&self, op: Op, inputs: &[u32], ints: &[i64]) -> u32 {
        self.tracer.emit(op as u16, inputs.into(), ints.into(), (&[][..]).into(), here())
    }

    fn begin(&self, op: Op, inputs: &[u32], ints: &[i64]) -> Vec<u32> {
        self.tracer.region_begin(op as u16, inputs.into(), ints.into(), here()).into()
    }

    fn end(&self, results: &[u32]) -> Vec<u32> {
        self.tracer.region_end(results.into(), here()).into()
    }

    fn grad(&self, loss: u32, wrt: &[u32]) -> Vec<u32> {
        self.tracer.grad(loss, wrt.into(), here()).into()
    }

    fn parameter(&self, dims: &[u64]) -> u32 {
        let (name, dims) = (self.choose(&["a", "b"]).into(), dims.into());
        let spec = ParameterSpec { name, dims, role: role::MATRIX, init: 0, init_argument: 1.0 };
        self.tracer.parameter(spec, here())
    }

    fn seen(&self) -> u32 {
        self.choose(&self.visible.borrow().concat())
    }

    /// A call that fits those before it.
    fn fitting(&self) {
        let open = self.visible.borrow().len() - 1;
        let made = match self.below(8) {
            0 | 1 => self.emit(self.choose(&[Op::Add, Op::Mul]), &[self.seen(), self.seen()], &[]),
            2 => self.emit(Op::Tanh, &[self.seen()], &[]),
            3 => self.parameter(&[2, 3]),
            4 => {
                let sum = self.emit(Op::Sum, &[self.seen()], &[0, 1]);
                self.grad(self.emit(Op::Reshape, &[sum], &[]), &[self.seen()])[0]
            }
            5 if open < 3 => {
                let counter = self.counter;
                let inside = match self.below(2) {
                    0 => self.begin(Op::Scan, &[self.seen()], &[2, 1, 0, self.below(2) as i64])[1],
                    _ => self.begin(Op::When, &[counter, self.seen()], &[2, 1])[0],
                };
                return self.visible.borrow_mut().push(vec![inside]);
            }
            6 | 7 if open > 0 => {
                let result = self.end(&[self.seen()])[0];
                self.visible.borrow_mut().pop();
                result
            }
            _ => self.seen(),
        };
        self.all.borrow_mut().push(made);
        self.visible.borrow_mut().last_mut().expect("the top level stays").push(made);
    }

    /// An id of any node, of none, of a body that has ended.
    fn id(&self) -> u32 {
        match self.below(8) {
            0 => u32::MAX - self.below(2) as u32,
            1 => self.below(200) as u32,
            2 => self.seen(),
            _ => self.choose(&self.all.borrow()),
        }
    }

    fn ids(&self) -> Vec<u32> {
        (0..self.below(4)).map(|_| self.id()).collect()
    }

    fn ints(&self) -> Vec<i64> {
        (0..self.below(6)).map(|_| self.choose(&[0, 1, 1, 2, 2, 3, -1, i64::MAX, i64::MIN])).collect()
    }

    fn wild(&self) {
        let ops = [Op::Add, Op::Sum, Op::Reshape, Op::Slice, Op::Scan, Op::Result, Op::Bitcast, Op::Gather];
        let made = match self.below(8) {
            0 | 1 => vec![self.emit(self.choose(&ops), &self.ids(), &self.ints())],
            2 => self.begin(self.choose(&[Op::Scan, Op::Scan, Op::When, Op::Add]), &self.ids(), &self.ints()),
            3 => self.end(&self.ids()),
            4 => self.grad(self.id(), &self.ids()),
            5 => vec![self.parameter(self.choose(&[&[3, 2], &[0, 3], &[u64::MAX, u64::MAX]]))],
            6 => {
                let dims: &[u64] = self.choose(&[&[], &[0], &[u64::MAX, 2]]);
                vec![self.tracer.random(dims.into(), here()), self.tracer.scalar(9, 0.5, here())]
            }
            _ => {
                self.tracer.report("metric".into(), self.id(), here());
                self.tracer.write(self.id(), self.id(), here());
                vec![self.tracer.component(1, "".into(), "{}".into(), self.ids()[..].into(), here())]
            }
        };
        self.all.borrow_mut().extend(made);
    }
}

#[test]
fn hostile_calls_are_errors_and_no_panics() {
    let registry = Registry::of(Vec::new());
    let context = Context { registry: &registry, attention: None, vocab: 8 };
    let mut with_bodies = 0;
    for seed in 0..3000 {
        let tracer = Tracer::new(&context, None, true);
        let x = tracer.graph(|graph| graph.input("x", Ty::new(DType::F32, &[2, 3])).0);
        let counter = tracer.scalar(scalar::STEP_INDEX, 0.0, here());
        let stream = RefCell::new(Stream::new(seed, "hostile", 0));
        let (visible, all) = (RefCell::new(vec![vec![x]]), RefCell::new(vec![x, counter]));
        let hostile = Hostile { tracer, stream, visible, all, counter };
        let is_wild = seed % 3 > 0;
        for _ in 0..5 + seed % 30 {
            match is_wild && hostile.below(4) == 0 {
                true => hostile.wild(),
                false => hostile.fitting(),
            }
        }
        while hostile.visible.borrow().len() > 1 {
            hostile.end(&[hostile.seen()]);
            hostile.visible.borrow_mut().pop();
        }
        hostile.tracer.graph(|graph| graph.output("last", NodeId(hostile.seen())));
        match hostile.tracer.finish("test") {
            Ok(traced) => {
                graph::verify(&traced.graph).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                with_bodies += usize::from(!traced.graph.bodies.is_empty());
            }
            Err(error) => assert!(is_wild, "seed {seed}: {error}"),
        }
    }
    assert!(with_bodies > 100, "{with_bodies} traces were whole and had bodies");
}
