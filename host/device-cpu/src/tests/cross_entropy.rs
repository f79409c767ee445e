//! Cross-entropy of a head against its definition in f64, on every instruction set; that the number of threads changes no
//! bit, nor whether losses and cotangents come together.

use plan::{CrossEntropy, CrossEntropyGrad, LaunchOp, Numbered, Rows, Slot};

use super::{Random, run, single};
use crate::tile::Isa;

/// Tokens, width, vocabulary, and elements between rows beyond the width.
type Form = [usize; 4];

/// Operands x, w, targets and ct, then losses and both cotangents, filled with a number that is none of theirs.
fn operands([tokens, width, vocabulary, gap]: Form) -> Vec<Vec<u32>> {
    let mut random = Random((tokens * width + vocabulary) as u64);
    let mut draw = |count: usize| (0..count).map(|_| random.float().to_bits()).collect::<Vec<u32>>();
    let (x, w) = (draw(tokens * (width + gap)), draw(vocabulary * (width + gap)));
    let ct = draw(tokens);
    // Some are ignored, on both sides of what is valid.
    let targets = (0..tokens).map(|_| (random.below(vocabulary + 2) as u32).wrapping_sub(1)).collect();
    let filled = |count: usize| vec![9.0f32.to_bits(); count];
    vec![x, w, targets, ct, filled(tokens), filled(tokens * width), filled(vocabulary * width)]
}

fn launch([tokens, width, vocabulary, gap]: Form, slots: &[Slot], results: [bool; 3]) -> LaunchOp {
    let rows = |slot: Slot| Rows { slot, stride: width + gap };
    let numbered = |slot: Slot| Numbered { slot, stride: 1 };
    let given = |index: usize| results[index].then(|| slots[4 + index]);
    let grad = CrossEntropyGrad { ct: numbered(slots[3]), ct_x: given(1), ct_w: given(2) };
    LaunchOp::CrossEntropy(Box::new(CrossEntropy {
        tokens,
        width,
        vocabulary,
        x: rows(slots[0]),
        w: rows(slots[1]),
        targets: numbered(slots[2]),
        loss: given(0),
        grad: (results[1] || results[2]).then_some(grad),
    }))
}

fn results(form: Form, operands: &[Vec<u32>], wanted: [bool; 3], threads: usize, isa: Isa) -> Vec<Vec<u32>> {
    let bytes: Vec<usize> = operands.iter().map(|x| x.len() * 4).collect();
    let set = single(vec![], |slots| launch(form, slots, wanted), &bytes);
    run(&set, operands, threads, isa).split_off(4)
}

/// Losses and cotangents of x and w.
fn expected([tokens, width, vocabulary, gap]: Form, operands: &[Vec<u32>]) -> [Vec<f64>; 3] {
    let value = |which: usize, index: usize| f64::from(f32::from_bits(operands[which][index]));
    let (mut losses, mut ct_x, mut ct_w) =
        (vec![0.0; tokens], vec![0.0; tokens * width], vec![0.0; vocabulary * width]);
    for token in 0..tokens {
        let target = operands[2][token] as usize;
        if target >= vocabulary {
            continue;
        }
        let at = |row: usize, feature: usize| row * (width + gap) + feature;
        let logits: Vec<f64> = (0..vocabulary)
            .map(|row| (0..width).map(|d| value(0, at(token, d)) * value(1, at(row, d))).sum())
            .collect();
        let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, x| largest.max(*x));
        let total: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
        losses[token] = total.ln() + largest - logits[target];
        for (row, logit) in logits.iter().enumerate() {
            let softmax = (logit - largest).exp() / total;
            let ct = value(3, token) * (softmax - f64::from(u8::from(row == target)));
            for d in 0..width {
                ct_x[token * width + d] += ct * value(1, at(row, d));
                ct_w[row * width + d] += ct * value(0, at(token, d));
            }
        }
    }
    [losses, ct_x, ct_w]
}

fn check(form: Form) {
    let operands = operands(form);
    let want = expected(form, &operands);
    for isa in Isa::available() {
        let all = results(form, &operands, [true; 3], 1, isa);
        for (which, (got, want)) in all.iter().zip(&want).enumerate() {
            let largest = want.iter().fold(1.0f64, |largest, x| largest.max(x.abs()));
            for (index, (got, want)) in got.iter().zip(want).enumerate() {
                let got = f64::from(f32::from_bits(*got));
                let error = (got - want).abs() / largest;
                assert!(error < 2e-5, "{form:?} {}: result {which} [{index}]: {got} for {want}", isa.name());
            }
        }
        for threads in [2, 3] {
            assert!(
                all == results(form, &operands, [true; 3], threads, isa),
                "{threads} threads change bits"
            );
        }
        for (wanted, which) in
            [([true, false, false], 0), ([false, true, false], 1), ([false, false, true], 2)]
        {
            let alone = results(form, &operands, wanted, 2, isa);
            assert!(all[which] == alone[which], "{form:?}: result {which} alone has other bits");
        }
    }
}

#[test]
fn cross_entropy_of_many_shapes() {
    for form in [
        [1, 1, 1, 0],
        [1, 3, 2, 0],
        [5, 7, 11, 0],
        [31, 16, 96, 2],
        [40, 33, 97, 0],
        [64, 40, 300, 5],
        [129, 65, 1000, 0],
        // Two chunks of tokens, several blocks in a group, terms in two parts.
        [450, 48, 200, 0],
        [33, 600, 2000, 0],
    ] {
        check(form);
    }
}

/// The engine finds steps that went wrong by what is not finite, so no token may lose it, nor give it to another.
#[test]
fn what_is_no_number_shows_in_its_tokens_loss_alone() {
    let form = [70, 24, 400, 0];
    let plain = operands(form);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut spoilt = plain.clone();
        spoilt[0][37 * 24 + 5] = bad.to_bits();
        spoilt[2][37] = 3;
        for isa in Isa::available() {
            let [want, got] = [&plain, &spoilt].map(|x| results(form, x, [true; 3], 2, isa));
            for (token, (want, got)) in want[0].iter().zip(&got[0]).enumerate() {
                let is_right = if token == 37 { !f32::from_bits(*got).is_finite() } else { want == got };
                assert!(is_right, "{}: loss of token {token} with {bad} in 37", isa.name());
            }
            for (index, (want, got)) in want[1].iter().zip(&got[1]).enumerate() {
                let is_right = if index / 24 == 37 { f32::from_bits(*got).is_nan() } else { want == got };
                assert!(is_right, "{}: cotangent of token {} with {bad} in 37", isa.name(), index / 24);
            }
            assert!(got[2].iter().any(|x| f32::from_bits(*x).is_nan()), "{}", isa.name());
        }
    }
}

/// Logits far apart: blocks that hold nothing but tiny exponentials, and rows that reach the ends of what is finite.
#[test]
fn large_logits_neither_overflow_nor_vanish() {
    let form = [40, 2, 500, 0];
    let mut operands = operands(form);
    operands[0].iter_mut().for_each(|x| *x = (f32::from_bits(*x) * 1e3).to_bits());
    operands[2].iter_mut().for_each(|target| *target %= 500);
    let want = expected(form, &operands);
    for isa in Isa::available() {
        let got = results(form, &operands, [true; 3], 2, isa);
        for (got, want) in got[0].iter().zip(&want[0]) {
            let got = f64::from(f32::from_bits(*got));
            assert!((got - want).abs() < 1e-3 * want.abs().max(1.0), "{}: {got} for {want}", isa.name());
        }
    }
}
