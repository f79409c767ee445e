//! Panels that a plan keeps: products of one operand, before and after somebody writes to it.

use plan::{Gemm, Launch, LaunchOp, Matrix, Slot};

use super::{Random, run, single};
use crate::panel::{Kept, Shape};
use crate::tile::Isa;

fn product([m, n, k]: [usize; 3], a: Slot, (b, b_strides): (Slot, [usize; 2]), out: Slot) -> Gemm {
    let matrix = |slot, [row_stride, col_stride]: [usize; 2]| Matrix { slot, row_stride, col_stride };
    Gemm {
        m,
        n,
        k,
        alpha: 1.0,
        beta: 0.0,
        symmetric: false,
        a: matrix(a, [k, 1]),
        b: matrix(b, b_strides),
        c: None,
        out: matrix(out, [n, 1]),
        batch: vec![],
    }
}

#[test]
fn kept_panels_follow_what_is_written() {
    for [m, n, k] in [[16, 70, 300], [64, 33, 1030], [2, 200, 31], [128, 16, 256], [100, 48, 513]] {
        for b_strides in [[n, 1], [1, k]] {
            // a, b, three results, two factors of what b becomes, three results of that.
            let lengths = [m * k, k * n, m * n, m * n, m * n, k * 2, 2 * n, m * n, m * n, m * n];
            let mut random = Random((m * n * k) as u64);
            let operands: Vec<Vec<u32>> = lengths
                .iter()
                .map(|length| (0..*length).map(|_| random.float().to_bits()).collect())
                .collect();
            let bytes: Vec<usize> = lengths.iter().map(|length| length * 4).collect();
            let mut launches = Vec::new();
            let mut set = single(
                vec![],
                |slots| {
                    let label = "it".to_string();
                    let mut push = |gemm| {
                        let op = LaunchOp::Gemm(gemm);
                        launches.push(Launch { label: label.clone(), op, guards: Vec::new() });
                    };
                    let reads = |out: usize| product([m, n, k], slots[0], (slots[1], b_strides), slots[out]);
                    (2..5).for_each(|out| push(reads(out)));
                    let mut written = product([k, n, 2], slots[5], (slots[6], [n, 1]), slots[1]);
                    [written.out.row_stride, written.out.col_stride] = b_strides;
                    push(written);
                    (7..10).for_each(|out| push(reads(out)));
                    launches[0].op.clone()
                },
                &bytes,
            );
            set.plans[0].launches = launches;
            for isa in Isa::available() {
                let kept = Kept::of(&set.plans[0], Shape::of(isa));
                let panels = if Shape::of(isa).is_some() { 2 } else { 0 };
                assert!(kept.floats() >= panels * k * n, "{} floats are kept", kept.floats());
                let got = run(&set, &operands, 1, isa);
                for threads in [2, 3] {
                    assert!(got == run(&set, &operands, threads, isa), "{threads} threads change bits");
                }
                let at = |list: &[Vec<u32>], which: usize, index: usize| {
                    f64::from(f32::from_bits(list[which][index]))
                };
                for (outs, list) in [(2..5, &operands), (7..10, &got)] {
                    for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3)] {
                        let b = |l: usize| at(list, 1, l * b_strides[0] + j * b_strides[1]);
                        let want: f64 = (0..k).map(|l| at(&operands, 0, i * k + l) * b(l)).sum();
                        for out in outs.clone() {
                            let x = at(&got, out, i * n + j);
                            assert!((x - want).abs() < 1e-4, "result {out} [{i}, {j}]: {x} for {want}");
                        }
                    }
                }
            }
        }
    }
}
