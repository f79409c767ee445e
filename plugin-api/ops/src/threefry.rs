//! Threefry-2x32-20, the block function behind every random number: here because a plugin's trace, the interpreter,
//! the CPU device and the data pipeline must agree on each word, and they share no other crate.
//!
//! A counter-based generator has no state to save: a word is a function of key and counter. Source: Salmon et al.,
//! "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. The code is straight-line, so that a loop over lanes
//! vectorises.

/// The key schedule's parity constant (Skein's C240, truncated to 32 bits).
const PARITY: u32 = 0x1BD1_1BDA;

/// Rotation distances of Threefry-2x32, used in turn by groups of four rounds (Salmon et al., table 4).
const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];

/// Threefry-2x32 with 20 rounds: a keyed bijection of two 32-bit words.
#[inline(always)]
pub fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let [first, second] = threefry_abreast(key, counter.map(|word| [word]));
    [first[0], second[0]]
}

/// The blocks of `N` counters under one key: first words of all counters, then second words, and so the result. A
/// block is one chain of 60 operations; several side by side fill each other's waiting.
#[inline(always)]
pub fn threefry_abreast<const N: usize>(key: [u32; 2], counters: [[u32; N]; 2]) -> [[u32; N]; 2] {
    let [k0, k1] = key;
    let k2 = PARITY ^ k0 ^ k1;
    let x = add(counters, k0, k1);
    let x = four_rounds(x, ROTATIONS[0], k1, k2.wrapping_add(1));
    let x = four_rounds(x, ROTATIONS[1], k2, k0.wrapping_add(2));
    let x = four_rounds(x, ROTATIONS[0], k0, k1.wrapping_add(3));
    let x = four_rounds(x, ROTATIONS[1], k1, k2.wrapping_add(4));
    four_rounds(x, ROTATIONS[0], k2, k0.wrapping_add(5))
}

/// Four rounds, then two words of the key schedule added.
#[inline(always)]
fn four_rounds<const N: usize>(
    mut x: [[u32; N]; 2],
    [a, b, c, d]: [u32; 4],
    add0: u32,
    add1: u32,
) -> [[u32; N]; 2] {
    x = round(round(round(round(x, a), b), c), d);
    add(x, add0, add1)
}

#[inline(always)]
fn add<const N: usize>([mut x0, mut x1]: [[u32; N]; 2], add0: u32, add1: u32) -> [[u32; N]; 2] {
    for chain in 0..N {
        x0[chain] = x0[chain].wrapping_add(add0);
        x1[chain] = x1[chain].wrapping_add(add1);
    }
    [x0, x1]
}

#[inline(always)]
fn round<const N: usize>([mut x0, mut x1]: [[u32; N]; 2], rotation: u32) -> [[u32; N]; 2] {
    for chain in 0..N {
        x0[chain] = x0[chain].wrapping_add(x1[chain]);
        x1[chain] = x1[chain].rotate_left(rotation) ^ x0[chain];
    }
    [x0, x1]
}

/// `Rand` of one element: word `index mod 2` of the block with key (k0, k1) and counter (index div 2, c1).
#[inline(always)]
pub fn random_word(index: u32, k0: u32, k1: u32, c1: u32) -> u32 {
    let [first, second] = threefry([k0, k1], [index >> 1, c1]);
    if index & 1 == 0 { first } else { second }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_known_answers() {
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        let pi = threefry([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]);
        assert_eq!(pi, [0xc492_3a9c, 0x483d_f7a0]);
    }

    /// The first blocks of the stream of one key, as another implementation computes it.
    #[test]
    fn words_follow_each_other_through_the_blocks() {
        let stream = [
            0x1eec_8d80,
            0xfb3e_2194,
            0x0aea_e45d,
            0x39ca_463c,
            0x7cde_4d7d,
            0xa885_7bdd,
            0x0287_e2a0,
            0x8929_1103,
        ];
        for (index, word) in stream.into_iter().enumerate() {
            assert_eq!(random_word(index as u32, 0x86a4_d9d6, 0x6582_f001, 0), word);
        }
        assert_ne!(random_word(0, 0x86a4_d9d6, 0x6582_f001, 1), stream[0]);
    }
}
