//! Keys and values of a head as inner loops read them: rows one after another, filled up to whole groups.
//!
//! Heads lie side by side in a token, so the rows of one are far apart: read where they lie they would drive each
//! other out of the first cache, and the memory behind them would be asked for one line at a time. A head that fits into
//! the second cache is packed once for all of its queries, others a block at a time.

use std::ops::Range;

use plan::{AttentionShape, Heads};

use super::KEYS;
use crate::held::{HELD, Numbers};
use crate::lanes::{Lanes, fetch};
use crate::place::Memory;
use crate::product::{Left, pack};

/// Most floats of a head that is packed whole: a quarter of a usual second cache.
const WHOLE: usize = 1 << 16;

/// Where the keys and values of one head are packed.
pub struct Packed<'l> {
    shape: &'l AttentionShape,
    k: (Left, *mut f32),
    v: (Left, *mut f32),
    is_whole: bool,
}

/// Whether all keys of a head are packed once.
pub fn is_whole(shape: &AttentionShape) -> bool {
    shape.keys * row_floats(shape) <= WHOLE
}

/// Floats that a head takes.
pub fn scratch(shape: &AttentionShape) -> usize {
    row_floats(shape) * if is_whole(shape) { shape.keys.max(KEYS) } else { KEYS }
}

fn row_floats(shape: &AttentionShape) -> usize {
    shape.width.next_multiple_of(HELD) + shape.value_width.next_multiple_of(HELD)
}

impl<'l> Packed<'l> {
    /// Of a head for keys and values of one sequence; `scratch` has as many floats as [`scratch`] says.
    ///
    /// # Safety
    /// The heads are those of a validated launch, and the instruction set of `L` is there.
    #[inline(always)]
    pub unsafe fn head<L: Lanes>(
        shape: &'l AttentionShape,
        memory: &Memory,
        [k, v]: [&Heads; 2],
        (batch, group): (usize, usize),
        scratch: *mut f32,
    ) -> Packed<'l> {
        // SAFETY: the caller's.
        unsafe {
            let (k, v) = (memory.head(k, batch, group), memory.head(v, batch, group));
            let values = scratch.add(scratch_of_keys(shape));
            let packed = Packed { shape, k: (k, scratch), v: (v, values), is_whole: is_whole(shape) };
            if packed.is_whole {
                packed.pack::<L>(0..shape.keys);
            }
            packed
        }
    }

    /// The keys and values of some tokens, at most `KEYS`.
    ///
    /// # Safety
    /// As for [`Packed::head`]; the tokens are there, and what this gave before is not in use.
    #[inline(always)]
    pub unsafe fn block<L: Lanes>(&self, tokens: Range<usize>) -> (Numbers, Numbers) {
        let numbers = |at: *mut f32, width: usize| Numbers { ptr: at, row: width.next_multiple_of(HELD) };
        let (k, v) = (numbers(self.k.1, self.shape.width), numbers(self.v.1, self.shape.value_width));
        if self.is_whole {
            return (k.at(tokens.start, 0), v.at(tokens.start, 0));
        }
        // SAFETY: the caller's.
        unsafe { self.pack::<L>(tokens) };
        (k, v)
    }

    #[inline(always)]
    unsafe fn pack<L: Lanes>(&self, tokens: Range<usize>) {
        // SAFETY: the caller's.
        unsafe {
            for ((from, to), width) in [(self.k, self.shape.width), (self.v, self.shape.value_width)] {
                let from = Left { ptr: from.ptr.add(tokens.start * from.row), ..from };
                pack::<L>(from, tokens.len(), width, to);
            }
        }
    }
}

fn scratch_of_keys(shape: &AttentionShape) -> usize {
    scratch(shape) / row_floats(shape) * shape.width.next_multiple_of(HELD)
}

/// Asks for the rows of some tokens of a head, which another head's task needs soon.
#[inline(always)]
pub fn fetch_rows(
    memory: &Memory,
    heads: &Heads,
    (batch, head): (usize, usize),
    tokens: Range<usize>,
    width: usize,
) {
    if heads.element != 1 {
        return;
    }
    let start = memory.at(&heads.slot).wrapping_add(batch * heads.batch + head * heads.head).cast_const();
    for token in tokens {
        fetch(start.wrapping_add(token * heads.token), width);
    }
}
