//! Random words of elements that follow each other, which is how almost every tile asks for them.
//!
//! A block of the generator holds the words of two neighbouring elements, so each block is computed once for both. Words
//! of indices in any other order are an element-wise op like others (`apply`).

use super::lanes::{Group, store};
use super::program::{LANES, Tile};
use super::shape::Address;

/// Elements of the blocks of one group of lanes.
const PAIRS: usize = 2 * LANES;

/// Fills `out` with the words of the elements at an address whose columns follow each other, under the key (`args[0]`,
/// `args[1]`) and with the second counter word `args[2]`, which are the same in all columns. `N` groups of blocks are
/// computed abreast.
///
/// # Safety
/// The values' views hold the extent of `rows` and all columns of the tile.
#[inline(always)]
pub unsafe fn random_words<const N: usize>(
    tile: &Tile,
    out: usize,
    at: &Address,
    args: [usize; 3],
    (rows, groups): (usize, usize),
) {
    let out = tile.views[out];
    let args = args.map(|arg| tile.views[arg]);
    for row in 0..rows {
        let start = (at.base(&tile.program.shape, tile.plane, tile.row + row) + tile.column as i64) as u32;
        // SAFETY: the caller's; row and groups are within the extent.
        unsafe {
            let row = row as isize;
            let out = out.ptr.offset(row * out.row_step);
            let [k0, k1, c1] = args.map(|arg| *arg.ptr.offset(row * arg.row_step));
            let mut group = 0;
            // An odd start would cut every block in two.
            if start & 1 == 0 {
                let counter = |group: usize| start.wrapping_add((group * LANES) as u32) >> 1;
                while groups - group >= 2 * N {
                    blocks::<N>(out.add(group * LANES), [k0, k1], [counter(group), c1]);
                    group += 2 * N;
                }
                while groups - group >= 2 {
                    blocks::<1>(out.add(group * LANES), [k0, k1], [counter(group), c1]);
                    group += 2;
                }
            }
            for group in group..groups {
                let mut words: Group<u32> = [0; LANES];
                for (lane, word) in words.iter_mut().enumerate() {
                    let index = start.wrapping_add((group * LANES + lane) as u32);
                    *word = ops::random_word(index, k0, k1, c1);
                }
                store(out.add(group * LANES), words);
            }
        }
    }
}

/// The words of `N` times 32 elements, whose blocks begin with this counter.
///
/// # Safety
/// They can be written at `out`.
#[expect(
    clippy::needless_range_loop,
    reason = "by iterators the lanes of arrays of arrays are not vectorised"
)]
#[inline(always)]
unsafe fn blocks<const N: usize>(out: *mut u32, key: [u32; 2], [start, c1]: [u32; 2]) {
    let mut x = [[0; LANES]; N];
    for chain in 0..N {
        for lane in 0..LANES {
            // Of 31 bits, as the index of an element may wrap.
            x[chain][lane] = start.wrapping_add((chain * LANES + lane) as u32) & (u32::MAX >> 1);
        }
    }
    let (mut first, mut second) = (x, x);
    for lane in 0..LANES {
        let mut counters = [[0; N], [c1; N]];
        for chain in 0..N {
            counters[0][chain] = x[chain][lane];
        }
        let words = ops::threefry_abreast(key, counters);
        for chain in 0..N {
            first[chain][lane] = words[0][chain];
            second[chain][lane] = words[1][chain];
        }
    }
    for chain in 0..N {
        let mut pairs = [0; PAIRS];
        for lane in 0..LANES {
            pairs[2 * lane] = first[chain][lane];
            pairs[2 * lane + 1] = second[chain][lane];
        }
        // SAFETY: the caller's.
        unsafe { out.add(chain * PAIRS).cast::<[u32; PAIRS]>().write_unaligned(pairs) };
    }
}
