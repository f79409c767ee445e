//! What a launch cannot do without: arithmetic and bytes, counted from the plan alone.
//!
//! Both are counted so that no device can do better. A scalar operation counts as one, whatever it takes to compute
//! (an exponential is a polynomial of twenty); an element that is read again is counted once. The time that a device
//! of known peak and bandwidth needs for them is thus a bound from below, and the share of it that a launch reaches
//! says how much is left to win.

use crate::{
    Attention, AttentionGrad, AttentionShape, CrossEntropy, DeltaShape, Expr, Gemm, Launch, LaunchOp, Matrix,
    Plan, ScatterAdd, Slot, TileKernel,
};

const ELEMENT: f64 = ops::DType::BYTES as f64;

/// Work of one launch, or the sum over several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Scalar operations; a product's multiplication and addition are two.
    pub flops: f64,
    /// Distinct bytes read and distinct bytes written.
    pub bytes: f64,
}

/// What a device can do at best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    pub flops_per_second: f64,
    pub bytes_per_second: f64,
}

impl Cost {
    /// Seconds that a device of these peaks needs at least.
    pub fn bound(&self, peaks: &Peaks) -> f64 {
        (self.flops / peaks.flops_per_second).max(self.bytes / peaks.bytes_per_second)
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

impl Plan {
    /// Work of each launch, whether its guards hold or not.
    pub fn costs(&self) -> Vec<Cost> {
        self.launches.iter().map(|launch| self.cost(launch)).collect()
    }

    fn cost(&self, launch: &Launch) -> Cost {
        match &launch.op {
            LaunchOp::Tile { kernel, bindings } => tile(&self.kernels[*kernel], bindings),
            LaunchOp::Gemm(product) => gemm(product),
            LaunchOp::ScatterAdd(add) => scatter_add(add),
            LaunchOp::Attention(launch) => attention(launch),
            LaunchOp::AttentionGrad(launch) => attention_grad(launch),
            LaunchOp::CrossEntropy(launch) => cross_entropy(launch),
            LaunchOp::DeltaRule(rule) => {
                let [_, _, out, .., last] = rule.shape.operands();
                let results = [(rule.out.is_some(), out), (rule.last.is_some(), last)];
                delta_rule(&rule.shape, FORWARD, &results)
            }
            LaunchOp::DeltaRuleGrad(rule) => {
                let dims = rule.shape.operands();
                let given = [(rule.ct_out.is_some(), dims[2]), (rule.ct_last.is_some(), dims[5])];
                let written = rule.cts.iter().zip(dims).map(|(ct, dims)| (ct.is_some(), dims));
                delta_rule(&rule.shape, BACKWARD, &given.into_iter().chain(written).collect::<Vec<_>>())
            }
        }
    }
}

/// Operands repeated over the batch (a stride of 0) count once.
fn gemm(product: &Gemm) -> Cost {
    let batch: usize = product.batch.iter().map(|axis| axis.count).product();
    let elements = (batch * product.m * product.n) as f64;
    let distinct = |matrix: &Matrix, rows: usize, columns: usize, strides: Vec<usize>| {
        let axes = [(rows, matrix.row_stride), (columns, matrix.col_stride)];
        let axes = axes.into_iter().chain(product.batch.iter().map(|axis| axis.count).zip(strides));
        axes.filter(|(_, stride)| *stride > 0).map(|(count, _)| count as f64).product::<f64>()
    };
    let batches = |pick: fn(&crate::GemmBatch) -> usize| product.batch.iter().map(pick).collect::<Vec<_>>();
    let mut touched = distinct(&product.a, product.m, product.k, batches(|axis| axis.a))
        + distinct(&product.b, product.k, product.n, batches(|axis| axis.b))
        + elements;
    // Of a symmetric result one triangle is computed.
    let computed =
        if product.symmetric { (batch * product.m * (product.m + 1) / 2) as f64 } else { elements };
    let mut flops = 2.0 * computed * product.k as f64;
    if let Some(c) = &product.c {
        touched += distinct(c, product.m, product.n, batches(|axis| axis.c));
        flops += 2.0 * computed;
    }
    Cost { flops, bytes: ELEMENT * touched }
}

/// Every row of the result is written; those that something is added to were zeros a moment ago and cost no read.
fn scatter_add(add: &ScatterAdd) -> Cost {
    let source = (add.count * add.width) as f64;
    Cost { flops: source, bytes: ELEMENT * (source + add.count as f64 + (add.rows * add.width) as f64) }
}

/// Two products and an exponential for each pair of a query and a key that it sees.
fn attention(launch: &Attention) -> Cost {
    let shape = &launch.shape;
    let each = 2.0 * (shape.width + shape.value_width) as f64 + 1.0;
    let [q, k, v, out] = heads(shape);
    let lse = if launch.lse.is_some() { rows(shape) } else { 0.0 };
    let out = if launch.out.is_some() { out } else { 0.0 };
    Cost { flops: pairs(shape) * each, bytes: ELEMENT * (q + k + v + out + lse) }
}

/// Five products, of which the scores are formed again, and the same exponential.
fn attention_grad(launch: &AttentionGrad) -> Cost {
    let shape = &launch.shape;
    let each = 2.0 * (3 * shape.width + 2 * shape.value_width) as f64 + 1.0;
    let [q, k, v, out] = heads(shape);
    let written = [(launch.ct_q, q), (launch.ct_k, k), (launch.ct_v, v)];
    let written: f64 = written.iter().filter(|(ct, _)| ct.is_some()).map(|(_, elements)| elements).sum();
    Cost { flops: pairs(shape) * each, bytes: ELEMENT * (q + k + v + 2.0 * out + rows(shape) + written) }
}

/// A product for the logits and one for each cotangent, and an exponential for each logit. w is read once: its blocks
/// could stay where all tokens pass by.
fn cross_entropy(launch: &CrossEntropy) -> Cost {
    let [tokens, width, vocabulary] =
        [launch.tokens, launch.width, launch.vocabulary].map(|extent| extent as f64);
    let (of_x, of_w) = (tokens * width, vocabulary * width);
    let given = |is_given: bool, elements: f64| if is_given { elements } else { 0.0 };
    let (ct_x, ct_w) = launch.grad.map_or((false, false), |grad| (grad.ct_x.is_some(), grad.ct_w.is_some()));
    let products = 1 + usize::from(ct_x) + usize::from(ct_w);
    let numbers = tokens * (1.0 + f64::from(launch.loss.is_some()) + f64::from(launch.grad.is_some()));
    let touched = of_x + of_w + numbers + given(ct_x, of_x) + given(ct_w, of_w);
    let each = 2.0 * width * products as f64 + 1.0;
    Cost { flops: tokens * vocabulary * each, bytes: ELEMENT * touched }
}

/// Products of a token's rows with the state or its cotangent that no form of the delta rule does without: what a key
/// and a query read, and what is written; backward two to have the states again, and two for each of those three.
const FORWARD: usize = 3;
const BACKWARD: usize = 8;

/// The operands are read; of other tensors those that are there are touched.
fn delta_rule(shape: &DeltaShape, products: usize, others: &[(bool, [usize; 4])]) -> Cost {
    let elements = |dims: [usize; 4]| dims.iter().product::<usize>() as f64;
    let read: f64 = shape.operands().into_iter().map(elements).sum();
    let touched: f64 = others.iter().filter(|(is_there, _)| *is_there).map(|(_, dims)| elements(*dims)).sum();
    let tokens = (shape.batch * shape.heads * shape.tokens) as f64;
    let flops = 2.0 * (products * shape.width * shape.value_width) as f64 * tokens;
    Cost { flops, bytes: ELEMENT * (read + touched) }
}

/// Elements of q, k, v and the result.
fn heads(shape: &AttentionShape) -> [f64; 4] {
    let of = |heads: usize, tokens: usize, width: usize| (shape.batch * heads * tokens * width) as f64;
    let AttentionShape { heads, groups, queries, keys, width, value_width, .. } = *shape;
    [
        of(heads, queries, width),
        of(groups, keys, width),
        of(groups, keys, value_width),
        of(heads, queries, value_width),
    ]
}

fn rows(shape: &AttentionShape) -> f64 {
    (shape.batch * shape.heads * shape.queries) as f64
}

/// Pairs of a query and a key that it sees, over all heads, as far as the plan says it: with the last query at the last
/// key, and all of them of one segment.
fn pairs(shape: &AttentionShape) -> f64 {
    let later = shape.keys - shape.prefix.min(shape.keys);
    let seen = |query: usize| {
        // Keys up to its own position, and of those the window.
        let up_to =
            if shape.causal { (later + query + 1).saturating_sub(shape.queries).min(later) } else { later };
        let first = match shape.window {
            0 => 0,
            window => (later + query + 1).saturating_sub(shape.queries + window).min(up_to),
        };
        shape.keys - later + up_to - first
    };
    let of_head: usize = (0..shape.queries).map(seen).sum();
    (shape.batch * shape.heads * of_head) as f64
}

/// A value is computed once per point of the axes that it depends on. An operand's elements are those its loads reach,
/// at most the whole of its slot.
fn tile(kernel: &TileKernel, slots: &[Slot]) -> Cost {
    let axes = axes(kernel);
    let points = |axes: &[bool]| {
        let used = kernel.dims.iter().zip(axes).filter(|(_, used)| **used);
        used.map(|(dim, _)| *dim as f64).product::<f64>()
    };
    let (mut flops, mut read) = (0.0, vec![0.0; slots.len()]);
    for (id, value) in kernel.values.iter().enumerate() {
        match &value.expr {
            Expr::Load { binding, at, gather } => {
                let again = |earlier: &crate::Value| matches!(&earlier.expr, Expr::Load { binding: b, at: a, gather: g } if (b, a, g) == (binding, at, gather));
                if !kernel.values[..id].iter().any(again) {
                    read[*binding] += points(&axes[id]);
                }
            }
            Expr::Apply { .. } => flops += points(&axes[id]),
            Expr::Reduce { arg, .. } => flops += points(&axes[*arg]),
            Expr::Const(_) | Expr::Iota(_) => {}
        }
    }
    let whole = |binding: usize| slots[binding].bytes as f64;
    let mut bytes: f64 =
        read.iter().enumerate().map(|(binding, count)| (ELEMENT * count).min(whole(binding))).sum();
    for store in &kernel.stores {
        let used: Vec<bool> = store.at.strides.iter().map(|stride| *stride != 0).collect();
        bytes += (ELEMENT * points(&used)).min(whole(store.binding));
    }
    Cost { flops, bytes }
}

/// For each value, which axes of the index space it changes along.
fn axes(kernel: &TileKernel) -> Vec<Vec<bool>> {
    let rank = kernel.dims.len();
    let folded = kernel.folded_axes();
    let mut all: Vec<Vec<bool>> = Vec::with_capacity(kernel.values.len());
    for value in &kernel.values {
        let along = |at: &crate::Affine| at.strides.iter().map(|stride| *stride != 0).collect::<Vec<bool>>();
        let join = |own: &mut Vec<bool>, other: &[bool]| {
            own.iter_mut().zip(other).for_each(|(own, other)| *own |= other);
        };
        let mut own = vec![false; rank];
        match &value.expr {
            Expr::Load { at, gather, .. } => {
                own = along(at);
                if let Some(gather) = gather {
                    join(&mut own, &all[gather.index]);
                }
            }
            Expr::Const(_) => {}
            Expr::Iota(at) => own = along(at),
            Expr::Apply { args, .. } => args.iter().for_each(|arg| join(&mut own, &all[*arg])),
            Expr::Reduce { arg, .. } => {
                own.clone_from(&all[*arg]);
                own[folded.clone()].fill(false);
            }
        }
        all.push(own);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Affine, Binding, CrossEntropyGrad, Domain, Gather, GemmBatch, Numbered, Region, Rows, Store,
        Template, Value,
    };
    use ops::{DType, Op};

    fn slot(elements: usize) -> Slot {
        Slot { region: Region::Arena, offset: 0, bytes: 4 * elements }
    }

    fn matrix(rows: usize, columns: usize) -> Matrix {
        Matrix { slot: slot(rows * columns), row_stride: columns, col_stride: 1 }
    }

    #[test]
    fn a_product_reads_a_repeated_operand_once() {
        let mut product = Gemm {
            m: 2,
            n: 3,
            k: 5,
            alpha: 1.0,
            beta: 0.0,
            a: matrix(2, 5),
            b: matrix(5, 3),
            c: None,
            out: matrix(2, 3),
            batch: vec![],
            symmetric: false,
        };
        assert_eq!(gemm(&product), Cost { flops: 60.0, bytes: 4.0 * (10.0 + 15.0 + 6.0) });
        product.batch = vec![GemmBatch { count: 7, a: 10, b: 0, c: 0, out: 6 }];
        assert_eq!(gemm(&product), Cost { flops: 420.0, bytes: 4.0 * (70.0 + 15.0 + 42.0) });
        product.c = Some(Matrix { row_stride: 0, ..matrix(1, 3) });
        assert_eq!(gemm(&product), Cost { flops: 420.0 + 84.0, bytes: 4.0 * (70.0 + 15.0 + 42.0 + 3.0) });
        (product.n, product.out, product.symmetric) = (2, matrix(2, 2), true);
        assert_eq!(gemm(&product).flops, 7.0 * 3.0 * (2.0 * 5.0 + 2.0));
    }

    fn value(expr: Expr, domain: Domain) -> Value {
        Value { expr, dtype: DType::F32, domain }
    }

    /// out[i, j] = x[i, j] * gain[j] + sum over j of x[i, j], with x loaded twice.
    #[test]
    fn a_tile_counts_each_element_once_and_each_value_where_it_changes() {
        let load = |binding, strides: [i64; 2]| Expr::Load {
            binding,
            at: Affine::new(0, strides.to_vec()),
            gather: None,
        };
        let apply = |op, args: [ValueId; 2]| Expr::Apply { op, args: args.to_vec() };
        use crate::ValueId;
        let kernel = TileKernel {
            dims: vec![6, 10],
            template: Template::RowReduce { reduced: 1 },
            bindings: [false, false, true].map(|written| Binding { dtype: DType::F32, written }).to_vec(),
            values: vec![
                value(load(0, [10, 1]), Domain::Element),
                value(load(0, [10, 1]), Domain::Element),
                value(load(1, [0, 1]), Domain::Element),
                value(Expr::Reduce { op: Op::Sum, arg: 0 }, Domain::Row),
                value(apply(Op::Mul, [3, 3]), Domain::Row),
                value(apply(Op::Mul, [1, 2]), Domain::Element),
                value(apply(Op::Add, [5, 4]), Domain::Element),
            ],
            stores: vec![Store { binding: 2, at: Affine::new(0, vec![10, 1]), value: 6 }],
        };
        let cost = tile(&kernel, &[slot(60), slot(10), slot(60)]);
        assert_eq!(cost, Cost { flops: 60.0 + 6.0 + 60.0 + 60.0, bytes: 4.0 * (60.0 + 10.0 + 60.0) });
    }

    #[test]
    fn a_gather_reads_what_it_chooses_and_never_more_than_there_is() {
        let load =
            |binding, at: [i64; 2], gather| Expr::Load { binding, at: Affine::new(0, at.to_vec()), gather };
        let gather = Gather { index: 0, stride: 4, limit: 3 };
        let mut kernel = TileKernel {
            dims: vec![2, 4],
            template: Template::Map,
            bindings: [false, false, true].map(|written| Binding { dtype: DType::F32, written }).to_vec(),
            values: vec![
                Value { dtype: DType::I32, ..value(load(0, [1, 0], None), Domain::Element) },
                value(load(1, [0, 1], Some(gather)), Domain::Element),
            ],
            stores: vec![Store { binding: 2, at: Affine::new(0, vec![4, 1]), value: 1 }],
        };
        let bytes =
            |kernel: &TileKernel, rows: usize| tile(kernel, &[slot(rows), slot(12), slot(4 * rows)]).bytes;
        assert_eq!(bytes(&kernel, 2), 4.0 * (2.0 + 8.0 + 8.0));
        kernel.dims[0] = 100;
        assert_eq!(bytes(&kernel, 100), 4.0 * (100.0 + 12.0 + 400.0));
    }

    #[test]
    fn attention_counts_the_pairs_that_a_mask_shows() {
        let mut shape = AttentionShape {
            batch: 2,
            heads: 3,
            groups: 1,
            queries: 4,
            keys: 6,
            width: 8,
            value_width: 5,
            scale: 1.0,
            causal: false,
            window: 0,
            prefix: 0,
            q_offset: None,
            kv_len: None,
            segments: None,
        };
        let each = |shape: &AttentionShape| pairs(shape) / 6.0;
        assert_eq!(each(&shape), 24.0);
        shape.causal = true;
        assert_eq!(each(&shape), (3 + 4 + 5 + 6) as f64);
        shape.window = 2;
        assert_eq!(each(&shape), 8.0);
        shape.prefix = 1;
        assert_eq!(each(&shape), 12.0);
        shape.keys = 4;
        // The first query is where the prefix ends, and sees it alone.
        assert_eq!(each(&shape), (1 + 2 + 3 + 3) as f64);
        assert_eq!(heads(&shape), [192.0, 64.0, 40.0, 120.0]);
    }

    #[test]
    fn cross_entropy_counts_a_product_for_each_result() {
        let mut launch = CrossEntropy {
            tokens: 2,
            width: 3,
            vocabulary: 5,
            x: Rows { slot: slot(6), stride: 3 },
            w: Rows { slot: slot(15), stride: 3 },
            targets: Numbered { slot: slot(2), stride: 1 },
            loss: Some(slot(2)),
            grad: None,
        };
        let (flops, read) = (2.0 * 30.0, 6.0 + 15.0 + 2.0);
        assert_eq!(cross_entropy(&launch), Cost { flops: flops + 10.0, bytes: 4.0 * (read + 2.0) });
        let ct = Numbered { slot: slot(2), stride: 1 };
        launch.grad = Some(CrossEntropyGrad { ct, ct_x: Some(slot(6)), ct_w: Some(slot(15)) });
        let bytes = 4.0 * (read + 2.0 + 2.0 + 6.0 + 15.0);
        assert_eq!(cross_entropy(&launch), Cost { flops: 3.0 * flops + 10.0, bytes });
    }

    #[test]
    fn the_slower_of_arithmetic_and_memory_is_the_bound() {
        let peaks = Peaks { flops_per_second: 10.0, bytes_per_second: 2.0 };
        assert_eq!(Cost { flops: 30.0, bytes: 2.0 }.bound(&peaks), 3.0);
        assert_eq!(Cost { flops: 30.0, bytes: 8.0 }.bound(&peaks), 4.0);
        let add = ScatterAdd { out: slot(8), ids: slot(3), source: slot(6), rows: 4, width: 2, count: 3 };
        assert_eq!(scatter_add(&add), Cost { flops: 6.0, bytes: 4.0 * 17.0 });
    }
}
