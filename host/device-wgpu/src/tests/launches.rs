//! Products and scatters against plain loops, in both forms of tiles, and reductions of rows and columns that are cut.

use ops::{DType, Op};
use plan::{
    Affine, Binding, Domain, Expr, Gemm, GemmBatch, LaunchOp, Matrix, ScatterAdd, Slot, Store, Template,
    TileKernel, Value,
};

use super::{Random, any_adapter, run, single, valid};
use crate::Tiles;

/// Extents, row and column stride of each operand, and the batch axes.
struct Form {
    extents: [usize; 3],
    a: [usize; 2],
    b: [usize; 2],
    c: Option<[usize; 2]>,
    out: [usize; 2],
    batch: Vec<GemmBatch>,
}

impl Form {
    fn launch(&self, slots: &[Slot]) -> LaunchOp {
        let matrix =
            |slot: Slot, [row_stride, col_stride]: [usize; 2]| Matrix { slot, row_stride, col_stride };
        let [m, n, k] = self.extents;
        LaunchOp::Gemm(Gemm {
            m,
            n,
            k,
            alpha: 0.5,
            beta: -1.5,
            symmetric: false,
            a: matrix(slots[0], self.a),
            b: matrix(slots[1], self.b),
            c: self.c.map(|strides| matrix(slots[3], strides)),
            out: matrix(slots[2], self.out),
            batch: self.batch.clone(),
        })
    }

    /// Starts of a, b, the result and c at each point of the batch.
    fn points(&self) -> Vec<[usize; 4]> {
        let mut points = vec![[0; 4]];
        for axis in &self.batch {
            let strides = [axis.a, axis.b, axis.out, axis.c];
            let step = |p: &[usize; 4], i: usize| [0, 1, 2, 3].map(|which| p[which] + i * strides[which]);
            points = points.iter().flat_map(|p| (0..axis.count).map(move |i| step(p, i))).collect();
        }
        points
    }

    fn check(&self) {
        let [m, n, k] = self.extents;
        let last = |which: usize, rows: usize, columns: usize, strides: [usize; 2]| {
            let far = self.points().iter().map(|point| point[which]).max().unwrap_or(0);
            far + (rows - 1) * strides[0] + (columns - 1) * strides[1] + 1
        };
        let lengths = [
            last(0, m, k, self.a),
            last(1, k, n, self.b),
            last(2, m, n, self.out),
            last(3, m, n, self.c.unwrap_or([0, 0])),
        ];
        let set = single(vec![], |slots| self.launch(slots), &lengths);
        let mut random = Random(lengths[0] as u64);
        let operands: Vec<Vec<u32>> =
            lengths.iter().map(|length| (0..*length).map(|_| random.float().to_bits()).collect()).collect();
        for tiles in [Tiles::Direct, Tiles::Shared] {
            valid(&set, tiles);
            let Some(adapter) = any_adapter() else { continue };
            let got =
                run(&adapter.with_tiles(tiles), &set, &operands).unwrap_or_else(|error| panic!("{error}"));
            self.compare(&operands, &got[2]);
        }
    }

    /// Some elements of the result against sums in double precision.
    fn compare(&self, operands: &[Vec<u32>], got: &[u32]) {
        let [m, n, k] = self.extents;
        let at = |which: usize, index: usize| f64::from(f32::from_bits(operands[which][index]));
        let tolerance = 1e-6 * (k as f64).sqrt() * 4.0;
        for [a, b, out, c] in self.points() {
            for i in (0..m).step_by(m.div_ceil(37)) {
                for j in (0..n).step_by(n.div_ceil(41)) {
                    let (row, column) = (a + i * self.a[0], b + j * self.b[1]);
                    let sum: f64 =
                        (0..k).map(|l| at(0, row + l * self.a[1]) * at(1, column + l * self.b[0])).sum();
                    let added = self.c.map_or(0.0, |strides| at(3, c + i * strides[0] + j * strides[1]));
                    let want = 0.5 * sum - 1.5 * added;
                    let x = f64::from(f32::from_bits(got[out + i * self.out[0] + j * self.out[1]]));
                    assert!((x - want).abs() < tolerance, "{:?} [{i}, {j}]: {x} for {want}", self.extents);
                }
            }
        }
    }
}

#[test]
fn products_of_any_strides() {
    for [m, n, k] in [[1, 1, 1], [1, 300, 64], [37, 100, 90], [70, 13, 257], [9, 64, 500], [130, 129, 33]] {
        for c in [None, Some([0, 1])] {
            Form { extents: [m, n, k], a: [k, 1], b: [n, 1], c, out: [n, 1], batch: vec![] }.check();
        }
        Form { extents: [m, n, k], a: [1, m], b: [1, k], c: Some([1, m]), out: [1, m], batch: vec![] }
            .check();
    }
}

/// Attention reads heads in place: q, k of [B, T, H, D], scores of [B, H, T, T].
#[test]
fn batches_of_heads_read_in_place() {
    let [t, h, d] = [35, 4, 16];
    let axis =
        |count, within, of_scores| GemmBatch { count, a: within, b: within, c: of_scores, out: of_scores };
    Form {
        extents: [t, t, d],
        a: [h * d, 1],
        b: [1, h * d],
        c: Some([t, 1]),
        out: [t, 1],
        batch: vec![axis(3, t * h * d, h * t * t), axis(4, d, t * t)],
    }
    .check();
    // So many that the largest tile is chosen.
    let [m, n, k] = [129, 130, 5];
    let axis = GemmBatch { count: 16, a: m * k, b: k * n, c: 0, out: m * n };
    Form { extents: [m, n, k], a: [k, 1], b: [n, 1], c: Some([0, 1]), out: [n, 1], batch: vec![axis] }
        .check();
}

#[test]
fn scatter_adds_rows_in_order() {
    for [rows, width, count] in [[7, 5, 30], [50, 130, 200], [100, 16, 300], [30, 700, 64]] {
        let mut random = Random(width as u64);
        let ids: Vec<u32> =
            (0..count).map(|_| ((random.next() % (rows as u64 + 6)) as i32 - 3) as u32).collect();
        let source: Vec<u32> = (0..count * width).map(|_| random.float().to_bits()).collect();
        let mut want = vec![0f32; rows * width];
        for (i, id) in ids.iter().enumerate() {
            let row = (*id as i32).clamp(0, rows as i32 - 1) as usize;
            for column in 0..width {
                want[row * width + column] += f32::from_bits(source[i * width + column]);
            }
        }
        let launch = |slots: &[Slot]| {
            LaunchOp::ScatterAdd(ScatterAdd {
                out: slots[0],
                ids: slots[1],
                source: slots[2],
                rows,
                width,
                count,
            })
        };
        let set = single(vec![], launch, &[rows * width, count, count * width]);
        valid(&set, Tiles::Direct);
        let Some(adapter) = any_adapter() else { continue };
        let got = run(&adapter, &set, &[vec![1; rows * width], ids, source])
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(got[0].iter().zip(&want).all(|(x, y)| *x == y.to_bits()), "{rows} rows of {width}");
    }
}

fn value(expr: Expr) -> Value {
    Value { expr, dtype: DType::F32, domain: Domain::Element }
}

/// Sum and maximum of squares, in the order of the plan's contract, to the bit.
fn squares(rows: usize, columns: usize, template: Template) {
    let is_row = matches!(template, Template::RowReduce { .. });
    let binding = |written| Binding { dtype: DType::F32, written };
    let out = if is_row { vec![1, 0] } else { vec![0, 1] };
    let store = |binding, value| Store { binding, at: Affine::new(0, out.clone()), value };
    let kernel = TileKernel {
        dims: vec![rows, columns],
        template,
        bindings: vec![binding(false), binding(true), binding(true)],
        values: vec![
            value(Expr::Load { binding: 0, at: Affine::new(0, vec![columns as i64, 1]), gather: None }),
            value(Expr::Apply { op: Op::Mul, args: vec![0, 0] }),
            value(Expr::Reduce { op: Op::Sum, arg: 1 }),
            value(Expr::Reduce { op: Op::ReduceMax, arg: 1 }),
        ],
        stores: vec![store(1, 2), store(2, 3)],
    };
    let results = if is_row { rows } else { columns };
    let launch = |slots: &[Slot]| LaunchOp::Tile { kernel: 0, bindings: slots.to_vec() };
    let set = single(vec![kernel], launch, &[rows * columns, results, results]);
    valid(&set, Tiles::Direct);
    let Some(adapter) = any_adapter() else { return };
    let mut random = Random(rows as u64);
    // Few bits, so that a product that is fused with a sum rounds like one that is not.
    let words: Vec<u32> =
        (0..rows * columns).map(|_| ((random.float() * 16.0).round() / 16.0).to_bits()).collect();
    let operands = [words.clone(), vec![0; results], vec![0; results]];
    let got = run(&adapter, &set, &operands).unwrap_or_else(|error| panic!("{error}"));
    let [_, sums, maxima] = &got[..] else { panic!("there are three operands") };
    let square = |row: usize, column: usize| f32::from_bits(words[row * columns + column]).powi(2);
    for (result, sum_of_device) in sums.iter().enumerate() {
        let line: Vec<f32> = match is_row {
            true => (0..columns).map(|column| square(result, column)).collect(),
            false => (0..rows).map(|row| square(row, result)).collect(),
        };
        let sum = if is_row { row_sum(&line) } else { column_sum(&line) };
        assert_eq!(f32::from_bits(*sum_of_device), sum, "sum {result} of {rows}x{columns}");
        let most = line.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
        assert_eq!(f32::from_bits(maxima[result]), most, "maximum {result} of {rows}x{columns}");
    }
}

fn row_sum(row: &[f32]) -> f32 {
    if row.len() > 65_536 {
        return row.chunks(8192).fold(0.0, |total, block| total + lanes_sum(block));
    }
    lanes_sum(row)
}

fn lanes_sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    row.iter().enumerate().for_each(|(i, x)| lanes[i % 16] += x);
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|lane| lanes[lane] += lanes[lane + half]);
    }
    lanes[0]
}

fn column_sum(column: &[f32]) -> f32 {
    column.chunks(256).fold(0.0, |total, block| total + block.iter().fold(0.0, |sum, x| sum + x))
}

#[test]
fn reductions_keep_the_order_of_the_plan() {
    for (rows, columns) in [(1, 600_003), (3, 65_537), (5, 2000), (40, 33)] {
        squares(rows, columns, Template::RowReduce { reduced: 1 });
    }
    for (rows, columns) in [(5000, 5), (256, 70), (300, 17)] {
        squares(rows, columns, Template::ColReduce { outer: 0, reduced: 1 });
    }
}
