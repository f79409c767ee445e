//! Reductions in the order of the plan's contract: 16 lanes along a row, rows in order along a column.

use super::lanes::{Group, load, map2, store};
use super::program::{Fold, LANES, Tile};

/// Rows whose lanes are folded side by side, so that one row's additions need not wait for each other.
const TOGETHER: usize = 4;

/// Folds the tile's columns of `arg` into the lanes of `out`, from the identity or from what the lanes hold.
///
/// # Safety
/// The values' views hold the tile's extent.
#[inline(always)]
pub unsafe fn accumulate(tile: &Tile, out: usize, arg: usize, fold: Fold) {
    // SAFETY: the caller's.
    unsafe {
        match fold {
            Fold::Sum => accumulate_by(tile, out, arg, fold, |total, x| Fold::Sum.apply(total, x)),
            Fold::Max => accumulate_by(tile, out, arg, fold, |most, x| Fold::Max.apply(most, x)),
        }
    }
}

#[inline(always)]
unsafe fn accumulate_by(tile: &Tile, out: usize, arg: usize, fold: Fold, f: impl Fn(f32, f32) -> f32 + Copy) {
    let mut row = 0;
    while row < tile.rows {
        // SAFETY: the rows lie in the tile.
        unsafe {
            if tile.rows - row >= TOGETHER {
                accumulate_rows_at::<TOGETHER>(tile, out, arg, fold, row, f);
                row += TOGETHER;
            } else {
                accumulate_rows_at::<1>(tile, out, arg, fold, row, f);
                row += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn accumulate_rows_at<const ROWS: usize>(
    tile: &Tile,
    out: usize,
    arg: usize,
    fold: Fold,
    row: usize,
    f: impl Fn(f32, f32) -> f32 + Copy,
) {
    let (arg, out) = (tile.views[arg], tile.views[out]);
    let full = tile.columns / LANES;
    let rest = tile.columns % LANES;
    let identity: Group<f32> = [fold.identity(); LANES];
    // SAFETY: `ROWS` rows from `row` lie in the tile, and both views hold its extent.
    unsafe {
        let lanes_at = |index: usize| out.ptr.cast::<f32>().offset((row + index) as isize * out.row_step);
        let row_at = |index: usize| arg.ptr.cast::<f32>().offset((row + index) as isize * arg.row_step);
        let mut lanes = [identity; ROWS];
        if !tile.first {
            for (index, lanes) in lanes.iter_mut().enumerate() {
                *lanes = load(lanes_at(index));
            }
        }
        for group in 0..full {
            for (index, lanes) in lanes.iter_mut().enumerate() {
                *lanes = map2(*lanes, load(row_at(index).add((group * LANES) & arg.mask)), f);
            }
        }
        if rest > 0 {
            for (index, lanes) in lanes.iter_mut().enumerate() {
                let mut last = load(row_at(index).add((full * LANES) & arg.mask));
                last[rest..].copy_from_slice(&identity[rest..]);
                *lanes = map2(*lanes, last, f);
            }
        }
        for (index, lanes) in lanes.iter().enumerate() {
            store(lanes_at(index), *lanes);
        }
    }
}

/// Folds 16 lanes pairwise into one number per row, which all lanes then hold.
///
/// # Safety
/// The value's view holds a group per row.
#[inline(always)]
pub unsafe fn fold_lanes(tile: &Tile, out: usize, fold: Fold) {
    let out = tile.views[out];
    for row in 0..tile.rows as isize {
        // SAFETY: the caller's.
        unsafe {
            let ptr = out.ptr.cast::<f32>().offset(row * out.row_step);
            let lanes = load(ptr);
            let total = match fold {
                Fold::Sum => pairwise(lanes, |total, x| Fold::Sum.apply(total, x)),
                Fold::Max => pairwise(lanes, |most, x| Fold::Max.apply(most, x)),
            };
            store(ptr, [total; LANES]);
        }
    }
}

#[inline(always)]
fn pairwise(lanes: Group<f32>, f: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| f(lanes[lane], lanes[lane + 8]));
    let four: [f32; 4] = std::array::from_fn(|lane| f(eight[lane], eight[lane + 4]));
    let two: [f32; 2] = std::array::from_fn(|lane| f(four[lane], four[lane + 2]));
    f(two[0], two[1])
}

/// Folds the tile's rows of `arg` into one number per column, from the identity or from what `out` holds.
///
/// # Safety
/// The values' views hold the tile's extent.
#[inline(always)]
pub unsafe fn accumulate_rows(tile: &Tile, out: usize, arg: usize, fold: Fold) {
    // SAFETY: the caller's.
    unsafe {
        match fold {
            Fold::Sum => accumulate_rows_by(tile, out, arg, fold, |total, x| Fold::Sum.apply(total, x)),
            Fold::Max => accumulate_rows_by(tile, out, arg, fold, |most, x| Fold::Max.apply(most, x)),
        }
    }
}

#[inline(always)]
unsafe fn accumulate_rows_by(tile: &Tile, out: usize, arg: usize, fold: Fold, f: impl Fn(f32, f32) -> f32) {
    let (arg, out) = (tile.views[arg], tile.views[out]);
    for group in 0..tile.columns.div_ceil(LANES) {
        // SAFETY: the caller's; registers are padded to whole groups.
        unsafe {
            let out = out.ptr.cast::<f32>().add(group * LANES);
            let column = arg.ptr.cast::<f32>().add((group * LANES) & arg.mask);
            let mut total = if tile.first { [fold.identity(); LANES] } else { load(out) };
            for row in 0..tile.rows as isize {
                total = map2(total, load(column.offset(row * arg.row_step)), &f);
            }
            store(out, total);
        }
    }
}
