//! Functions to differentiate: one or more for each op that has a derivative.

use graph::{DType, Graph, NodeId, Op, ScanOptions};

pub struct Case {
    pub name: String,
    pub operands: Vec<Vec<usize>>,
    pub shift: f64,
    pub smooth: bool,
    pub build: Build,
}

pub type Build = Box<dyn Fn(&mut Graph, &[NodeId]) -> NodeId>;

fn case(
    name: &str,
    operands: &[&[usize]],
    build: impl Fn(&mut Graph, &[NodeId]) -> NodeId + 'static,
) -> Case {
    let operands = operands.iter().map(|dims| dims.to_vec()).collect();
    Case { name: name.into(), operands, shift: 0.0, smooth: true, build: Box::new(build) }
}

fn op(op: Op, operands: &[&[usize]], ints: &[i64], floats: &[f64]) -> Case {
    let (ints, floats) = (ints.to_vec(), floats.to_vec());
    case(op.row().name, operands, move |graph, x| graph.emit(op, x, &ints, &floats))
}

pub fn cases() -> Vec<Case> {
    let m: &[usize] = &[2, 3];
    let mut cases: Vec<Case> = Vec::new();
    for unary in
        [Op::Neg, Op::Recip, Op::Sqrt, Op::Exp, Op::Log, Op::Sin, Op::Cos, Op::Tanh, Op::Erf, Op::Copy]
    {
        cases.push(op(unary, &[m], &[], &[]));
    }
    for binary in [Op::Add, Op::Sub, Op::Mul, Op::Div] {
        cases.push(op(binary, &[m, m], &[], &[]));
    }
    for kinked in [Op::Max, Op::Min] {
        cases.push(Case { smooth: false, ..op(kinked, &[m, m], &[], &[]) });
    }
    cases.push(Case { smooth: false, ..op(Op::ReduceMax, &[m], &[1], &[]) });
    cases.push(case("Rem", &[m, m], |graph, x| {
        // Quotients of several whole parts, none within a step of a jump.
        let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
        let three = graph.constant(3.0, DType::F32, &[2, 3]);
        let large = graph.emit(Op::Add, &[square, three], &[], &[]);
        graph.emit(Op::Rem, &[large, x[1]], &[], &[])
    }));
    cases.push(case("Select", &[m, m, m], |graph, x| {
        let less = graph.emit(Op::Lt, &[x[0], x[1]], &[], &[]);
        let square = graph.emit(Op::Mul, &[x[1], x[1]], &[], &[]);
        graph.emit(Op::Select, &[less, square, x[2]], &[], &[])
    }));
    cases.push(case("Rand", &[m], |graph, x| {
        let [key, counter] = [7.0, 1.0].map(|value| graph.constant(value, DType::U32, &[2, 3]));
        let bits = graph.emit(Op::Bitcast, &[x[0]], &[DType::U32 as i64], &[]);
        let zero = graph.constant(0.0, DType::U32, &[2, 3]);
        let index = graph.emit(Op::And, &[bits, zero], &[], &[]);
        let words = graph.emit(Op::Rand, &[index, key, key, counter], &[], &[]);
        let numbers = graph.emit(Op::Cast, &[words], &[DType::F32 as i64], &[]);
        let scale = graph.constant(0.5f64.powi(32), DType::F32, &[2, 3]);
        let uniform = graph.emit(Op::Mul, &[numbers, scale], &[], &[]);
        let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
        graph.emit(Op::Mul, &[square, uniform], &[], &[])
    }));
    cases.push(op(Op::Reshape, &[m], &[3, 2], &[]));
    cases.push(op(Op::Permute, &[&[2, 3, 4]], &[2, 0, 1], &[]));
    cases.push(op(Op::Broadcast, &[&[2, 1]], &[2, 5], &[]));
    cases.push(op(Op::Slice, &[&[4, 3]], &[1, 2, 0, 3], &[]));
    cases.push(op(Op::Pad, &[m], &[1, 0, 0, 2], &[0.5]));
    cases.push(op(Op::Concat, &[m, &[2, 2]], &[1], &[]));
    cases.push(op(Op::Sum, &[&[2, 3, 4]], &[0, 2], &[]));
    cases.push(case("Gather", &[&[4, 3]], |graph, x| {
        let ids = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 6], &[]);
        let half = graph.constant(2.0, DType::I32, &[6]);
        let ids = graph.emit(Op::Div, &[ids, half], &[], &[]);
        graph.emit(Op::Gather, &[x[0], ids], &[], &[])
    }));
    cases.push(case("ScatterAdd", &[&[5, 3]], |graph, x| {
        let ids = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 5], &[]);
        let two = graph.constant(2.0, DType::I32, &[5]);
        let ids = graph.emit(Op::Div, &[ids, two], &[], &[]);
        graph.emit(Op::ScatterAdd, &[x[0], ids], &[4], &[])
    }));
    cases.push(case("ArgMax", &[m], |graph, x| {
        let place = graph.emit(Op::ArgMax, &[x[0]], &[1], &[]);
        let number = graph.emit(Op::Cast, &[place], &[DType::F32 as i64], &[]);
        let repeated = graph.emit(Op::Broadcast, &[number], &[2, 3], &[]);
        let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
        graph.emit(Op::Mul, &[square, repeated], &[], &[])
    }));
    for reverse in [0, 1] {
        cases.push(case("CumSum", &[&[2, 5, 3]], move |graph, x| {
            let square = graph.emit(Op::Mul, &[x[0], x[0]], &[], &[]);
            graph.emit(Op::CumSum, &[square], &[1, reverse], &[])
        }));
    }
    for start in [-1.0, 1.0, 9.0] {
        cases.push(case("DynSlice", &[&[2, 5, 3]], move |graph, x| {
            let start = graph.constant(start, DType::I32, &[]);
            graph.emit(Op::DynSlice, &[x[0], start], &[1, 2], &[])
        }));
        cases.push(case("DynUpdateSlice", &[&[2, 5, 3], &[2, 2, 3]], move |graph, x| {
            let start = graph.constant(start, DType::I32, &[]);
            let y = graph.emit(Op::DynUpdateSlice, &[x[0], x[1], start], &[1], &[]);
            graph.emit(Op::Mul, &[y, y], &[], &[])
        }));
    }
    cases.push(op(Op::Dot, &[&[2, 3], &[4, 3]], &[0, 1, 1, 1], &[0.7]));
    cases.push(op(Op::Dot, &[&[3, 2, 4], &[4, 2, 5]], &[1, 1, 1, 1, 2, 0], &[1.3]));
    cases.push(op(Op::Dot, &[&[2, 3, 4], &[4, 5, 3]], &[0, 2, 1, 2, 2, 0], &[1.0]));
    cases.push(op(Op::Dot, &[&[2, 3], &[4, 3], &[2, 4]], &[0, 1, 1, 1], &[0.7, -1.5]));
    cases.push(op(Op::Dot, &[&[3, 2, 4], &[4, 2, 5], &[2, 3, 5]], &[1, 1, 1, 1, 2, 0], &[1.3, 0.5]));
    cases.push(op(Op::Softmax, &[m], &[], &[]));
    cases.push(op(Op::LayerNorm, &[m, &[3], &[3]], &[], &[1e-5]));
    cases.push(op(Op::LayerNorm, &[m, &[3]], &[], &[1e-5]));
    cases.push(op(Op::RmsNorm, &[m, &[3]], &[], &[1e-6]));
    cases.push(case("Rope", &[&[1, 2, 3, 4]], |graph, x| {
        let positions = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 3], &[]);
        graph.emit(Op::Rope, &[x[0], positions], &[], &[100.0])
    }));
    cases.push(op(Op::Attention, &[&[1, 4, 3, 2], &[1, 2, 3, 2], &[1, 2, 3, 2]], &[], &[0.7]));
    let (queries, keys, values): (&[usize], &[usize], &[usize]) =
        (&[2, 2, 3, 2], &[2, 1, 5, 2], &[2, 1, 5, 3]);
    cases.push(op(Op::Attention, &[queries, keys, values], &[1, 2, 1], &[0.7]));
    cases.push(op(Op::Attention, &[queries, &[2, 1, 2, 2], &[2, 1, 2, 3]], &[], &[0.7]));
    cases.push(case("Attention with optional operands", &[queries, keys, values], |graph, x| {
        let counted = |graph: &mut Graph, axis: i64, dims: [i64; 2]| {
            graph.emit(Op::Iota, &[], &[axis, DType::I32 as i64, dims[0], dims[1]], &[])
        };
        let per_sequence = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 2], &[]);
        let (of_queries, of_keys) = (counted(graph, 0, [2, 3]), counted(graph, 0, [2, 5]));
        // The first sequence holds no key, so its queries see nothing.
        let operands = [x[0], x[1], x[2], per_sequence, per_sequence, of_queries, of_keys];
        graph.emit(Op::Attention, &operands, &[1, 0, 0, 15], &[0.7])
    }));
    // The same node as several operands gets its cotangent once.
    cases.push(case("Attention of one tensor", &[&[1, 2, 3, 2]], |graph, x| {
        graph.emit(Op::Attention, &[x[0], x[0], x[0]], &[], &[0.7])
    }));
    // The host's own ops, which no case above takes a derivative of; here as a function of q, k, v and a cotangent.
    for ints in [&[][..], &[1, 2, 1], &[0]] {
        cases.push(op(Op::AttentionLse, &[queries, keys, values], ints, &[0.7]));
        cases.push(case("AttentionGrad", &[queries, keys, values, &[2, 2, 3, 3]], move |graph, x| {
            let y = graph.emit(Op::Attention, &x[..3], ints, &[0.7]);
            let lse = graph.emit(Op::AttentionLse, &x[..3], ints, &[0.7]);
            let all = graph.emit(Op::AttentionGrad, &[x[0], x[1], x[2], y, lse, x[3]], ints, &[0.7]);
            let parts: Vec<NodeId> = (0..3)
                .map(|index| {
                    let ct = graph.emit(Op::Result, &[all], &[index], &[]);
                    let count = graph.ty(ct).elements() as i64;
                    graph.emit(Op::Reshape, &[ct], &[count], &[])
                })
                .collect();
            graph.emit(Op::Concat, &parts, &[0], &[])
        }));
    }
    let rows: &[usize] = &[1, 2, 5, 3];
    let numbers: &[usize] = &[1, 2, 5];
    let shapes = [rows, rows, &[1, 2, 5, 2], numbers, numbers, &[1, 2, 2, 3]];
    for (op, delta) in [(Op::GatedDeltaRule, true), (Op::LinearAttention, false)] {
        cases.push(case(op.row().name, &shapes, move |graph, x| {
            let log_alpha = graph.emit(Op::Neg, &[x[3]], &[], &[]);
            let beta = delta.then_some(x[4]);
            let operands: Vec<NodeId> =
                [x[0], x[1], x[2], log_alpha].into_iter().chain(beta).chain([x[5]]).collect();
            let both = graph.emit(op, &operands, &[4], &[]);
            let [o, last] = [0, 1].map(|index| graph.emit(Op::Result, &[both], &[index], &[]));
            let flat = |graph: &mut Graph, id: NodeId| {
                let count = graph.ty(id).elements() as i64;
                graph.emit(Op::Reshape, &[id], &[count], &[])
            };
            let parts = [flat(graph, o), flat(graph, last)];
            graph.emit(Op::Concat, &parts, &[0], &[])
        }));
    }
    // The host's own derivative of the delta rule, and the rule itself, with some cotangents only.
    let mut operands = shapes.to_vec();
    operands.extend([shapes[2], shapes[5]]);
    for given in [1, 2, 3] {
        cases.push(case("GatedDeltaRuleGrad", &operands, move |graph, x| {
            let log_alpha = graph.emit(Op::Neg, &[x[3]], &[], &[]);
            let cts = [x[6], x[7]].into_iter().enumerate().filter(|(bit, _)| given >> bit & 1 == 1);
            let all: Vec<NodeId> =
                [x[0], x[1], x[2], log_alpha, x[4], x[5]].into_iter().chain(cts.map(|(_, ct)| ct)).collect();
            let all = graph.emit(Op::GatedDeltaRuleGrad, &all, &[4, given], &[]);
            let parts: Vec<NodeId> = (0..6)
                .map(|index| {
                    let ct = graph.emit(Op::Result, &[all], &[index], &[]);
                    let count = graph.ty(ct).elements() as i64;
                    graph.emit(Op::Reshape, &[ct], &[count], &[])
                })
                .collect();
            graph.emit(Op::Concat, &parts, &[0], &[])
        }));
    }
    for index in [0, 1] {
        cases.push(case("one result of GatedDeltaRule", &shapes, move |graph, x| {
            let log_alpha = graph.emit(Op::Neg, &[x[3]], &[], &[]);
            let all = [x[0], x[1], x[2], log_alpha, x[4], x[5]];
            let both = graph.emit(Op::GatedDeltaRule, &all, &[4], &[]);
            graph.emit(Op::Result, &[both], &[index], &[])
        }));
    }
    for recompute in [false, true] {
        let options = ScanOptions { reverse: recompute, recompute };
        cases.push(case("Scan", &[&[3], &[3], &[4, 3]], move |graph, x| {
            let inside = graph.open_scan(4, &[x[1]], &[x[2]], options);
            let product = graph.emit(Op::Mul, &[inside[1], x[0]], &[], &[]);
            let kept = graph.emit(Op::Save, &[product], &[], &[]);
            let sum = graph.emit(Op::Add, &[kept, inside[2]], &[], &[]);
            let next = graph.emit(Op::Tanh, &[sum], &[], &[]);
            let y = graph.emit(Op::Mul, &[next, inside[2]], &[], &[]);
            let results = graph.close_region(&[next, y]);
            let last = graph.emit(Op::Reshape, &[results[0]], &[1, 3], &[]);
            graph.emit(Op::Concat, &[last, results[1]], &[0], &[])
        }));
    }
    for (offset, name) in [(0, "When, due"), (1, "When, not due")] {
        cases.push(case(name, &[&[3], &[3]], move |graph, x| {
            let counter = graph.constant(4.0, DType::I32, &[]);
            let inside = graph.open_when(counter, 2, offset, &[x[1]]);
            let product = graph.emit(Op::Mul, &[inside[0], x[0]], &[], &[]);
            let new = graph.emit(Op::Sin, &[product], &[], &[]);
            graph.close_region(&[new])[0]
        }));
    }
    cases.push(case("LinearCrossEntropy", &[&[2, 3], &[5, 3]], |graph, x| {
        let targets = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 2], &[]);
        graph.emit(Op::LinearCrossEntropy, &[x[0], x[1], targets], &[], &[])
    }));
    cases.push(case("LinearCrossEntropyGrad", &[&[2, 3], &[5, 3], &[2]], |graph, x| {
        // One target is ignored.
        let targets = graph.emit(Op::Iota, &[], &[0, DType::I32 as i64, 2], &[]);
        let targets = graph.emit(Op::Neg, &[targets], &[], &[]);
        let both = graph.emit(Op::LinearCrossEntropyGrad, &[x[0], x[1], targets, x[2]], &[], &[]);
        let parts = [0, 1].map(|index| {
            let ct = graph.emit(Op::Result, &[both], &[index], &[]);
            let count = graph.ty(ct).elements() as i64;
            graph.emit(Op::Reshape, &[ct], &[count], &[])
        });
        graph.emit(Op::Concat, &parts, &[0], &[])
    }));
    cases.push(case("CrossEntropy", &[&[2, 4, 3]], |graph, x| {
        // Targets -1 and 3 are outside 0..3.
        let [row, column] =
            [0, 1].map(|axis| graph.emit(Op::Iota, &[], &[axis, DType::I32 as i64, 2, 4], &[]));
        let targets = graph.emit(Op::Sub, &[column, row], &[], &[]);
        graph.emit(Op::CrossEntropy, &[x[0], targets], &[], &[])
    }));
    for tokens in [5, 2] {
        cases.push(op(Op::CausalConv, &[&[2, tokens, 3], &[3, 4], &[2, 3, 3]], &[], &[]));
    }
    cases
}
