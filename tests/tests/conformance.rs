//! Every device against the interpreter: each op of the table, by class, and random graphs; with every optional pass on
//! and off.

use graph::{Class, Graph, NodeId, Op};
use host_tests::conformance::{Case, EXEMPT, case, check, mixed, rows_of, table};
use host_tests::devices::kinds;
use host_tests::programs::random_graph;

const RANDOM_GRAPHS: u64 = 600;

/// All cases of a class on all devices. Rows that fail are all shown, each by its first case.
fn passes(class: Class) {
    let rows = rows_of(class);
    for (kind, entries) in kinds() {
        let (mut errors, mut faults) = (Vec::new(), Vec::new());
        for row in &rows {
            let seeds = (0..row.cases).step_by(entries[0].every as usize);
            let results = seeds.map(|seed| check(&case(row, seed), &entries));
            match results.collect::<Result<Vec<f64>, String>>() {
                Ok(parts) => errors.push(format!("{} {:.2}", row.op, parts.into_iter().fold(0.0, f64::max))),
                Err(fault) => faults.push(fault),
            }
        }
        println!("{kind}, {class:?}: largest errors as parts of what is allowed: {}", errors.join(", "));
        let (failed, of, faults_text) = (faults.len(), rows.len(), faults.join("\n"));
        assert!(faults.is_empty(), "{failed} rows of {of} fail on {kind}\n{faults_text}");
    }
}

macro_rules! classes {
    ($($name:ident $class:ident,)*) => {$(
        #[test]
        fn $name() {
            passes(Class::$class);
        }
    )*};
}

classes! {
    leaves Leaf,
    elementwise Elementwise,
    movements Movement,
    indexing Indexing,
    reductions Reduce,
    ordered Ordered,
    contractions Contraction,
    structure Structure,
    composites Composite,
}

#[test]
fn every_op_has_cases() {
    let rows = table();
    let is_covered = |op: &Op| rows.iter().any(|row| row.op == *op && row.cases > 0);
    for op in Op::ALL {
        let is_exempt = EXEMPT.iter().any(|(exempt, _)| exempt == op);
        assert!(is_covered(op) != is_exempt, "{op} needs a row of cases or a reason to have none");
    }
    let (cases, ops) = (rows.iter().map(|row| row.cases).sum::<u64>(), Op::ALL.len() - EXEMPT.len());
    for (kind, entries) in kinds() {
        let every = entries[0].every;
        println!(
            "conformance {kind}: one in {every} of {cases} cases of {ops} ops, on {} entries",
            entries.len()
        );
    }
}

/// Chains of ops that fuse: what single ops cannot show. Two tests, so that two cores have work.
fn random_graphs(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        passes_everywhere(&mixed("random graph", random_graph(seed), seed));
    }
}

fn passes_everywhere(case: &Case) {
    for (_, entries) in kinds() {
        let every = entries[0].every;
        if every > 1 && !case.seed.is_multiple_of(5 * every) {
            continue;
        }
        check(case, &entries).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

#[test]
fn random_graphs_with_derivatives() {
    random_graphs((0..RANDOM_GRAPHS).step_by(2));
}

#[test]
fn random_graphs_without_derivatives() {
    random_graphs((1..RANDOM_GRAPHS).step_by(2));
}

/// `sine` leads by a long chain to `scaled`, which is computed together with `early`; that leads to `last`. Were `sine`
/// and `last` computed together, they would wait for themselves, though `early` itself waits for nothing.
#[test]
fn clusters_never_wait_for_themselves() {
    let mut graph = Graph::default();
    let mut emit = |op: Op, inputs: &[NodeId], ints: &[i64]| {
        graph.emit(op, inputs, ints, &[1.0][..usize::from(op == Op::Dot)])
    };
    let index = emit(Op::Iota, &[], &[0, 0, 5]);
    let sine = emit(Op::Sin, &[index], &[]);
    let copy = emit(Op::Copy, &[sine], &[]);
    let both = emit(Op::Concat, &[sine, copy], &[0]);
    let mut chain = both;
    for op in [Op::Tanh, Op::Exp, Op::Cos] {
        chain = emit(op, &[chain], &[]);
    }
    let twice = emit(Op::Concat, &[chain, chain], &[0]);
    let peak = emit(Op::ReduceMax, &[twice], &[0]);
    let peak = emit(Op::Broadcast, &[peak], &[5]);
    let early = emit(Op::Erf, &[index], &[]);
    let scaled = emit(Op::Mul, &[early, peak], &[]);
    let rows = emit(Op::Iota, &[], &[0, 0, 5, 5]);
    let product = emit(Op::Dot, &[early, rows], &[0, 1, 0, 0]);
    let last = emit(Op::Sub, &[product, sine], &[]);
    graph.output("scaled", scaled);
    graph.output("last", last);
    passes_everywhere(&mixed("clusters", graph, 0));
}
