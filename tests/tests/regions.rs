//! Scan against its unroll and When against Select: values, first and second derivatives, every policy, in the
//! interpreter and on the CPU.

use graph::interp;
use graph::{Builder, DType, Graph, NodeId, Op, ScanOptions, Ty, Var, grad};
use host_tests::replay::{Replay, inputs, interpreted, on_cpu};

/// How a loop or a condition is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Region {
        recompute: bool,
    },
    /// By hand: slices, steps, a concatenation; Select.
    Plain,
}

const FORMS: [Form; 3] = [Form::Plain, Form::Region { recompute: false }, Form::Region { recompute: true }];

type Body<'b> = &'b mut dyn FnMut(&mut Graph, NodeId, &[NodeId], &[NodeId]) -> (Vec<NodeId>, Vec<NodeId>);

fn looped(
    graph: &mut Graph,
    form: Form,
    (length, reverse): (usize, bool),
    carries: &[NodeId],
    xs: &[NodeId],
    body: Body<'_>,
) -> (Vec<NodeId>, Vec<NodeId>) {
    if let Form::Region { recompute } = form {
        let inside = graph.open_scan(length, carries, xs, ScanOptions { reverse, recompute });
        let (own, slices) = inside[1..].split_at(carries.len());
        let (next, ys) = body(graph, inside[0], own, slices);
        let mut results = graph.close_region(&[next, ys].concat());
        let ys = results.split_off(carries.len());
        return (results, ys);
    }
    let mut carries = carries.to_vec();
    let mut parts: Vec<Vec<NodeId>> = Vec::new();
    for step in 0..length {
        let index = if reverse { length - 1 - step } else { step };
        let number = graph.constant(index as f64, DType::I32, &[]);
        let slices: Vec<NodeId> = xs.iter().map(|x| row(graph, *x, index)).collect();
        let (next, ys) = body(graph, number, &carries, &slices);
        carries = next;
        parts.push(ys);
    }
    if reverse {
        parts.reverse();
    }
    let stacked = (0..parts[0].len()).map(|y| {
        let rows: Vec<NodeId> = parts
            .iter()
            .map(|step| {
                let dims: Vec<i64> =
                    std::iter::once(1).chain(graph.dims(step[y]).iter().map(|dim| *dim as i64)).collect();
                graph.emit(Op::Reshape, &[step[y]], &dims, &[])
            })
            .collect();
        graph.emit(Op::Concat, &rows, &[0], &[])
    });
    let stacked = stacked.collect();
    (carries, stacked)
}

fn row(graph: &mut Graph, x: NodeId, index: usize) -> NodeId {
    let dims = graph.dims(x).to_vec();
    Builder::with(graph, |b| {
        let mut ranges: Vec<(usize, usize)> = dims.iter().map(|dim| (0, *dim)).collect();
        ranges[0] = (index, 1);
        b.var(x).slice(&ranges).reshape(&dims[1..]).id
    })
}

/// `old` replaced by `body(old)` where the counter is `offset` modulo `period`.
fn sometimes(
    graph: &mut Graph,
    form: Form,
    (counter, period, offset): (NodeId, usize, usize),
    old: NodeId,
    body: impl FnOnce(&mut Graph, NodeId) -> NodeId,
) -> NodeId {
    if let Form::Region { .. } = form {
        let inside = graph.open_when(counter, period, offset, &[old]);
        let new = body(graph, inside[0]);
        return graph.close_region(&[new])[0];
    }
    let new = body(graph, old);
    Builder::with(graph, |b| {
        let counter = b.var(counter);
        let rest = counter.binary(Op::Rem, counter.constant(period as f64));
        let due = rest.binary(Op::Eq, counter.constant(offset as f64));
        due.like(b.var(old)).select(b.var(new), b.var(old)).id
    })
}

fn vars<R>(graph: &mut Graph, build: impl FnOnce(&Builder) -> R) -> R {
    Builder::with(graph, build)
}

/// W s for w[3, 3], s[3].
fn matvec<'b>(w: Var<'b>, s: Var<'b>) -> Var<'b> {
    (w * s.like(w)).sum(&[1]).reshape(&[3])
}

type Program = fn(&mut Graph, Form, &[NodeId]) -> NodeId;

/// A recurrent network: one carry, one const, ys and xs.
fn recurrent(graph: &mut Graph, form: Form, x: &[NodeId]) -> NodeId {
    let (w, start, xs) = (x[0], x[1], x[2]);
    let (last, ys) = looped(graph, form, (4, false), &[start], &[xs], &mut |graph, _, s, x| {
        vars(graph, |b| {
            let next = (matvec(b.var(w), b.var(s[0])) + b.var(x[0])).unary(Op::Tanh);
            (vec![next.id], vec![(next * b.var(x[0])).id])
        })
    });
    vars(graph, |b| b.concat(&[b.var(last[0]).reshape(&[1, 3]), b.var(ys[0])], 0).id)
}

/// Backwards, with the index of the step, a const used twice, and a carry that needs a cotangent only through another.
fn accumulated(graph: &mut Graph, form: Form, x: &[NodeId]) -> NodeId {
    let (w, start, xs) = (x[0], x[1], x[2]);
    let zero = graph.constant(0.0, DType::F32, &[3]);
    let carries = [start, zero];
    let (last, _) = looped(graph, form, (4, true), &carries, &[xs], &mut |graph, index, s, x| {
        vars(graph, |b| {
            let (w, s0, s1, x) = (b.var(w), b.var(s[0]), b.var(s[1]), b.var(x[0]));
            let index = b.var(index).cast(DType::F32).reshape(&[1]).broadcast(&[3]);
            let next = (matvec(w, s0) + x * index.scale(0.1)).unary(Op::Sin);
            let sum = s1 + matvec(w, next * x);
            (vec![next.id, sum.id], Vec::new())
        })
    });
    last[1]
}

/// Every second step keeps its carry: a loop of loops.
fn nested(graph: &mut Graph, form: Form, x: &[NodeId]) -> NodeId {
    let (w, start, xs) = (x[0], x[1], x[2]);
    let pairs = graph.emit(Op::Reshape, &[xs], &[2, 2, 3], &[]);
    let inner = if form == Form::Plain { form } else { Form::Region { recompute: false } };
    let (last, ys) = looped(graph, form, (2, false), &[start], &[pairs], &mut |graph, _, s, pair| {
        let (last, ys) = looped(graph, inner, (2, false), s, pair, &mut |graph, _, s, x| {
            vars(graph, |b| {
                let next = (matvec(b.var(w), b.var(s[0])) * b.var(x[0])).unary(Op::Tanh) + b.var(s[0]);
                (vec![next.id], vec![next.id])
            })
        });
        (last, ys)
    });
    vars(graph, |b| b.var(last[0]).reshape(&[1, 3]).like(b.var(ys[0]).reshape(&[4, 3])).id)
}

/// A memory that learns while it reads: a gradient inside the body, of a loss that leads through a value outside.
fn learning(graph: &mut Graph, form: Form, x: &[NodeId]) -> NodeId {
    let (w, start, xs) = (x[0], x[1], x[2]);
    let target = graph.emit(Op::Tanh, &[start], &[], &[]);
    let (last, ys) = looped(graph, form, (4, false), &[w], &[xs], &mut |graph, _, memory, x| {
        let loss_of = |graph: &mut Graph, memory: NodeId| {
            vars(graph, |b| {
                let miss = matvec(b.var(memory), b.var(x[0])).unary(Op::Tanh) - b.var(target);
                (miss * miss).sum(&[0]).reshape(&[]).id
            })
        };
        let loss = loss_of(graph, memory[0]);
        // The memory of a step is a value of its own here, not what earlier steps made of `start`.
        let held = graph.emit(Op::StopGrad, &[memory[0]], &[], &[]);
        let other_loss = loss_of(graph, held);
        let slopes = [grad(graph, loss, &[memory[0]])[0], grad(graph, other_loss, &[start])[0]];
        vars(graph, |b| {
            let next = b.var(memory[0]) - b.var(slopes[0].unwrap()).scale(0.3);
            (vec![next.id], vec![(matvec(next, b.var(x[0])) * b.var(slopes[1].unwrap())).id])
        })
    });
    vars(graph, |b| b.concat(&[b.var(last[0]), b.var(ys[0])], 0).id)
}

/// Conditions by the index of a step and by a counter that arrives with the step.
fn conditional(graph: &mut Graph, form: Form, x: &[NodeId]) -> NodeId {
    let (w, start, xs, counter) = (x[0], x[1], x[2], x[3]);
    let (last, _) = looped(graph, form, (4, false), &[start], &[xs], &mut |graph, index, s, x| {
        let moved = sometimes(graph, form, (index, 2, 1), s[0], |graph, old| {
            vars(graph, |b| (matvec(b.var(w), b.var(old)) + b.var(x[0])).unary(Op::Tanh).id)
        });
        let next = sometimes(graph, form, (counter, 3, 1), moved, |graph, old| {
            vars(graph, |b| (matvec(b.var(w), b.var(old)) * b.var(s[0])).unary(Op::Sin).id)
        });
        (vec![next], Vec::new())
    });
    last[0]
}

/// A region that marks a value with Save, and a When whose old value is also read in the body.
fn marked(graph: &mut Graph, form: Form, x: &[NodeId]) -> NodeId {
    let (w, start, xs, counter) = (x[0], x[1], x[2], x[3]);
    let (last, ys) = looped(graph, form, (4, false), &[start], &[xs], &mut |graph, _, s, x| {
        vars(graph, |b| {
            let kept = matvec(b.var(w), b.var(s[0])).unary(Op::Save);
            let next = kept.unary(Op::Tanh) * b.var(x[0]);
            (vec![next.id], vec![kept.id])
        })
    });
    let changed = sometimes(graph, form, (counter, 2, 0), last[0], |graph, old| {
        vars(graph, |b| (b.var(old) * b.var(last[0]) + b.var(start)).id)
    });
    vars(graph, |b| (b.var(ys[0]) * b.var(changed).reshape(&[1, 3]).like(b.var(ys[0]))).id)
}

const PROGRAMS: [(&str, Program); 6] = [
    ("recurrent", recurrent),
    ("accumulated", accumulated),
    ("nested", nested),
    ("learning", learning),
    ("conditional", conditional),
    ("marked", marked),
];

fn weigh(graph: &mut Graph, y: NodeId) -> NodeId {
    vars(graph, |b| {
        let count = b.ty(y).elements();
        let y = b.var(y).reshape(&[count]);
        let weights = b.iota(0, DType::F32, &[count]).unary(Op::Sin);
        (y * weights).sum(&[0]).reshape(&[]).id
    })
}

/// Values, gradient, and gradient of a weighing of the gradient.
fn graph_of(program: Program, form: Form) -> Graph {
    let mut graph = Graph::default();
    let f32s = |graph: &mut Graph, name: &str, dims: &[usize]| graph.input(name, Ty::new(DType::F32, dims));
    let length = 4;
    let w = f32s(&mut graph, "w", &[3, 3]);
    let start = f32s(&mut graph, "start", &[3]);
    let xs = f32s(&mut graph, "xs", &[length, 3]);
    let counter = graph.input("counter", Ty::scalar(DType::I32));
    let y = program(&mut graph, form, &[w, start, xs, counter]);
    graph.output("y", y);
    let loss = weigh(&mut graph, y);
    let wrt = [w, start, xs];
    let first = grad(&mut graph, loss, &wrt);
    let mut sum = graph.constant(0.0, DType::F32, &[]);
    for (index, ct) in first.into_iter().enumerate() {
        let Some(ct) = ct else { continue };
        graph.output(&format!("first{index}"), ct);
        let part = weigh(&mut graph, ct);
        sum = graph.emit(Op::Add, &[sum, part], &[], &[]);
    }
    for (index, ct) in grad(&mut graph, sum, &wrt).into_iter().enumerate() {
        let Some(ct) = ct else { continue };
        graph.output(&format!("second{index}"), ct);
    }
    assert!(graph.errors.is_empty(), "{form:?}: {}", graph.errors[0]);
    graph::compact(&graph)
}

#[test]
fn the_interpreter_gives_the_same_for_every_form() {
    for (name, program) in PROGRAMS {
        for seed in 0..6 {
            let [plain, save, recompute] = FORMS.map(|form| interpreted(&graph_of(program, form), seed));
            for (policy, other) in [("save", save), ("recompute", recompute)] {
                assert_eq!(plain.len(), other.len(), "{name}, {policy}");
                for (output, (a, b)) in plain.iter().zip(&other).enumerate() {
                    for (x, y) in a.iter().zip(b) {
                        let error = (x - y).abs() / (1.0 + x.abs());
                        assert!(error < 1e-12, "{name}, {policy}, output {output}: {y} for {x}");
                    }
                }
            }
        }
    }
}

/// Bits of a number; both zeros are one.
fn bits(x: f32) -> u32 {
    (x + 0.0).to_bits()
}

/// Outputs before the second derivatives: the value and the gradients of three inputs.
const FIRST_ORDER: usize = 4;

/// Where a step reads a slice, or a const, in several places, and so does its derivative, the unrolled loop adds the
/// parts of the second cotangent one after another; Scans first add those of the derivative, then those of the step.
const SUMS_IN_ANOTHER_ORDER: [&str; 2] = ["accumulated", "marked"];

#[test]
fn the_cpu_gives_the_same_bits_for_every_form() {
    for (name, program) in PROGRAMS {
        for seed in 0..6 {
            let run = |form: Form| -> Vec<Vec<f32>> { on_cpu(&graph_of(program, form), seed, &[], 2) };
            let as_bits = |values: &[f32]| -> Vec<u32> { values.iter().copied().map(bits).collect() };
            let [plain, save, recompute] = FORMS.map(run);
            for (output, a) in plain.iter().enumerate() {
                let (b, c) = (&save[output], &recompute[output]);
                assert_eq!(as_bits(b), as_bits(c), "{name}, policies, seed {seed}, output {output}");
                if output >= FIRST_ORDER && SUMS_IN_ANOTHER_ORDER.contains(&name) {
                    let close = |(x, y): (&f32, &f32)| (x - y).abs() <= 2e-6 * (1.0 + x.abs());
                    assert!(a.iter().zip(b).all(close), "{name}, seed {seed}, output {output}");
                } else {
                    assert_eq!(as_bits(a), as_bits(b), "{name}, unrolled, seed {seed}, output {output}");
                }
            }
        }
    }
}

#[test]
fn the_cpu_agrees_with_the_interpreter() {
    for (name, program) in PROGRAMS {
        for form in FORMS {
            let graph = graph_of(program, form);
            let (expected, actual) = (interpreted(&graph, 1), on_cpu(&graph, 1, &[], 2));
            for (output, (a, b)) in expected.iter().zip(&actual).enumerate() {
                for (x, y) in a.iter().zip(b) {
                    let error = (x - f64::from(*y)).abs() / (1.0 + x.abs());
                    assert!(error < 1e-4, "{name}, {form:?}, output {output}: {y} for {x}");
                }
            }
        }
    }
}

#[test]
fn regions_round_trip_through_text() {
    for (name, program) in PROGRAMS {
        let graph = graph_of(program, FORMS[2]);
        let text = graph.to_string();
        let again = graph::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.to_string(), text, "{name}");
        let (inputs, _) = inputs(&graph, 3);
        assert_eq!(interp::run(&graph, &inputs, &mut []), interp::run(&again, &inputs, &mut []), "{name}");
    }
}

/// A State that a product of its own changes every third step.
fn rarely() -> Graph {
    let mut graph = Graph::default();
    let step = graph.input("step", Ty::scalar(DType::I32));
    let x = graph.input("x", Ty::new(DType::F32, &[4, 4]));
    let memory = graph.state("memory", Ty::new(DType::F32, &[4, 4]));
    let new = sometimes(&mut graph, Form::Region { recompute: false }, (step, 3, 2), memory, |graph, old| {
        let product = graph.emit(Op::Dot, &[old, x], &[0, 1, 1, 0], &[1.0]);
        graph.emit(Op::Tanh, &[product], &[], &[])
    });
    // As a training step writes: nothing where the step is not finite.
    let sum = vars(&mut graph, |b| b.var(x).sum(&[0, 1]).reshape(&[]).id);
    let kept = vars(&mut graph, |b| {
        let fine = b.var(sum).binary(Op::Lt, b.var(sum).constant(1e6)).like(b.var(memory));
        fine.select(b.var(new), b.var(memory)).id
    });
    graph.write(memory, kept);
    graph.output("sum", sum);
    graph::compact(&graph)
}

#[test]
fn what_is_not_due_is_not_run() {
    let graph = rarely();
    let mut states = plan::StateLayout::default();
    let slot = plan::Slot { region: plan::Region::State, offset: 0, bytes: 64 };
    states.slots.push(plan::StateSlot { name: "memory".into(), dtype: DType::F32, dims: vec![4, 4], slot });
    states.bytes = 256;
    let caps = device_cpu::Cpu::caps();
    let plan = compiler::compile("rarely", &graph, &states, &caps, compiler::Options::default()).unwrap();
    assert_eq!(plan.guards, [plan::Guard { input: 0, shift: 0, period: 3, offset: 2 }]);
    // All but the sum, which is an output, hangs on the counter: the product, the choice, and the State's update.
    let always: Vec<String> =
        plan.launches.iter().filter(|launch| launch.guards.is_empty()).map(|l| l.label.clone()).collect();
    assert_eq!(always.len(), 1, "{always:?}");
    assert!(always[0].contains("Sum") && plan.launches.len() > 3, "{always:?}");
}

#[test]
fn a_guarded_state_follows_the_interpreter() {
    let graph = rarely();
    let (mut on_interpreter, mut on_cpu) =
        (Replay::interpreter(&graph), Replay::cpu(&graph, &[], 2).unwrap());
    let (inputs, states) = inputs(&graph, 5);
    for replay in [&mut on_interpreter, &mut on_cpu] {
        replay.write_state(0, &states[0]).unwrap();
    }
    let mut changes = 0;
    for step in 0..9 {
        let counter = interp::Tensor { ty: Ty::scalar(DType::I32), data: vec![f64::from(step)] };
        let before = on_cpu.states().unwrap();
        let values = [counter, inputs[1].clone()];
        let expected = on_interpreter.run(&values).unwrap();
        let actual = on_cpu.run(&values).unwrap();
        assert!((expected[0].data[0] - actual[0].data[0]).abs() < 1e-5);
        let after = on_cpu.states().unwrap();
        assert_eq!(before != after, step % 3 == 2, "step {step}");
        changes += usize::from(before != after);
        let pairs = on_interpreter.states().unwrap()[0].data.clone().into_iter().zip(after[0].data.clone());
        pairs.into_iter().for_each(|(x, y)| assert!((x - y).abs() < 1e-5, "step {step}: {y} for {x}"));
    }
    assert_eq!(changes, 3);
}
