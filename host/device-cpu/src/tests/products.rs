//! Products and scatters against plain loops, and that the number of threads changes no bit.

use plan::{Gemm, GemmBatch, LaunchOp, Matrix, ScatterAdd, Slot};

use super::{Random, run, single};
use crate::tile::Isa;

/// Row and column stride of each operand, and the batch axes.
struct Form {
    m: usize,
    n: usize,
    k: usize,
    a: (usize, usize),
    b: (usize, usize),
    c: Option<(usize, usize)>,
    out: (usize, usize),
    batch: Vec<GemmBatch>,
}

impl Form {
    fn launch(&self, slots: &[Slot]) -> Gemm {
        let matrix = |slot: Slot, strides: (usize, usize)| Matrix {
            slot,
            row_stride: strides.0,
            col_stride: strides.1,
        };
        Gemm {
            m: self.m,
            n: self.n,
            k: self.k,
            alpha: 0.5,
            beta: -1.5,
            a: matrix(slots[0], self.a),
            b: matrix(slots[1], self.b),
            c: self.c.map(|strides| matrix(slots[3], strides)),
            out: matrix(slots[2], self.out),
            batch: self.batch.clone(),
            symmetric: false,
        }
    }

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
        let last = |which: usize, rows: usize, columns: usize, strides: (usize, usize)| {
            let far = self.points().iter().map(|point| point[which]).max().unwrap_or(0);
            far + (rows - 1) * strides.0 + (columns - 1) * strides.1 + 1
        };
        let lengths = [
            last(0, self.m, self.k, self.a),
            last(1, self.k, self.n, self.b),
            last(2, self.m, self.n, self.out),
            last(3, self.m, self.n, self.c.unwrap_or((0, 0))),
        ];
        let mut random = Random(lengths[0] as u64);
        let operands: Vec<Vec<u32>> =
            lengths.iter().map(|length| (0..*length).map(|_| random.float().to_bits()).collect()).collect();
        let set =
            single(vec![], |slots| LaunchOp::Gemm(self.launch(slots)), &lengths.map(|length| length * 4));
        for isa in Isa::available() {
            let got = run(&set, &operands, 1, isa);
            for threads in [2, 3] {
                assert!(got == run(&set, &operands, threads, isa), "{threads} threads change bits");
            }
            self.compare(&operands, &got);
        }
    }

    /// Some elements of the result against sums in double precision.
    fn compare(&self, operands: &[Vec<u32>], got: &[Vec<u32>]) {
        let at = |which: usize, index: usize| f64::from(f32::from_bits(operands[which][index]));
        let tolerance = 1e-6 * (self.k as f64).sqrt() * 4.0;
        for [a, b, out, c] in self.points() {
            for i in (0..self.m).step_by(self.m.div_ceil(37)) {
                for j in (0..self.n).step_by(self.n.div_ceil(41)) {
                    let a_row = a + i * self.a.0;
                    let b_column = b + j * self.b.1;
                    let sum: f64 = (0..self.k)
                        .map(|l| at(0, a_row + l * self.a.1) * at(1, b_column + l * self.b.0))
                        .sum();
                    let added = self.c.map_or(0.0, |strides| at(3, c + i * strides.0 + j * strides.1));
                    let want = 0.5 * sum - 1.5 * added;
                    let x = f64::from(f32::from_bits(got[2][out + i * self.out.0 + j * self.out.1]));
                    assert!((x - want).abs() < tolerance, "[{i}, {j}]: {x} for {want}");
                }
            }
        }
    }
}

#[test]
fn products_of_any_strides() {
    for (m, n, k) in [
        (1, 1, 1),
        (1, 300, 64),
        (37, 1000, 90),
        (700, 130, 257),
        (96, 64, 5000),
        (513, 511, 130),
        (2, 9, 200),
        (13, 33, 71),
        (16, 192, 1024),
        (100, 17, 2048),
        (400, 31, 140),
    ] {
        for c in [None, Some((n, 1)), Some((1, m)), Some((0, 1))] {
            Form { m, n, k, a: (k, 1), b: (n, 1), c, out: (n, 1), batch: vec![] }.check();
            Form { m, n, k, a: (1, m), b: (1, k), c, out: (n, 1), batch: vec![] }.check();
            Form { m, n, k, a: (k, 1), b: (1, k), c, out: (1, m), batch: vec![] }.check();
        }
    }
}

/// Attention reads heads in place: q, k of [B, T, H, D], scores of [B, H, T, T], result of [B, T, H, D].
#[test]
fn batches_of_heads_read_in_place() {
    let (b, t, h, d) = (3, 70, 4, 16);
    // What is added lies as the result does.
    let heads = |a: [usize; 2], b: [usize; 2], out: [usize; 2]| {
        let axis =
            |axis| GemmBatch { count: [3, 4][axis], a: a[axis], b: b[axis], c: out[axis], out: out[axis] };
        vec![axis(0), axis(1)]
    };
    let in_place = [t * h * d, d];
    let scores = [h * t * t, t * t];
    assert_eq!([b, h], [3, 4]);
    for adds in [false, true] {
        Form {
            m: t,
            n: t,
            k: d,
            a: (h * d, 1),
            b: (1, h * d),
            c: adds.then_some((t, 1)),
            out: (t, 1),
            batch: heads(in_place, in_place, scores),
        }
        .check();
        Form {
            m: t,
            n: d,
            k: t,
            a: (t, 1),
            b: (h * d, 1),
            c: adds.then_some((h * d, 1)),
            out: (h * d, 1),
            batch: heads(scores, in_place, in_place),
        }
        .check();
    }
}

/// A stack of X X' + c, and of X X for a symmetric X: whether one triangle is computed or both is seen in no number, except that the
/// result is its own transpose to the bit.
#[test]
fn symmetric_products_are_mirrored() {
    for (count, m, k) in [(1, 5, 3), (3, 37, 64), (2, 100, 700), (1, 290, 1100), (5, 64, 64)] {
        let mut random = Random(m as u64);
        let mut numbers = |length: usize| (0..length).map(|_| random.float()).collect::<Vec<f32>>();
        let (x, mut c) = (numbers(count * m * k), numbers(count * m * m));
        for index in 0..c.len() {
            let (point, row, column) = (index / (m * m), index / m % m, index % m);
            if row > column {
                c[index] = c[point * m * m + column * m + row];
            }
        }
        let words = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        // X X' for any X, or the square of one that is symmetric.
        for (x, k, of_b) in [(&x, k, (1, k)), (&c, m, (m, 1))] {
            let launch = |slots: &[Slot], symmetric: bool| {
                let matrix = |slot, (row_stride, col_stride)| Matrix { slot, row_stride, col_stride };
                LaunchOp::Gemm(Gemm {
                    m,
                    n: m,
                    k,
                    alpha: 0.5,
                    beta: 2.0,
                    a: matrix(slots[0], (k, 1)),
                    b: matrix(slots[0], of_b),
                    c: Some(matrix(slots[1], (m, 1))),
                    out: matrix(slots[2], (m, 1)),
                    batch: vec![GemmBatch { count, a: m * k, b: m * k, c: m * m, out: m * m }],
                    symmetric,
                })
            };
            let operands = vec![words(x), words(&c), vec![1; count * m * m]];
            let bytes: Vec<usize> = operands.iter().map(|operand| operand.len() * 4).collect();
            for isa in Isa::available() {
                let whole = run(&single(vec![], |slots| launch(slots, false), &bytes), &operands, 1, isa);
                let set = single(vec![], |slots| launch(slots, true), &bytes);
                let half = run(&set, &operands, 1, isa);
                for threads in [2, 3] {
                    assert!(half == run(&set, &operands, threads, isa), "{threads} threads change bits");
                }
                for (index, (x, y)) in half[2].iter().zip(&whole[2]).enumerate() {
                    let (x, y) = (f32::from_bits(*x), f32::from_bits(*y));
                    let near = 1e-5 * (k as f32).sqrt();
                    assert!((x - y).abs() < near, "element {index} of {m}x{m}x{k}: {x} for {y}");
                    let (point, row, column) = (index / (m * m), index / m % m, index % m);
                    let turned = half[2][point * m * m + column * m + row];
                    assert!(isa == Isa::Portable || x.to_bits() == turned, "[{row}, {column}]");
                }
            }
        }
    }
}

#[test]
fn scatter_adds_rows_in_order() {
    for (rows, width, count) in [(7, 5, 30), (50, 130, 1000), (1000, 16, 3000), (300, 700, 64)] {
        let mut random = Random(width as u64);
        let ids: Vec<u32> = (0..count).map(|_| (random.below(rows + 6) as i32 - 3) as u32).collect();
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
        let operands = vec![vec![1; rows * width], ids, source];
        let set = single(vec![], launch, &[rows * width * 4, count * 4, count * width * 4]);
        for threads in [1, 2, 3] {
            let got = run(&set, &operands, threads, Isa::Portable);
            assert!(got[0].iter().zip(&want).all(|(x, y)| *x == y.to_bits()), "{threads} threads");
        }
    }
}
