//! Between memory and registers: loads, gathers, iotas and stores of a tile.

use ops::DType;

use super::lanes::{load, store};
use super::program::{Class, LANES, PREFETCH_PARTS, Tile, View};
use super::shape::{Address, at_index};

/// Part of a tile that one base and two strides describe.
struct Patch {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    /// Element of the patch's first point.
    start: i64,
    row_stride: i64,
    column_stride: i64,
}

/// Calls `each` for the patches of an address over `rows` x `columns` of the tile.
#[inline(always)]
fn for_patches(tile: &Tile, at: &Address, (rows, columns): (usize, usize), mut each: impl FnMut(Patch)) {
    let shape = &tile.program.shape;
    let row_stride = at.rows[at.rows.len() - 1];
    let row_extent = shape.rows[shape.rows.len() - 1];
    let mut row = 0;
    while row < rows {
        let in_axis = row_extent - (tile.row + row) % row_extent;
        let count = if at.is_linear { rows - row } else { in_axis.min(rows - row) };
        let base = at.base(shape, tile.plane, tile.row + row);
        let mut column = 0;
        while column < columns {
            let (run, within) =
                ((tile.column + column) / shape.run_length, (tile.column + column) % shape.run_length);
            let length = (shape.run_length - within).min(columns - column);
            let start = base + at_index(run, &shape.runs, &at.runs) + within as i64 * at.column;
            each(Patch {
                row,
                rows: count,
                column,
                columns: length,
                start,
                row_stride,
                column_stride: at.column,
            });
            column += length;
        }
        row += count;
    }
}

fn points(tile: &Tile, class: Class) -> (usize, usize) {
    (if class.by_row() { tile.rows } else { 1 }, if class.by_column() { tile.columns } else { 1 })
}

/// Fills a view's padding-free part: `read(offset)` is the element at an address.
///
/// # Safety
/// `out` holds the class's extent.
#[inline(always)]
unsafe fn fill(tile: &Tile, at: &Address, out: View, class: Class, read: impl Fn(i64) -> u32) {
    for_patches(tile, at, points(tile, class), |patch| {
        for row in 0..patch.rows {
            let from = patch.start + row as i64 * patch.row_stride;
            // SAFETY: the caller's; a patch lies in the tile.
            unsafe {
                let to = out.ptr.offset((patch.row + row) as isize * out.row_step);
                if !class.by_column() {
                    store(to, [read(from); LANES]);
                    continue;
                }
                for column in 0..patch.columns {
                    *to.add(patch.column + column) = read(from + column as i64 * patch.column_stride);
                }
            }
        }
    });
}

/// Makes `view` the loaded value: in place where the memory already looks like a register, else copied to `home`.
///
/// # Safety
/// Every address of the tile lies in the memory at `memory`, and `home` holds the class's extent.
#[inline(always)]
pub unsafe fn load_tile(
    tile: &Tile,
    at: &Address,
    memory: *mut u32,
    home: View,
    class: Class,
    in_place: bool,
) -> View {
    let shape = &tile.program.shape;
    let has_one_patch = at.is_linear || {
        let extent = shape.rows[shape.rows.len() - 1];
        tile.row % extent + points(tile, class).0 <= extent
    };
    let is_register = class.by_column() && at.column == 1 && shape.runs.is_empty() && has_one_patch;
    if in_place && is_register && tile.columns.is_multiple_of(LANES) {
        let start = at.base(shape, tile.plane, tile.row) + tile.column as i64;
        let row_step = if class.by_row() { at.rows[at.rows.len() - 1] as isize } else { 0 };
        return View { ptr: memory.wrapping_offset(start as isize), row_step, mask: usize::MAX };
    }
    if !class.by_column() || at.column == 0 {
        // SAFETY: the caller's.
        unsafe { fill(tile, at, home, class, |offset| *memory.offset(offset as isize)) };
        return home;
    }
    for_patches(tile, at, points(tile, class), |patch| {
        // SAFETY: the caller's; a patch lies in the tile and in its register.
        unsafe {
            let from = memory.offset(patch.start as isize);
            let to = home.ptr.offset(patch.row as isize * home.row_step).add(patch.column);
            let steps = [patch.row_stride as isize, patch.column_stride as isize];
            copy(from, steps, to, [home.row_step, 1], patch.rows, patch.columns);
        }
    });
    home
}

/// Asks for a part of the same operand of the next tile, if this tile reads it in place.
#[inline(always)]
pub fn prefetch_next(tile: &Tile, value: usize, part: usize) {
    let view = tile.views[value];
    if view.ptr == tile.home(value).ptr {
        return;
    }
    let (rows, _) = tile.extent(Class::Element);
    let has_rows = tile.program.shape.row_count() > 1;
    let step = if has_rows { rows as isize * view.row_step } else { tile.columns as isize };
    prefetch(tile, view.ptr.wrapping_offset(step), view.row_step, part);
}

/// Asks for a part of what this tile will store, so that its stores need not wait one after another.
#[inline(always)]
pub fn prefetch_store(tile: &Tile, at: &Address, memory: *mut u32, part: usize) {
    let start = at.base(&tile.program.shape, tile.plane, tile.row) + tile.column as i64;
    prefetch(tile, memory.wrapping_offset(start as isize), at.rows[at.rows.len() - 1] as isize, part);
}

#[inline(always)]
fn prefetch(tile: &Tile, start: *mut u32, row_step: isize, part: usize) {
    let (rows, groups) = tile.extent(Class::Element);
    let is_dense = row_step == (groups * LANES) as isize;
    let (rows, groups) = if is_dense { (1, rows * groups) } else { (rows, groups) };
    // A part is some groups of a lone row, or all groups of some rows.
    let share = |count: usize| {
        let each = count.div_ceil(PREFETCH_PARTS);
        part * each..count.min((part + 1) * each)
    };
    let (rows, groups) = if rows == 1 { (0..1, share(groups)) } else { (share(rows), 0..groups) };
    for row in rows {
        let row_start = start.wrapping_offset(row as isize * row_step);
        for group in groups.clone() {
            let next = row_start.wrapping_add(group * LANES);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch of any address is without effect on results, and every x86-64 has it.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(next.cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = next;
        }
    }
}

/// Copies `rows` x `columns` elements from one pair of strides to another, in the order that suits the memory.
///
/// # Safety
/// All elements lie in live memory; source and destination are equal or apart.
#[inline(always)]
unsafe fn copy(
    from: *const u32,
    from_steps: [isize; 2],
    to: *mut u32,
    to_steps: [isize; 2],
    rows: usize,
    columns: usize,
) {
    // SAFETY: the caller's, for all indices below rows and columns.
    unsafe {
        if from_steps[1] == 1 && to_steps[1] == 1 {
            let whole = columns / LANES * LANES;
            for row in 0..rows as isize {
                let (from, to) = (from.offset(row * from_steps[0]), to.offset(row * to_steps[0]));
                for column in (0..whole).step_by(LANES) {
                    store(to.add(column), load(from.add(column)));
                }
                for column in whole..columns {
                    *to.add(column) = *from.add(column);
                }
            }
            return;
        }
        let crosses =
            from_steps[1].abs() > from_steps[0].abs().max(1) || to_steps[1].abs() > to_steps[0].abs().max(1);
        if crosses && rows > 1 {
            for column in 0..columns as isize {
                let (from, to) = (from.offset(column * from_steps[1]), to.offset(column * to_steps[1]));
                for row in 0..rows as isize {
                    *to.offset(row * to_steps[0]) = *from.offset(row * from_steps[0]);
                }
            }
        } else {
            for row in 0..rows as isize {
                let (from, to) = (from.offset(row * from_steps[0]), to.offset(row * to_steps[0]));
                for column in 0..columns as isize {
                    *to.offset(column * to_steps[1]) = *from.offset(column * from_steps[1]);
                }
            }
        }
    }
}

/// A load whose address moves by `stride` times a clamped index.
///
/// # Safety
/// As for [`load_tile`], for every index below `limit`.
#[inline(always)]
pub unsafe fn gather_tile(
    tile: &Tile,
    at: &Address,
    memory: *mut u32,
    out: View,
    class: Class,
    index: View,
    (stride, limit): (i64, usize),
) {
    let shift = |row: usize, column: usize| {
        // SAFETY: the index's view holds this point of the tile.
        let id = unsafe {
            *index.ptr.cast::<i32>().offset(row as isize * index.row_step).add(column & index.mask)
        };
        i64::from(id).clamp(0, limit as i64 - 1) * stride
    };
    for_patches(tile, at, points(tile, class), |patch| {
        for row in 0..patch.rows {
            let start = patch.start + row as i64 * patch.row_stride;
            // SAFETY: the caller's; a patch lies in the tile and in its register.
            unsafe {
                let to = out.ptr.offset((patch.row + row) as isize * out.row_step);
                if !class.by_column() {
                    store(to, [*memory.offset((start + shift(patch.row + row, 0)) as isize); LANES]);
                } else if index.mask == 0 {
                    let from = memory.offset((start + shift(patch.row + row, 0)) as isize);
                    copy(
                        from,
                        [0, patch.column_stride as isize],
                        to.add(patch.column),
                        [0, 1],
                        1,
                        patch.columns,
                    );
                } else {
                    for column in 0..patch.columns {
                        let moved = shift(patch.row + row, patch.column + column);
                        let offset = start + column as i64 * patch.column_stride + moved;
                        *to.add(patch.column + column) = *memory.offset(offset as isize);
                    }
                }
            }
        }
    });
}

/// The address itself as a number.
///
/// # Safety
/// `out` holds the class's extent.
#[inline(always)]
pub unsafe fn iota_tile(tile: &Tile, at: &Address, out: View, class: Class, dtype: DType) {
    // SAFETY: the caller's.
    unsafe {
        match dtype {
            DType::F32 => fill(tile, at, out, class, |offset| (offset as f32).to_bits()),
            DType::I32 | DType::U32 | DType::Bool => fill(tile, at, out, class, |offset| offset as u32),
        }
    }
}

/// # Safety
/// Every address of the tile lies in the memory at `memory`, which no other tile writes meanwhile.
#[inline(always)]
pub unsafe fn store_tile(tile: &Tile, at: &Address, memory: *mut u32, value: View) {
    let columns = if at.varies_by_column() { tile.columns } else { 1 };
    let rows = if at.varies_by_row() { tile.rows } else { 1 };
    for_patches(tile, at, (rows, columns), |patch| {
        // SAFETY: the caller's; a patch lies in the tile.
        unsafe {
            let to = memory.offset(patch.start as isize);
            let steps = [patch.row_stride as isize, patch.column_stride as isize];
            let row = value.ptr.offset(patch.row as isize * value.row_step);
            if value.mask == 0 {
                copy(row, [value.row_step, 0], to, steps, patch.rows, patch.columns);
            } else {
                copy(row.add(patch.column), [value.row_step, 1], to, steps, patch.rows, patch.columns);
            }
        }
    });
}
