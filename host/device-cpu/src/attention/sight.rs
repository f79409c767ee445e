//! What the queries of a block see: bounds for each lane, and from those the parts of a block of keys that anyone sees.

use std::ops::Range;

use plan::AttentionShape;

use super::{GROUPS, KEYS, MASKED, ROWS};
use crate::lanes::LANES;

/// Keys of the finest part that is skipped or taken as a whole.
const STRIP: usize = 16;

/// A row sees the keys below the prefix, and of those in low..high the ones of its segment.
pub struct Sight {
    prefix: usize,
    low: [i32; ROWS],
    high: [i32; ROWS],
    /// Of each row, and those of all keys with the stride between them.
    segments: Option<([i32; ROWS], *const i32, usize)>,
    groups: [Extent; GROUPS],
    /// How many groups of lanes hold rows.
    pub used: usize,
}

/// Bounds of the rows of one group of lanes.
#[derive(Clone, Copy)]
struct Extent {
    lowest: usize,
    highest_low: usize,
    lowest_high: usize,
    highest: usize,
    segments: (i32, i32),
}

/// Keys of a block, relative to its start, and the groups of lanes that see some of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    pub keys: Range<usize>,
    pub groups: Range<usize>,
    /// Every row of those groups sees every key.
    pub full: bool,
}

/// Integer operands of one sequence.
#[derive(Clone, Copy)]
pub struct Integers {
    pub q_offset: Option<i32>,
    pub kv_len: Option<i32>,
    /// Start and stride of the segments of queries, and of keys.
    pub segments: Option<[(*const i32, usize); 2]>,
}

impl Sight {
    /// `tokens` are those of the `count` rows, at most `ROWS`.
    ///
    /// # Safety
    /// The segments are readable for every token and key of the shape.
    pub unsafe fn new(
        shape: &AttentionShape,
        integers: &Integers,
        count: usize,
        tokens: impl Iterator<Item = usize>,
    ) -> Sight {
        let nobody = Extent {
            lowest: usize::MAX,
            highest_low: 0,
            lowest_high: usize::MAX,
            highest: 0,
            segments: (i32::MAX, i32::MIN),
        };
        let mut sight = Sight {
            prefix: shape.prefix,
            low: [0; ROWS],
            high: [0; ROWS],
            segments: integers.segments.map(|[_, (keys, stride)]| ([0; ROWS], keys, stride)),
            groups: [nobody; GROUPS],
            used: count.div_ceil(LANES),
        };
        let (prefix, keys) = (shape.prefix as i64, shape.keys as i64);
        let start = match integers.q_offset {
            Some(offset) => i64::from(offset),
            None => keys - prefix - shape.queries as i64,
        };
        let end = integers.kv_len.map_or(keys, |length| prefix + i64::from(length));
        for (row, token) in tokens.enumerate() {
            let position = prefix + start + token as i64;
            let low = if shape.window > 0 { position - shape.window as i64 + 1 } else { prefix };
            let high = if shape.causal { end.min(position + 1) } else { end };
            let low = low.clamp(prefix, keys);
            let high = high.clamp(low, keys);
            (sight.low[row], sight.high[row]) = (low as i32, high as i32);
            let group = &mut sight.groups[row / LANES];
            let (low, high) = (low as usize, high as usize);
            group.highest_low = group.highest_low.max(low);
            group.lowest_high = group.lowest_high.min(high);
            if low < high {
                group.lowest = group.lowest.min(low);
                group.highest = group.highest.max(high);
            }
            if let (Some([(first, stride), _]), Some((segments, ..))) =
                (integers.segments, &mut sight.segments)
            {
                // SAFETY: the caller's.
                let segment = unsafe { *first.add(token * stride) };
                segments[row] = segment;
                group.segments = (group.segments.0.min(segment), group.segments.1.max(segment));
            }
        }
        sight
    }

    /// The keys outside of which no row sees any.
    pub fn keys(&self) -> Range<usize> {
        let used = &self.groups[..self.used];
        let first = used.iter().map(|group| group.lowest).min().unwrap_or(0);
        let end = used.iter().map(|group| group.highest).max().unwrap_or(0).max(self.prefix);
        (if self.prefix > 0 { 0 } else { first.min(end) })..end
    }

    /// The parts of `KEYS` keys (or fewer) from `start` that someone sees, and how many there are.
    ///
    /// # Safety
    /// The segments of those keys are readable.
    pub unsafe fn strips(&self, start: usize, count: usize, strips: &mut [Strip; KEYS / STRIP]) -> usize {
        let mut found = 0;
        for first in (0..count).step_by(STRIP) {
            let keys = first..count.min(first + STRIP);
            // SAFETY: the caller's.
            let Some((groups, full)) = (unsafe { self.who_sees(start + keys.start..start + keys.end) })
            else {
                continue;
            };
            if found > 0 {
                let last = &mut strips[found - 1];
                if last.keys.end == keys.start && last.groups == groups && last.full == full {
                    last.keys.end = keys.end;
                    continue;
                }
            }
            strips[found] = Strip { keys, groups, full };
            found += 1;
        }
        found
    }

    /// Groups of lanes from the first to the last that sees some of the keys, and whether these see all of them.
    unsafe fn who_sees(&self, keys: Range<usize>) -> Option<(Range<usize>, bool)> {
        if keys.end <= self.prefix {
            return Some((0..self.used, true));
        }
        let behind = keys.start.max(self.prefix)..keys.end;
        let mut segments = (i32::MAX, i32::MIN);
        if let Some((_, of_keys, stride)) = &self.segments {
            for key in behind.clone() {
                // SAFETY: the caller's.
                let segment = unsafe { *of_keys.add(key * stride) };
                segments = (segments.0.min(segment), segments.1.max(segment));
            }
        }
        let has_segments = self.segments.is_some();
        let sees = |group: &Extent| {
            keys.start < self.prefix
                || (group.lowest < behind.end
                    && group.highest > behind.start
                    && (!has_segments || (group.segments.0 <= segments.1 && segments.0 <= group.segments.1)))
        };
        let sees_all = |group: &Extent| {
            behind.start >= group.highest_low
                && behind.end <= group.lowest_high
                && (!has_segments || (segments.0 == segments.1 && group.segments == segments))
        };
        let used = &self.groups[..self.used];
        let first = used.iter().position(sees)?;
        let end = used.iter().rposition(sees)? + 1;
        Some((first..end, used[first..end].iter().all(sees_all)))
    }

    /// Masks the scores[key][row] of a strip of the keys from `start` that their rows do not see.
    ///
    /// # Safety
    /// `scores` holds rows of `ROWS` floats for every key of the strip, counted from `start`, and their segments are
    /// readable.
    #[inline(always)]
    pub unsafe fn hide(&self, start: usize, strip: &Strip, scores: *mut f32) {
        for key in strip.keys.clone() {
            let at = start + key;
            if at < self.prefix {
                continue;
            }
            // SAFETY: the caller's.
            let row = unsafe { &mut *scores.add(key * ROWS).cast::<[f32; ROWS]>() };
            let at = at as i32;
            for ((score, low), high) in row.iter_mut().zip(&self.low).zip(&self.high) {
                let seen = (at >= *low) & (at < *high);
                *score = if seen { *score } else { MASKED };
            }
            if let Some((of_rows, of_keys, stride)) = &self.segments {
                // SAFETY: the caller's.
                let segment = unsafe { *of_keys.add(at as usize * stride) };
                for (score, of_row) in row.iter_mut().zip(of_rows) {
                    *score = if *of_row == segment { *score } else { MASKED };
                }
            }
        }
    }
}
