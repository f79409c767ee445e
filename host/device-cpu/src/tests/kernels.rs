//! Tile kernels against the scalar evaluator: equal to the bit, on each instruction set and number of threads.

use ops::{DType, Op};
use plan::{Affine, Binding, Domain, Expr, LaunchOp, Store, Template, TileKernel, Value};

use super::generate::{Case, case};
use super::naive::evaluate;
use super::{Random, run, single};
use crate::tile::Isa;

fn check(case: &Case, threads: &[usize], what: &str) {
    let bytes: Vec<usize> = case.bindings.iter().map(|words| words.len() * 4).collect();
    let launch = |slots: &[plan::Slot]| LaunchOp::Tile { kernel: 0, bindings: slots.to_vec() };
    let set = single(vec![case.kernel.clone()], launch, &bytes);
    let mut want = case.bindings.clone();
    evaluate(&case.kernel, &mut want);
    for isa in Isa::available() {
        for count in threads {
            let got = run(&set, &case.bindings, *count, isa);
            for binding in 0..want.len() {
                let is_float = case.kernel.bindings[binding].dtype == DType::F32;
                let is_nan = |bits: u32| is_float && f32::from_bits(bits).is_nan();
                let same = |(x, y): (&u32, &u32)| x == y || is_nan(*x) && is_nan(*y);
                let wrong = want[binding].iter().zip(&got[binding]).position(|pair| !same(pair));
                assert!(
                    wrong.is_none(),
                    "{what}, {isa:?}, {count} threads, b{binding} at {wrong:?}: {:?} for {:?} in\n{}",
                    f32::from_bits(got[binding][wrong.unwrap_or(0)]),
                    f32::from_bits(want[binding][wrong.unwrap_or(0)]),
                    case.kernel
                );
            }
        }
    }
}

fn dims(random: &mut Random, rank: usize, most: usize) -> Vec<usize> {
    loop {
        let dims: Vec<usize> =
            (0..rank).map(|_| random.pick(&[1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 48, 64, 130, 300])).collect();
        if dims.iter().product::<usize>() <= most {
            return dims;
        }
    }
}

#[test]
fn random_maps() {
    let mut random = Random(1);
    for round in 0..300 {
        let rank = 1 + random.below(5);
        let dims = dims(&mut random, rank, 20_000);
        check(&case(&mut random, dims, Template::Map), &[1, 3], &format!("map {round}"));
    }
}

#[test]
fn random_row_reductions() {
    let mut random = Random(2);
    for round in 0..300 {
        let rank = 1 + random.below(5);
        let dims = dims(&mut random, rank, crate::tile::MAX_ROW);
        let reduced = 1 + random.below(rank);
        let template = Template::RowReduce { reduced };
        check(&case(&mut random, dims, template), &[1, 2], &format!("row reduction {round}"));
    }
}

#[test]
fn random_column_reductions() {
    let mut random = Random(3);
    for round in 0..300 {
        let rank = 2 + random.below(4);
        let dims = dims(&mut random, rank, 20_000);
        let outer = random.below(rank - 1);
        let reduced = 1 + random.below(rank - outer - 1);
        let template = Template::ColReduce { outer, reduced };
        check(&case(&mut random, dims, template), &[1, 2], &format!("column reduction {round}"));
    }
}

fn value(expr: Expr) -> Value {
    Value { expr, dtype: DType::F32, domain: Domain::Element }
}

fn float_binding(written: bool) -> Binding {
    Binding { dtype: DType::F32, written }
}

/// Sum and maximum of squares of rows, which no tile can hold beyond some length.
fn squares(rows: usize, columns: usize, template: Template, out: Vec<i64>) -> Case {
    let mut random = Random(rows as u64);
    let dense = Affine::new(0, vec![columns as i64, 1]);
    let square = Expr::Apply { op: Op::Mul, args: vec![0, 0] };
    let store = |binding, value| Store { binding, at: Affine::new(0, out.clone()), value };
    let results = if out[0] == 0 { columns } else { rows };
    Case {
        kernel: TileKernel {
            dims: vec![rows, columns],
            template,
            bindings: vec![float_binding(false), float_binding(true), float_binding(true)],
            values: vec![
                value(Expr::Load { binding: 0, at: dense, gather: None }),
                value(square),
                value(Expr::Reduce { op: Op::Sum, arg: 1 }),
                value(Expr::Reduce { op: Op::ReduceMax, arg: 1 }),
            ],
            stores: vec![store(1, 2), store(2, 3)],
        },
        bindings: vec![
            (0..rows * columns).map(|_| random.float().to_bits()).collect(),
            vec![0; results],
            vec![0; results],
        ],
    }
}

#[test]
fn long_rows_are_reduced_in_blocks() {
    for (rows, columns) in [(1, 1_200_003), (3, 65_536), (3, 65_537), (2, 5000), (40, 2049)] {
        let case = squares(rows, columns, Template::RowReduce { reduced: 1 }, vec![1, 0]);
        check(&case, &[1, 2, 3], &format!("{rows} rows of {columns}"));
    }
}

#[test]
fn long_columns_are_reduced_in_blocks() {
    for (rows, columns) in [(16_384, 128), (1000, 700), (257, 1), (256, 33), (5, 20_000)] {
        let case = squares(rows, columns, Template::ColReduce { outer: 0, reduced: 1 }, vec![0, 1]);
        check(&case, &[1, 2, 3], &format!("{rows} rows, {columns} columns"));
    }
}

/// p -= rate * m with m = 0.9 m + 0.1 g, both in place, and the old m stored beside: reads come before writes.
#[test]
fn updates_in_place_read_before_they_write() {
    const COUNT: usize = 300_000;
    let dense = || Affine::new(0, vec![1]);
    let load = |binding| value(Expr::Load { binding, at: dense(), gather: None });
    let apply = |op, args: &[usize]| value(Expr::Apply { op, args: args.to_vec() });
    let mut random = Random(9);
    let mut words = || (0..COUNT).map(|_| random.float().to_bits()).collect::<Vec<u32>>();
    let case = Case {
        kernel: TileKernel {
            dims: vec![COUNT],
            template: Template::Map,
            bindings: [true, true, false, true].map(float_binding).to_vec(),
            values: vec![
                load(0),
                load(1),
                load(2),
                value(Expr::Const(0.9f32.to_bits())),
                value(Expr::Const(0.1f32.to_bits())),
                apply(Op::Mul, &[1, 3]),
                apply(Op::Mul, &[2, 4]),
                apply(Op::Add, &[5, 6]),
                apply(Op::Mul, &[7, 4]),
                apply(Op::Sub, &[0, 8]),
            ],
            stores: [(0, 9), (1, 7), (3, 1)]
                .map(|(binding, value)| Store { binding, at: dense(), value })
                .to_vec(),
        },
        bindings: vec![words(), words(), words(), words()],
    };
    check(&case, &[1, 2, 3], "update in place");
}

/// Words of elements that follow each other from even and odd starts on, at widths that blocks and groups divide or not,
/// and of elements in other orders; the last index wraps.
#[test]
fn words_are_those_of_their_elements() {
    for (rows, columns, stride, offset) in [
        (1, 4000, 1, 0),
        (5, 300, 1, 6),
        (7, 128, 1, 1),
        (9, 31, 1, 0),
        (3, 65, 2, 0),
        (2, 200, 1, 0xffff_ff80),
    ] {
        let word = |expr| Value { dtype: DType::U32, ..value(expr) };
        let key = |binding| word(Expr::Load { binding, at: Affine::new(0, vec![1, 0]), gather: None });
        let at = Affine::new(offset, vec![columns as i64 * stride, stride]);
        let binding = |written| Binding { dtype: DType::U32, written };
        let case = Case {
            kernel: TileKernel {
                dims: vec![rows, columns],
                template: Template::Map,
                bindings: vec![binding(false), binding(false), binding(true)],
                values: vec![
                    word(Expr::Iota(at)),
                    key(0),
                    key(1),
                    word(Expr::Const(3)),
                    word(Expr::Apply { op: Op::Rand, args: vec![0, 1, 2, 3] }),
                ],
                stores: vec![Store { binding: 2, at: Affine::new(0, vec![columns as i64, 1]), value: 4 }],
            },
            bindings: vec![
                (1..=rows as u32).collect(),
                (7..7 + rows as u32).collect(),
                vec![0; rows * columns],
            ],
        };
        check(&case, &[1, 2], &format!("{rows} x {columns} words from {offset} on"));
    }
}
