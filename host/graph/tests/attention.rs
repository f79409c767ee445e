//! Attention against its definition, word by word: for each query the visible keys, for those a softmax.

use graph::interp::{self, Tensor};
use graph::{DType, Graph, NodeId, Op, Ty};

const BATCH: usize = 2;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const WIDTH: usize = 3;
const VALUE_WIDTH: usize = 2;
const SCALE: f64 = 0.8;

/// Attributes, and the optional operands as numbers.
struct Setting {
    ints: [i64; 4],
    queries: usize,
    keys: usize,
    q_offset: Vec<i64>,
    kv_len: Vec<i64>,
    query_segments: Vec<i64>,
    key_segments: Vec<i64>,
}

impl Setting {
    fn visible(&self, b: usize, i: usize, j: usize) -> bool {
        let [causal, window, prefix, operands] = self.ints;
        let (i, j) = (i as i64, j as i64);
        if j < prefix {
            return true;
        }
        let key = j - prefix;
        let offset = if operands & 1 != 0 {
            self.q_offset[b]
        } else {
            self.keys as i64 - prefix - self.queries as i64
        };
        let query = offset + i;
        let of = |list: &[i64], count: usize, at: i64| list[b * count + at as usize];
        let (of_query, of_key) =
            (of(&self.query_segments, self.queries, i), of(&self.key_segments, self.keys, j));
        (causal == 0 || key <= query)
            && (window == 0 || query - key < window)
            && (operands & 2 == 0 || key < self.kv_len[b])
            && (operands & 4 == 0 || of_query == of_key)
    }

    fn expected(&self, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
        let mut result = Vec::new();
        for b in 0..BATCH {
            for h in 0..HEADS {
                let group = b * GROUPS + h / (HEADS / GROUPS);
                for i in 0..self.queries {
                    let query = &q[((b * HEADS + h) * self.queries + i) * WIDTH..][..WIDTH];
                    let weight = |j: usize| {
                        let key = &k[(group * self.keys + j) * WIDTH..][..WIDTH];
                        (SCALE * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>()).exp()
                    };
                    let seen: Vec<usize> = (0..self.keys).filter(|j| self.visible(b, i, *j)).collect();
                    let total: f64 = seen.iter().map(|j| weight(*j)).sum();
                    for d in 0..VALUE_WIDTH {
                        let at = |j: usize| v[(group * self.keys + j) * VALUE_WIDTH + d];
                        result.push(seen.iter().map(|j| weight(*j) / total * at(*j)).sum());
                    }
                }
            }
        }
        result
    }

    fn check(&self) {
        let mut graph = Graph::default();
        let floats: [&[usize]; 3] = [
            &[BATCH, HEADS, self.queries, WIDTH],
            &[BATCH, GROUPS, self.keys, WIDTH],
            &[BATCH, GROUPS, self.keys, VALUE_WIDTH],
        ];
        let mut values: Vec<Tensor> = floats.iter().map(|dims| wave(dims)).collect();
        let optional: [(&[usize], &[i64]); 4] = [
            (&[BATCH], &self.q_offset),
            (&[BATCH], &self.kv_len),
            (&[BATCH, self.queries], &self.query_segments),
            (&[BATCH, self.keys], &self.key_segments),
        ];
        for (bit, (dims, numbers)) in optional.into_iter().enumerate() {
            if self.ints[3] >> bit & 1 == 1 {
                let data = numbers.iter().map(|number| *number as f64).collect();
                values.push(Tensor { ty: Ty::new(DType::I32, dims), data });
            }
        }
        let operands: Vec<NodeId> =
            values.iter().enumerate().map(|(i, x)| graph.input(&format!("x{i}"), x.ty.clone())).collect();
        let y = graph.emit(Op::Attention, &operands, &self.ints, &[SCALE]);
        graph.output("y", y);
        assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
        let actual = interp::run(&graph, &values, &mut []).remove(0).data;
        let expected = self.expected(&values[0].data, &values[1].data, &values[2].data);
        let (ints, tokens) = (self.ints, (self.queries, self.keys));
        for (index, (want, got)) in expected.iter().zip(&actual).enumerate() {
            assert!((want - got).abs() < 1e-12, "{ints:?} on {tokens:?} [{index}]: {got} for {want}");
        }
    }
}

fn wave(dims: &[usize]) -> Tensor {
    let ty = Ty::new(DType::F32, dims);
    let data = (0..ty.elements()).map(|i| (0.9 * i as f64 + dims[2] as f64).sin()).collect();
    Tensor { ty, data }
}

#[test]
fn every_mask_hides_what_its_definition_says() {
    for (queries, keys) in [(4, 4), (3, 6), (1, 5), (1, 1), (6, 4)] {
        for causal in [0, 1] {
            for window in [0, 1, 3] {
                for prefix in [0, 2, 4].into_iter().filter(|prefix| *prefix <= keys as i64) {
                    for operands in [0, 1, 2, 3, 12, 15] {
                        let segments = |count: usize| {
                            (0..BATCH * count).map(|i| (i % count > 1) as i64 + (i / count) as i64).collect()
                        };
                        Setting {
                            ints: [causal, window, prefix, operands],
                            queries,
                            keys,
                            q_offset: vec![1, -2],
                            kv_len: vec![3, 0],
                            query_segments: segments(queries),
                            key_segments: segments(keys),
                        }
                        .check();
                    }
                }
            }
        }
    }
}

/// Ops of the decomposition of an Attention over q[1, 2, 4, 2] and `keys` keys.
fn decomposition(ints: &[i64], keys: usize) -> Vec<Op> {
    let mut graph = Graph::default();
    let [q, k, v] = [("q", 4), ("k", keys), ("v", keys)]
        .map(|(name, tokens)| graph.input(name, Ty::new(DType::F32, &[1, 2, tokens, 2])));
    let y = graph.emit(Op::Attention, &[q, k, v], ints, &[1.0]);
    graph.output("y", y);
    assert!(graph.errors.is_empty(), "{}", graph.errors[0]);
    graph::expand(&graph).nodes.iter().map(|node| node.op).collect()
}

#[test]
fn masks_cost_only_what_they_can_hide() {
    let count = |ints: &[i64], keys: usize, op: Op| {
        decomposition(ints, keys).into_iter().filter(|other| *other == op).count()
    };
    let causal = decomposition(&[], 4);
    assert_eq!(causal, decomposition(&[1, 0, 0, 0], 4));
    assert_eq!((count(&[], 4, Op::Lt), count(&[], 4, Op::Add), count(&[], 4, Op::Select)), (1, 0, 1));
    assert_eq!(causal, decomposition(&[1, 4], 4), "a window as long as the sequence hides nothing");
    assert_eq!(decomposition(&[1, 0, 2], 6).len(), decomposition(&[1], 6).len(), "a prefix lies in the past");
    assert_eq!(count(&[0], 4, Op::Select), 0, "nothing is hidden");
    assert_eq!(count(&[], 3, Op::Select), 2, "the first of four queries sees no key");
}

#[test]
fn wrong_attentions_say_what_is_needed() {
    let refused = |ints: &[i64], dims: [&[usize]; 3], extra: Option<Ty>| {
        let mut graph = Graph::default();
        let mut operands = Vec::new();
        for (name, dims) in ["q", "k", "v"].into_iter().zip(dims) {
            operands.push(graph.input(name, Ty::new(DType::F32, dims)));
        }
        operands.extend(extra.map(|ty| graph.input("extra", ty)));
        assert_eq!(graph.emit(Op::Attention, &operands, ints, &[1.0]), NodeId::POISON);
        graph.errors.remove(0).to_string()
    };
    let good: [&[usize]; 3] = [&[2, 4, 3, 8], &[2, 2, 5, 8], &[2, 2, 5, 6]];
    let expect = |message: String, part: &str| assert!(message.contains(part), "{part:?} not in {message}");
    expect(refused(&[1, 0, 0, 0, 7], good, None), "at most 4 integer attributes");
    expect(refused(&[2], good, None), "causal as 0 or 1, got [2]");
    expect(refused(&[1, -1], good, None), "a window and a prefix in 0..2^31");
    expect(refused(&[1, 0, 6], good, None), "at least the 6 keys of its prefix");
    expect(refused(&[1, 0, 0, 4], good, None), "12 (segments of queries and keys)");
    expect(refused(&[1, 0, 0, 1], good, None), "takes 4 operands with attributes [1, 0, 0, 1], got 3");
    expect(refused(&[], [good[0], &[2, 3, 5, 8], &[2, 3, 5, 6]], None), "G dividing H");
    expect(refused(&[], [good[0], &[2, 2, 5, 7], good[2]], None), "k[B, G, Tk, D]");
    let offsets = Ty::new(DType::I32, &[3]);
    expect(refused(&[1, 0, 0, 1], good, Some(offsets)), "i32 q_offset[B], here [2]");
}
