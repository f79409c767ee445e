//! Counter-based random numbers: a small generator on top of Threefry-2x32-20.
//!
//! A counter-based generator has no state to save: the numbers of window `w` (or of one parameter) are a
//! function of `(seed, stream, index)`, the same on every machine and in any order of evaluation.

pub use ops::threefry;

fn words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The number of a named stream: the first 32 bits of blake3 of its name.
pub fn stream_number(name: &str) -> u32 {
    let hash = blake3::hash(name.as_bytes());
    let bytes = hash.as_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A generator for one purpose (`name`) and one `index` under a run's `seed`.
///
/// Under one seed and name, different indices have different keys: Threefry is a bijection.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: u64,
    spare_word: Option<u32>,
    spare_normal: Option<f64>,
}

impl Stream {
    pub fn new(seed: u64, name: &str, index: u64) -> Stream {
        let stream_key = threefry(words(seed), [stream_number(name), 0]);
        let key = threefry(stream_key, words(index));
        Stream { key, counter: 0, spare_word: None, spare_normal: None }
    }

    pub fn next_u32(&mut self) -> u32 {
        if let Some(word) = self.spare_word.take() {
            return word;
        }
        let [first, second] = threefry(self.key, words(self.counter));
        self.counter = self.counter.wrapping_add(1);
        self.spare_word = Some(second);
        first
    }

    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..n` without modulo bias; 0 when `n` is 0 or 1.
    /// Source: Lemire, "Fast Random Integer Generation in an Interval", 2019.
    pub fn below(&mut self, n: u64) -> u64 {
        if n <= 1 {
            return 0;
        }
        // Of the 2^64 products, the lowest 2^64 mod n low halves are the surplus that would cause the bias.
        let surplus = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= surplus {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal (mean 0, variance 1) by Box and Muller's transform.
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare_normal.take() {
            return value;
        }
        // 1 - uniform lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare_normal = Some(radius * sine);
        radius * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_function_of_seed_name_and_index() {
        let first = |seed, name, index| Stream::new(seed, name, index).next_u64();
        assert_eq!(first(7, "weights", 3), first(7, "weights", 3));
        let others = [first(8, "weights", 3), first(7, "window", 3), first(7, "weights", 4)];
        assert!(others.iter().all(|&other| other != first(7, "weights", 3)));
    }

    #[test]
    fn below_is_in_range_and_even() {
        let mut stream = Stream::new(1, "below", 0);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[stream.below(6) as usize] += 1;
        }
        // The standard deviation of a count is 91: 500 is five and a half of them.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 500), "{counts:?}");
        assert_eq!((stream.below(0), stream.below(1)), (0, 0));
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut stream = Stream::new(2, "moments", 0);
        let count = 100_000;
        let draws: Vec<f64> = (0..count).map(|_| stream.uniform()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        assert!((draws.iter().sum::<f64>() / count as f64 - 0.5).abs() < 0.005);
        let draws: Vec<f64> = (0..count).map(|_| stream.normal()).collect();
        let moment = |power| draws.iter().map(|draw: &f64| draw.powi(power)).sum::<f64>() / count as f64;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.2);
    }
}
