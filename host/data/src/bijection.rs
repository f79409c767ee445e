//! A keyed bijection of `0..n`: a shuffled order that needs no table and no state.
//!
//! Training visits the blocks of a corpus in the order `shuffle(0), shuffle(1), ..`, each once per epoch.
//! A balanced Feistel network permutes the smallest even power of two that holds `n`; values outside
//! `0..n` are sent through again ("cycle walking", Black and Rogaway 2002), fewer than four times on average.

use crate::rng::{Stream, threefry};

/// Feistel rounds. Four make a pseudo-random permutation (Luby and Rackoff); the small domains here,
/// where half a block may be two bits, mix better with a few more.
const ROUNDS: u32 = 8;

/// A permutation of `0..n`, chosen by `(seed, name, index)`.
#[derive(Clone, Debug)]
pub struct Bijection {
    key: [u32; 2],
    n: u64,
    half_bits: u32,
}

impl Bijection {
    pub fn new(n: u64, seed: u64, name: &str, index: u64) -> Bijection {
        let mut stream = Stream::new(seed, name, index);
        let key = [stream.next_u32(), stream.next_u32()];
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Bijection { key, n, half_bits: bits.div_ceil(2).max(1) }
    }

    /// Where `value` goes. A `value` outside `0..n` is returned as it is.
    pub fn apply(&self, value: u64) -> u64 {
        if value >= self.n {
            return value;
        }
        // The walk ends: it follows a cycle of the permutation that contains `value`, which is below n.
        let mut image = self.permute(value);
        while image >= self.n {
            image = self.permute(image);
        }
        image
    }

    fn permute(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..ROUNDS {
            let mixed = u64::from(threefry(self.key, [right as u32, round])[0]);
            (left, right) = (right, left ^ (mixed & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_reached_once() {
        for n in [1u64, 2, 3, 5, 16, 17, 1000, 4096, 5000] {
            let bijection = Bijection::new(n, 5, "order", 0);
            let mut seen = vec![false; n as usize];
            for value in 0..n {
                let image = bijection.apply(value) as usize;
                assert!(!std::mem::replace(&mut seen[image], true), "{image} reached twice of {n}");
            }
        }
    }

    #[test]
    fn the_order_depends_on_the_key_and_looks_shuffled() {
        let order = |index| {
            let bijection = Bijection::new(1000, 5, "order", index);
            (0..1000).map(|value| bijection.apply(value)).collect::<Vec<_>>()
        };
        assert_ne!(order(0), order(1));
        let neighbours = order(0).windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        assert!(neighbours < 10, "{neighbours} of 999 neighbours kept");
    }
}
