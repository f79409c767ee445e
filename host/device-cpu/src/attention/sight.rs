//! What the queries of a block see: bounds for each lane, and from those the parts of a block of keys that anyone sees.

use std::ops::Range;

use plan::AttentionShape;

use super::{GROUPS, KEYS, MASKED};
use crate::lanes::{LANES, Lanes};

/// Keys of the finest part that is skipped or taken as a whole.
const UNIT: usize = 16;

/// A row sees the keys below the prefix, and of those in low..high the ones of its segment. Bounds are whole floats, exact
/// up to 2^24 keys.
pub struct Sight {
    prefix: usize,
    low: [[f32; LANES]; GROUPS],
    high: [[f32; LANES]; GROUPS],
    /// Of each row, and those of all keys with the stride between them.
    segments: Option<([[i32; LANES]; GROUPS], *const i32, usize)>,
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

/// Keys of a block, relative to its start, of which a group of lanes sees some.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub keys: Range<usize>,
    /// Every row of the group sees every key.
    pub full: bool,
}

/// What a group of lanes sees of a block of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Spans {
    spans: [Span; KEYS / UNIT],
    count: usize,
}

impl Spans {
    pub fn iter(&self) -> std::slice::Iter<'_, Span> {
        self.spans[..self.count].iter()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
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
            low: [[0.0; LANES]; GROUPS],
            high: [[0.0; LANES]; GROUPS],
            segments: integers.segments.map(|[_, (keys, stride)]| ([[0; LANES]; GROUPS], keys, stride)),
            groups: [nobody; GROUPS],
            used: count.div_ceil(LANES),
        };
        let (prefix, keys) = (shape.prefix as i64, shape.keys as i64);
        let start = match integers.q_offset {
            Some(offset) => i64::from(offset),
            None => keys - prefix - shape.queries as i64,
        };
        let end = integers.kv_len.map_or(keys, |length| prefix + i64::from(length));
        // A group's bounds stay in registers while its rows go by.
        let mut tokens = tokens.take(count);
        for index in 0..sight.used {
            let mut group = nobody;
            for (lane, token) in tokens.by_ref().take(LANES).enumerate() {
                let position = prefix + start + token as i64;
                let low = if shape.window > 0 { position - shape.window as i64 + 1 } else { prefix };
                let high = if shape.causal { end.min(position + 1) } else { end };
                let low = low.clamp(prefix, keys);
                let high = high.clamp(low, keys);
                (sight.low[index][lane], sight.high[index][lane]) = (low as f32, high as f32);
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
                    segments[index][lane] = segment;
                    group.segments = (group.segments.0.min(segment), group.segments.1.max(segment));
                }
            }
            sight.groups[index] = group;
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

    /// The parts of `count` keys from `start`, at most `KEYS`, of which a group of lanes sees some.
    ///
    /// # Safety
    /// The segments of those keys are readable.
    pub unsafe fn spans(&self, group: usize, start: usize, count: usize) -> Spans {
        const NONE: Span = Span { keys: 0..0, full: false };
        let mut found = Spans { spans: [NONE; KEYS / UNIT], count: 0 };
        for first in (0..count).step_by(UNIT) {
            let keys = first..count.min(first + UNIT);
            // SAFETY: the caller's.
            let Some(full) = (unsafe { self.sees(group, start + keys.start..start + keys.end) }) else {
                continue;
            };
            if let Some(last) = found.spans[..found.count].last_mut()
                && (last.keys.end, last.full) == (keys.start, full)
            {
                last.keys.end = keys.end;
                continue;
            }
            found.spans[found.count] = Span { keys, full };
            found.count += 1;
        }
        found
    }

    /// Whether a group of lanes sees any of the keys, and if so whether all of its rows see all of them.
    unsafe fn sees(&self, group: usize, keys: Range<usize>) -> Option<bool> {
        if keys.end <= self.prefix {
            return Some(true);
        }
        let of_group = &self.groups[group];
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
        let (lowest, highest) = of_group.segments;
        let sees = keys.start < self.prefix
            || (of_group.lowest < behind.end
                && of_group.highest > behind.start
                && (!has_segments || (lowest <= segments.1 && segments.0 <= highest)));
        let sees_all = behind.start >= of_group.highest_low
            && behind.end <= of_group.lowest_high
            && (!has_segments || (segments.0 == segments.1 && of_group.segments == segments));
        sees.then_some(sees_all)
    }

    /// Masks the scores[key][lane] of some keys from `start` that the rows of a group of lanes do not see.
    ///
    /// # Safety
    /// `scores` holds rows of `LANES` floats for these keys, counted from `start`, their segments are readable, and the instruction
    /// set of `L` is there.
    #[inline(always)]
    pub unsafe fn hide<L: Lanes>(&self, group: usize, start: usize, keys: Range<usize>, scores: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            let low = L::load(self.low[group].as_ptr());
            let high = L::load(self.high[group].as_ptr());
            for key in keys {
                let (at, score) = (start + key, scores.add(key * LANES));
                if at < self.prefix {
                    continue;
                }
                L::load(score).keep(L::splat(at as f32), low, high, MASKED).store(score);
                let Some((of_rows, of_keys, stride)) = &self.segments else { continue };
                let segment = *of_keys.add(at * stride);
                let row = &mut *score.cast::<[f32; LANES]>();
                for (score, of_row) in row.iter_mut().zip(&of_rows[group]) {
                    *score = if *of_row == segment { *score } else { MASKED };
                }
            }
        }
    }
}
