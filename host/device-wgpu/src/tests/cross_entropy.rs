//! Cross-entropy of a head in several chunks against plain loops in double precision.

use plan::{CrossEntropy, CrossEntropyGrad, LaunchOp, Numbered, Rows};

use super::{Random, any_adapter, run, single, valid};
use crate::Tiles;

/// Which results are asked for: losses, cotangents of x, cotangents of w.
fn check([tokens, width, vocabulary]: [usize; 3], wanted: [bool; 3]) {
    let [wants_loss, wants_x, wants_w] = wanted;
    let (x_stride, ct_stride) = (width + 3, usize::from(tokens % 2 == 0));
    let lengths = [
        (tokens - 1) * x_stride + width,
        vocabulary * width,
        tokens,
        (tokens - 1) * ct_stride + 1,
        tokens,
        tokens * width,
        vocabulary * width,
    ];
    let set = single(
        vec![],
        |slots| {
            let numbered = |slot, stride| Numbered { slot, stride };
            LaunchOp::CrossEntropy(Box::new(CrossEntropy {
                tokens,
                width,
                vocabulary,
                x: Rows { slot: slots[0], stride: x_stride },
                w: Rows { slot: slots[1], stride: width },
                targets: numbered(slots[2], 1),
                loss: wants_loss.then_some(slots[4]),
                grad: (wants_x || wants_w).then(|| CrossEntropyGrad {
                    ct: numbered(slots[3], ct_stride),
                    ct_x: wants_x.then_some(slots[5]),
                    ct_w: wants_w.then_some(slots[6]),
                }),
            }))
        },
        &lengths,
    );
    let mut random = Random(tokens as u64);
    let mut operands: Vec<Vec<u32>> =
        lengths.iter().map(|length| (0..*length).map(|_| random.float().to_bits()).collect()).collect();
    // Some targets are outside on either side, and are ignored.
    let targets: Vec<i64> =
        (0..tokens).map(|_| (random.next() % (vocabulary as u64 + 2)) as i64 - 1).collect();
    operands[2] = targets.iter().map(|target| *target as i32 as u32).collect();
    let float = |which: usize, index: usize| f64::from(f32::from_bits(operands[which][index]));

    let mut losses = vec![0.0; tokens];
    let (mut ct_x, mut ct_w) = (vec![0.0; tokens * width], vec![0.0; vocabulary * width]);
    for token in (0..tokens).filter(|token| (0..vocabulary as i64).contains(&targets[*token])) {
        let target = targets[token] as usize;
        let x = |j: usize| float(0, token * x_stride + j);
        let logit = |v: usize| (0..width).map(|j| x(j) * float(1, v * width + j)).sum::<f64>();
        let logits: Vec<f64> = (0..vocabulary).map(logit).collect();
        let largest = logits.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x));
        let total: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
        losses[token] = largest + total.ln() - logits[target];
        for v in 0..vocabulary {
            let share = (logits[v] - largest).exp() / total - f64::from(u8::from(v == target));
            let slope = float(3, token * ct_stride) * share;
            for j in 0..width {
                ct_x[token * width + j] += slope * float(1, v * width + j);
                ct_w[v * width + j] += slope * x(j);
            }
        }
    }
    for tiles in [Tiles::Direct, Tiles::Shared] {
        valid(&set, tiles);
        let Some(adapter) = any_adapter() else { continue };
        let got = run(&adapter.with_tiles(tiles), &set, &operands).unwrap_or_else(|error| panic!("{error}"));
        for (index, want, is_wanted) in [(4, &losses, wants_loss), (5, &ct_x, wants_x), (6, &ct_w, wants_w)] {
            for (place, (want, got)) in want.iter().zip(&got[index]).enumerate() {
                let got = f64::from(f32::from_bits(*got));
                let agrees = (got - want).abs() < 2e-5 * (1.0 + want.abs()) * (tokens as f64).sqrt();
                assert!(agrees || !is_wanted, "result {index} [{place}]: {got} for {want}");
            }
        }
    }
}

#[test]
fn chunks_agree_with_plain_loops() {
    // Tests keep 2048 logits: 3 chunks with a ragged last one, 17, and 1.
    check([33, 20, 150], [true, true, true]);
    check([65, 5, 700], [false, true, true]);
    check([7, 1, 3], [true, false, false]);
    check([18, 9, 300], [true, false, true]);
}
