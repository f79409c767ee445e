//! A byte string as a list of choices. When it ends, every further choice is the first.

/// Numbers at which something overflows, wraps or changes its meaning.
const EDGES: [i64; 16] = [
    -1,
    i64::MIN,
    i64::MAX,
    i64::MAX - 1,
    1 << 62,
    1 << 61,
    1 << 40,
    (1 << 40) + 1,
    1 << 32,
    u32::MAX as i64,
    i32::MAX as i64,
    1 << 31,
    1 << 20,
    1000,
    64,
    9,
];

const FLOATS: [f64; 12] = [
    0.0,
    1.0,
    -1.0,
    0.5,
    1e-5,
    1e4,
    -0.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::MAX,
    f64::MIN_POSITIVE,
];

pub struct Bytes<'b> {
    rest: &'b [u8],
}

impl<'b> Bytes<'b> {
    pub fn new(rest: &'b [u8]) -> Bytes<'b> {
        Bytes { rest }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// One of `n` choices; 0 where there are none.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Small mostly, else an edge.
    pub fn int(&mut self) -> i64 {
        match self.byte() {
            byte @ 0..224 => i64::from(byte % 8),
            byte => EDGES[usize::from(byte - 224) % EDGES.len()],
        }
    }

    /// A usual number mostly, else any pattern of 64 bits: NaNs differ in theirs.
    pub fn float(&mut self) -> f64 {
        match self.byte() {
            byte @ 0..224 => FLOATS[usize::from(byte) % FLOATS.len()],
            byte => {
                f64::from_bits(u64::from_be_bytes([byte, self.byte(), self.byte(), 0, 0, 0, 0, self.byte()]))
            }
        }
    }

    /// As long as the bytes say, at most `most`.
    pub fn list<T>(&mut self, most: usize, mut item: impl FnMut(&mut Bytes<'b>) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| item(self)).collect()
    }
}
