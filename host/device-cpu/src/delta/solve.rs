//! The triangular systems of a chunk, solved for all value columns: each token's row needs those of the tokens before
//! it, or backward of those after it.
//!
//! Blocks of sixteen tokens: what earlier blocks add is a product; within a block the rows of sixteen columns stay in
//! registers, and a row that is done is subtracted from all others at once, so that few operations wait for each other.

use crate::lanes::{LANES, Lanes};

use super::CHUNK;
use super::block::Block;

/// In place of each row x_i of `rows`, from the first to the last: y_i = x_i + sum over j < i of N_ij beta_j y_j; and
/// beta_i y_i to `scaled`. N is `overlaps`, of which only what is below the diagonal is read. Backward from the last to
/// the first, with the transpose of N.
///
/// # Safety
/// `rows` and `scaled` have `count` rows of `groups` groups of lanes, `overlaps` as many rows and columns of the chunk;
/// there are as many numbers in `beta`. The instruction set of `L` is there.
#[inline(always)]
pub unsafe fn solve<L: Lanes, const BACKWARD: bool>(
    [count, groups]: [usize; 2],
    overlaps: Block,
    beta: *const f32,
    rows: Block,
    scaled: Block,
) {
    let blocks = count.div_ceil(LANES);
    for index in 0..blocks {
        let first = if BACKWARD { blocks - 1 - index } else { index } * LANES;
        let height = LANES.min(count - first);
        // SAFETY: the caller's; blocks lie among the rows.
        unsafe {
            let (a, known) = match BACKWARD {
                true => (overlaps.at(first + height, first).turned(), first + height..count),
                false => (overlaps.at(first, 0).left(), 0..first),
            };
            if !known.is_empty() {
                let b = scaled.at(known.start, 0).right();
                L::product([height, groups, known.len()], a, b, rows.at(first, 0).out(), true);
            }
            let square = overlaps.at(first, first).ptr.cast_const();
            let beta = beta.add(first);
            for column in (0..groups * LANES).step_by(LANES) {
                let (rows, scaled) = (rows.at(first, column), scaled.at(first, column));
                match height {
                    LANES => whole::<L, BACKWARD>(square, beta, rows, scaled),
                    _ => partial::<L, BACKWARD>(height, square, beta, rows, scaled),
                }
            }
        }
    }
}

/// Sixteen rows of sixteen columns.
#[inline(always)]
unsafe fn whole<L: Lanes, const BACKWARD: bool>(
    overlaps: *const f32,
    beta: *const f32,
    rows: Block,
    scaled: Block,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut values = [L::splat(0.0); LANES];
        for (step, value) in values.iter_mut().enumerate() {
            *value = L::load(rows.at(place::<BACKWARD>(step), 0).ptr);
        }
        // Steps are written out, so that each value is a register.
        macro_rules! steps {
            ($($step:literal)*) => {
                $(finish::<L, BACKWARD>(&mut values, $step, overlaps, beta, [rows, scaled]);)*
            };
        }
        steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }
}

/// The token of a step, in a whole block.
#[inline(always)]
fn place<const BACKWARD: bool>(step: usize) -> usize {
    if BACKWARD { LANES - 1 - step } else { step }
}

/// Writes the row of a step and subtracts it from those of later steps.
#[inline(always)]
unsafe fn finish<L: Lanes, const BACKWARD: bool>(
    values: &mut [L; LANES],
    step: usize,
    overlaps: *const f32,
    beta: *const f32,
    [rows, scaled]: [Block; 2],
) {
    let done = place::<BACKWARD>(step);
    // SAFETY: the caller's.
    unsafe {
        values[step].store(rows.at(done, 0).ptr);
        let known = values[step].mul(L::splat(*beta.add(done)));
        known.store(scaled.at(done, 0).ptr);
        for (later, value) in values.iter_mut().enumerate().skip(step + 1) {
            let open = place::<BACKWARD>(later);
            let at = if BACKWARD { done * CHUNK + open } else { open * CHUNK + done };
            *value = L::splat(*overlaps.add(at)).fma(known, *value);
        }
    }
}

/// The last rows of a sequence.
#[inline(always)]
unsafe fn partial<L: Lanes, const BACKWARD: bool>(
    count: usize,
    overlaps: *const f32,
    beta: *const f32,
    rows: Block,
    scaled: Block,
) {
    let place = |step: usize| if BACKWARD { count - 1 - step } else { step };
    // SAFETY: the caller's.
    unsafe {
        for step in 0..count {
            let own = place(step);
            let mut sum = L::load(rows.at(own, 0).ptr);
            for earlier in 0..step {
                let done = place(earlier);
                let at = if BACKWARD { done * CHUNK + own } else { own * CHUNK + done };
                sum = L::splat(*overlaps.add(at)).fma(L::load(scaled.at(done, 0).ptr), sum);
            }
            sum.store(rows.at(own, 0).ptr);
            sum.mul(L::splat(*beta.add(own))).store(scaled.at(own, 0).ptr);
        }
    }
}
