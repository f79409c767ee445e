//! Addresses: one for each buffer, so that what is alive together lies apart and the arena stays small.
//!
//! Buffers are placed one after another, each into the lowest gap that is free for its whole life. How good that is
//! hangs on the order. A few are tried, and then what sticks out of the best is placed earlier, as long as there is
//! something to win: the largest sum of live bytes is a bound that no order can beat. All of it is a function of the
//! buffers alone.

use std::cmp::Reverse;

use super::ALIGNMENT;
use super::lives::{Buffer, Piece};

/// Near enough to the bound: a fiftieth above it.
const NEAR: usize = 50;
/// Looks at a placed piece that all attempts may take together: some tenths of a second.
const PATIENCE: usize = 30_000_000;
/// Most attempts.
const ATTEMPTS: usize = 60;

/// Offset of each buffer, and the bytes of them all.
pub fn place(buffers: &[Buffer], bound: usize) -> (Vec<usize>, usize) {
    let near = bound + bound / NEAR;
    let mut looks = 0;
    let mut best: Option<Attempt> = None;
    let mut keep = |best: &mut Option<Attempt>, order: Vec<usize>| {
        let attempt = Attempt::new(buffers, order, &mut looks);
        if best.as_ref().is_none_or(|best| attempt.top < best.top) {
            *best = Some(attempt.clone());
        }
        let top = best.as_ref().map_or(0, |best| best.top);
        (attempt, top > near && looks < PATIENCE)
    };
    for order in orders(buffers) {
        if !keep(&mut best, order).1 {
            break;
        }
    }
    let mut current = best.clone();
    for _ in 0..ATTEMPTS {
        let Some(attempt) = current.filter(|_| best.as_ref().is_some_and(|best| best.top > near)) else {
            break;
        };
        let (next, goes_on) = keep(&mut best, promoted(buffers, &attempt));
        current = Some(next).filter(|_| goes_on);
    }
    best.map_or((Vec::new(), 0), |best| (best.offsets, best.top))
}

#[derive(Clone)]
struct Attempt {
    order: Vec<usize>,
    offsets: Vec<usize>,
    top: usize,
}

/// Orders worth trying; the block of small inputs always comes first.
fn orders(buffers: &[Buffer]) -> Vec<Vec<usize>> {
    let span = |buffer: &Buffer| {
        let first = buffer.pieces.iter().map(|piece| piece.first).min().unwrap_or(0);
        let last = buffer.pieces.iter().map(|piece| piece.last).max().unwrap_or(0);
        (first, last - first + 1)
    };
    let sorted = |key: &dyn Fn(&Buffer) -> (usize, usize)| {
        let mut order: Vec<usize> = (0..buffers.len()).collect();
        order.sort_by_key(|index| {
            let buffer = &buffers[*index];
            match buffer.in_block {
                true => (false, (Reverse(0), Reverse(0)), buffer.owners[0]),
                false => {
                    let (one, two) = key(buffer);
                    (true, (Reverse(one), Reverse(two)), buffer.owners[0])
                }
            }
        });
        order
    };
    vec![
        sorted(&|buffer| (buffer.bytes, span(buffer).1)),
        sorted(&|buffer| (span(buffer).1, buffer.bytes)),
        sorted(&|buffer| (buffer.bytes.saturating_mul(span(buffer).1), buffer.bytes)),
        // As a stack grows: what comes first lies lowest.
        sorted(&|buffer| (usize::MAX - span(buffer).0, buffer.bytes)),
    ]
}

/// The order with what reaches the top placed earlier: where it had half as many before it.
fn promoted(buffers: &[Buffer], attempt: &Attempt) -> Vec<usize> {
    let end = |index: &usize| attempt.offsets[*index] + buffers[*index].bytes.next_multiple_of(ALIGNMENT);
    let reaches = |index: &usize| end(index) >= attempt.top;
    let mut order = attempt.order.clone();
    let inputs = order.iter().take_while(|index| buffers[**index].in_block).count();
    let Some(at) = order.iter().rposition(reaches) else { return order };
    let to = inputs + at.saturating_sub(inputs) / 2;
    order[to..=at].rotate_right(1);
    order
}

impl Attempt {
    /// Places in this order.
    fn new(buffers: &[Buffer], order: Vec<usize>, looks: &mut usize) -> Attempt {
        let mut offsets = vec![0; buffers.len()];
        // Pieces and their addresses, by address, so that a look for a gap ends at the first.
        let mut placed: Vec<(usize, Piece)> = Vec::new();
        let mut top = 0;
        for index in &order {
            let buffer = &buffers[*index];
            let offset = lowest(buffer, &placed, looks);
            offsets[*index] = offset;
            top = top.max(offset + buffer.bytes.next_multiple_of(ALIGNMENT));
            for piece in &buffer.pieces {
                let start = offset + piece.start;
                let at = placed.partition_point(|(other, _)| *other < start);
                placed.insert(at, (start, *piece));
            }
        }
        Attempt { order, offsets, top }
    }
}

fn lowest(buffer: &Buffer, placed: &[(usize, Piece)], looks: &mut usize) -> usize {
    let mut offset = 0;
    loop {
        let before = offset;
        for piece in &buffer.pieces {
            for (start, other) in placed {
                *looks += 1;
                if offset + piece.start + piece.bytes <= *start {
                    break;
                }
                let end = start + other.bytes;
                let meets = other.first <= piece.last && piece.first <= other.last;
                if meets && end > offset + piece.start {
                    offset = (end - piece.start).next_multiple_of(ALIGNMENT);
                }
            }
        }
        // One piece never meets again what it has passed; of several, another may.
        if offset == before || buffer.pieces.len() == 1 {
            return offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use graph::NodeId;

    use super::*;

    fn piece(start: usize, bytes: usize, first: usize, last: usize) -> Piece {
        Piece { start, bytes, first, last, node: NodeId(0) }
    }

    fn buffer(owner: u32, bytes: usize, first: usize, last: usize) -> Buffer {
        let pieces = vec![piece(0, bytes, first, last)];
        Buffer { owners: vec![NodeId(owner)], bytes, pieces, in_block: false }
    }

    fn apart(buffers: &[Buffer], offsets: &[usize]) {
        let pieces = |index: usize| {
            let offset = offsets[index];
            buffers[index].pieces.iter().map(move |piece| (offset + piece.start, *piece))
        };
        for a in 0..buffers.len() {
            for b in 0..a {
                for (start, one) in pieces(a) {
                    for (other, two) in pieces(b) {
                        let together = one.first <= two.last && two.first <= one.last;
                        let meet = start < other + two.bytes && other < start + one.bytes;
                        assert!(!(together && meet), "{one:?} at {start} and {two:?} at {other}");
                    }
                }
            }
        }
    }

    #[test]
    fn buffers_alive_together_never_overlap_and_the_dead_are_reused() {
        let buffers =
            [buffer(0, 1000, 0, 2), buffer(1, 500, 1, 3), buffer(2, 900, 3, 4), buffer(3, 100, 0, 4)];
        let (offsets, top) = place(&buffers, 1600);
        apart(&buffers, &offsets);
        assert_eq!(offsets[2], offsets[0]);
        assert_eq!(top, 1024 + 512 + 256);
    }

    #[test]
    fn small_inputs_stand_first_and_in_order() {
        let input = |owner, bytes| Buffer { in_block: true, ..buffer(owner, bytes, 0, 9) };
        let buffers = [input(0, 4), buffer(1, 9000, 0, 9), input(2, 64), input(3, 8)];
        let (offsets, _) = place(&buffers, 0);
        assert_eq!([0, 2, 3, 1].map(|index: usize| offsets[index]), [0, 256, 512, 768]);
    }

    #[test]
    fn a_part_that_is_not_written_yet_leaves_its_range_to_others() {
        let pieces = (0..4).map(|part| piece(part * 1024, 1024, 10 - part, 10)).collect();
        let whole = Buffer { owners: vec![NodeId(0)], bytes: 4096, pieces, in_block: false };
        let buffers = [whole, buffer(1, 3072, 0, 7), buffer(2, 2048, 0, 7), buffer(3, 1024, 0, 9)];
        let (offsets, top) = place(&buffers, 3072 + 2048 + 1024 + 1024);
        apart(&buffers, &offsets);
        assert_eq!(top, 3072 + 2048 + 1024 + 1024);
    }

    /// Random lives: an attempt that is not near the bound is followed by better ones.
    #[test]
    fn arenas_of_random_lives_are_near_the_bound() {
        let mut seed = 7_u64;
        let mut draw = |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for _ in 0..20 {
            let buffers: Vec<Buffer> = (0..200)
                .map(|owner| {
                    let first = draw(300);
                    buffer(owner, 256 * (1 + draw(40)), first, first + 1 + draw(60))
                })
                .collect();
            let bound = super::super::peak::live(&buffers, 400).into_iter().max().unwrap_or(0);
            let (offsets, top) = place(&buffers, bound);
            apart(&buffers, &offsets);
            assert!(top as f64 <= 1.1 * bound as f64, "{top} for {bound}");
        }
    }
}
