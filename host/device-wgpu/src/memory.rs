//! Which parts of the two memories a dispatch binds, and where its operands begin in them.
//!
//! A kernel may name eight storage buffers, and two bindings of one buffer must be apart. So operands that overlap, or
//! that meet in one unit of alignment, share a binding; what is left of an operand's offset is a number of elements
//! that the kernel gets in a uniform. Memory between operands that share a binding is bound and never touched.

use plan::{Region, Slot};

/// Bindings start at multiples of this (WebGPU's own limit, which each adapter keeps).
pub const ALIGNMENT: usize = 256;

/// Storage buffers a portable kernel may name.
pub const MAX_RANGES: usize = 8;

/// Which buffer a range lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    State,
    Arena,
    /// The device's own: what the first dispatch of a launch hands to its second.
    Scratch,
}

/// Bytes `start..end` of a memory; `start` is a multiple of [`ALIGNMENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    pub memory: Memory,
    pub start: usize,
    pub end: usize,
}

/// Where an operand begins: element `base` of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub binding: usize,
    pub base: u32,
}

/// The bindings of a dispatch and the place of each operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub ranges: Vec<Range>,
    pub places: Vec<Place>,
}

/// Scratch as an operand: it starts at 0.
pub fn scratch(bytes: usize) -> (Memory, usize, usize) {
    (Memory::Scratch, 0, bytes)
}

/// A slot as an operand: memory, offset and length in bytes.
pub fn operand(slot: &Slot) -> (Memory, usize, usize) {
    let memory = match slot.region {
        Region::State => Memory::State,
        Region::Arena => Memory::Arena,
    };
    (memory, slot.offset, slot.bytes)
}

/// Bindings for operands given as memory, offset and length.
pub fn bind(operands: &[(Memory, usize, usize)]) -> Result<Bound, String> {
    let mut ranges: Vec<Range> = operands
        .iter()
        .map(|(memory, offset, bytes)| {
            let start = offset / ALIGNMENT * ALIGNMENT;
            Range { memory: *memory, start, end: offset + (*bytes).max(4) }
        })
        .collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let meets = next.memory == range.memory && next.start < range.end;
        if meets {
            range.end = range.end.max(next.end);
        }
        meets
    });
    while ranges.len() > MAX_RANGES {
        let gap = |index: &usize| ranges[index + 1].start - ranges[*index].end;
        let one_memory = |index: &usize| ranges[*index].memory == ranges[index + 1].memory;
        let closest = (0..ranges.len() - 1).filter(one_memory).min_by_key(gap);
        let closest = closest.ok_or("needs more storage buffers than a kernel may name")?;
        let next = ranges.remove(closest + 1);
        ranges[closest].end = next.end;
    }
    // In the order in which operands name them, so that launches of one kernel have one text wherever they lie.
    let holds = |range: &Range, (memory, offset, _): &(Memory, usize, usize)| {
        range.memory == *memory && (range.start..range.end).contains(offset)
    };
    ranges.sort_by_key(|range| operands.iter().position(|operand| holds(range, operand)));
    let place = |operand: &(Memory, usize, usize)| {
        let binding = ranges.iter().position(|range| holds(range, operand));
        let binding = binding.ok_or("an operand lies in no binding")?;
        let base = u32::try_from((operand.1 - ranges[binding].start) / 4)
            .map_err(|_| "an operand begins beyond 2^32 elements of its binding")?;
        Ok(Place { binding, base })
    };
    let places = operands.iter().map(place).collect::<Result<Vec<Place>, String>>()?;
    Ok(Bound { ranges, places })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARENA: Memory = Memory::Arena;

    #[test]
    fn operands_that_meet_share_a_binding() {
        let bound =
            bind(&[(ARENA, 1000, 24), (ARENA, 4096, 512), (ARENA, 4, 900), (Memory::State, 0, 8)]).unwrap();
        let range = |memory, start, end| Range { memory, start, end };
        assert_eq!(
            bound.ranges,
            [range(ARENA, 0, 1024), range(ARENA, 4096, 4608), range(Memory::State, 0, 8)]
        );
        let places: Vec<(usize, u32)> =
            bound.places.iter().map(|place| (place.binding, place.base)).collect();
        assert_eq!(places, [(0, 250), (1, 0), (0, 1), (2, 0)]);
    }

    #[test]
    fn the_closest_share_where_there_are_too_many() {
        let mut operands: Vec<(Memory, usize, usize)> = (0..9).map(|i| (ARENA, i * i * 1024, 512)).collect();
        operands.push(scratch(64));
        let bound = bind(&operands).unwrap();
        assert_eq!(bound.ranges.len(), MAX_RANGES);
        assert_eq!(bound.ranges[0], Range { memory: ARENA, start: 0, end: 4 * 1024 + 512 });
        assert!(bound.ranges.iter().all(|range| range.start.is_multiple_of(ALIGNMENT)));
    }
}
