//! The rows. Adding an op is one row here, then one each in inference, derivative, interpreter and emitters.

use std::fmt;

/// What kind of operation a row is; passes dispatch on it before they look at the op itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Has no operands.
    Leaf,
    /// One value per element from the same element of each operand; operands and result share one shape.
    Elementwise,
    /// Moves elements without computing: a view wherever strides can say it.
    Movement,
    /// Reads or writes rows chosen by integer operands.
    Indexing,
    /// Folds axes to size 1; the rank stays.
    Reduce,
    /// Goes along one axis in order, so that positions matter: no kernel folds it as it does a Reduce.
    Ordered,
    /// Sums of products.
    Contraction,
    /// Says something about the program rather than about values.
    Structure,
    /// A named operation whose meaning is its decomposition into primitives.
    Composite,
}

/// One row of the op table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub op: Op,
    pub code: u16,
    pub name: &'static str,
    pub class: Class,
    /// Fewest and most operands.
    pub arity: (usize, usize),
    /// Integer and float attributes in order, and what the op does.
    pub attributes: &'static str,
    pub doc: &'static str,
}

macro_rules! op_table {
    ($($code:literal $name:ident $class:ident $min:literal..=$max:literal $attributes:literal $doc:literal;)*) => {
        /// An operation. The discriminant is its number in the ABI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Op { $(#[doc = concat!("```text\n", $doc, "\n```")] $name = $code,)* }

        impl Op {
            pub const ALL: &[Op] = &[$(Op::$name,)*];

            pub fn row(self) -> Row {
                match self {
                    $(Op::$name => Row {
                        op: Op::$name, code: $code, name: stringify!($name), class: Class::$class,
                        arity: ($min, $max), attributes: $attributes, doc: $doc,
                    },)*
                }
            }

            /// Whether only the host emits it, when it differentiates.
            pub fn is_internal(self) -> bool {
                use Op::{AttentionGrad, AttentionLse, GatedDeltaRuleGrad, LinearCrossEntropyGrad};
                matches!(self, AttentionLse | AttentionGrad | LinearCrossEntropyGrad | GatedDeltaRuleGrad)
            }

            pub fn from_code(code: u16) -> Option<Op> {
                match code { $($code => Some(Op::$name),)* _ => None }
            }

            pub fn from_name(name: &str) -> Option<Op> {
                match name { $(stringify!($name) => Some(Op::$name),)* _ => None }
            }
        }
    };
}

op_table! {
    // leaves
    1 Input Leaf 0..=0 "index" "A value that arrives with every step: tokens, a learning rate.";
    2 State Leaf 0..=0 "index" "A value that lives across steps: parameters, moments. Reads what it held before the step.";
    3 Const Leaf 0..=0 "dtype, dims...; value" "One value in every element.";
    4 Iota Leaf 0..=0 "axis, dtype, dims..." "The index along `axis`.";

    // unary
    20 Neg Elementwise 1..=1 "" "-x";
    21 Recip Elementwise 1..=1 "" "1 / x";
    22 Sqrt Elementwise 1..=1 "" "Square root.";
    23 Exp Elementwise 1..=1 "" "e^x";
    24 Log Elementwise 1..=1 "" "Natural logarithm.";
    25 Sin Elementwise 1..=1 "" "Sine of radians.";
    26 Cos Elementwise 1..=1 "" "Cosine of radians.";
    27 Tanh Elementwise 1..=1 "" "Hyperbolic tangent.";
    28 Erf Elementwise 1..=1 "" "Error function.";
    29 Floor Elementwise 1..=1 "" "Largest integer not above x.";
    30 Cast Elementwise 1..=1 "dtype" "Value in another type; floats truncate toward zero.";
    31 Bitcast Elementwise 1..=1 "dtype" "Same 32 bits read as another type.";
    32 Copy Elementwise 1..=1 "" "x, written out in row-major order.";

    // binary, ternary
    40 Add Elementwise 2..=2 "" "x + y";
    41 Sub Elementwise 2..=2 "" "x - y";
    42 Mul Elementwise 2..=2 "" "x * y";
    43 Div Elementwise 2..=2 "" "x / y";
    44 Max Elementwise 2..=2 "" "The larger of x and y.";
    45 Min Elementwise 2..=2 "" "The smaller of x and y.";
    46 Lt Elementwise 2..=2 "" "x < y, a bool.";
    47 Eq Elementwise 2..=2 "" "x = y, a bool.";
    48 And Elementwise 2..=2 "" "Bitwise (bool: logical) and.";
    49 Or Elementwise 2..=2 "" "Bitwise (bool: logical) or.";
    50 Xor Elementwise 2..=2 "" "Bitwise (bool: logical) exclusive or.";
    51 Shl Elementwise 2..=2 "" "u32 shifted left.";
    52 Shr Elementwise 2..=2 "" "u32 shifted right.";
    53 Rem Elementwise 2..=2 "" "x - y trunc(x / y), the sign of x; an integer remainder by 0 is 0.";
    60 Select Elementwise 3..=3 "" "Where the bool operand holds the second operand, else the third.";
    61 Rand Elementwise 4..=4 ""
        "Random words from index, k0, k1, c1, all u32: word `index mod 2` of the Threefry-2x32-20 block with key (k0, k1) and counter (index div 2, c1).";

    // movement
    70 Reshape Movement 1..=1 "dims..." "Same elements in row-major order, other dims.";
    71 Permute Movement 1..=1 "axes..." "Axis i of the result is axis `axes[i]` of x.";
    72 Broadcast Movement 1..=1 "dims..." "Axes of size 1 repeated; the rank stays.";
    73 Slice Movement 1..=1 "(start, length) per axis" "A box of x.";
    74 Pad Movement 1..=1 "(before, after) per axis; value" "x inside a larger box of `value`.";
    75 Concat Movement 1..=1000000 "axis" "Operands one after another along `axis`.";

    // indexing
    80 Gather Indexing 2..=2 "" "Rows of table[V, ...] chosen by ids[...]: [ids..., ...]. An id outside 0..V is clamped.";
    81 ScatterAdd Indexing 2..=2 "rows" "Rows of x[ids..., ...] added into zeros[rows, ...] at ids[...]. The transpose of Gather.";
    82 DynSlice Indexing 2..=2 "axis, length" "`length` indices of `axis` of x from start, an i32[] that is clamped to 0..=dim - length.";
    83 DynUpdateSlice Indexing 3..=3 "axis" "x with update written along `axis` from start, an i32[] that is clamped so that it fits.";

    // reductions, contraction
    90 Sum Reduce 1..=1 "axes..." "Sum over `axes`, which stay with size 1.";
    91 ReduceMax Reduce 1..=1 "axes..." "Maximum over `axes`, which stay with size 1.";
    92 ArgMax Ordered 1..=1 "axis" "Index, an i32, of the first maximum along `axis`, which stays with size 1.";
    93 CumSum Ordered 1..=1 "axis, reverse" "Sum of x up to and with each index of `axis`; from each index to the end where reverse is 1.";
    95 Dot Contraction 2..=3 "batch, contract, lhs batch axes..., rhs batch axes..., lhs contract..., rhs contract...; alpha, beta"
        "alpha * sum of products (+ beta * c, of the result's shape): result axes are batch, then free axes of x, then free axes of y.";

    // structure
    100 StopGrad Structure 1..=1 "" "x; no cotangent passes.";
    101 Write Structure 1..=1 "state index" "x becomes the value of a State after the step.";
    102 Output Structure 1..=1 "output index" "x is handed to the host.";
    103 Scan Structure 0..=1000000 "body, length, carries, xs, flags, residuals"
        "Runs its body `length` times over consts, carries and xs; `Result` gives the last carries and the stacked ys.";
    104 When Structure 1..=1000000 "body, period, offset, olds, residuals"
        "Runs its body where the counter is `offset` modulo `period`; `Result` gives the new values, else the old ones.";
    105 Result Structure 1..=1 "index" "One result of an op that has several.";
    106 Save Structure 1..=1 "" "x; a Scan that recomputes its body keeps it for the derivative.";

    // composites
    120 Softmax Composite 1..=1 "" "exp(x - max) / sum over the last axis.";
    121 LayerNorm Composite 2..=3 "; eps" "(x - mean) / sqrt(var + eps) * gain (+ bias) over the last axis.";
    122 RmsNorm Composite 2..=2 "; eps" "x / sqrt(mean(x^2) + eps) * gain over the last axis.";
    123 Rope Composite 2..=2 "; theta" "Rotary positions, half-split pairing: x[B, H, T, D], positions[T] or [B, T] (Su et al. 2021).";
    124 Attention Composite 3..=7 "causal = 1, window = 0, prefix = 0, operands = 0; scale"
        "softmax(scale q k' of visible keys) v: q[B, H, Tq, D], k[B, G, Tk, D], v[B, G, Tk, Dv], G divides H, result \
         [B, H, Tq, Dv]. The bits of `operands` say which i32 operands follow: 1 q_offset[B], 2 kv_len[B], 4 query \
         segments[B, Tq], 8 key segments[B, Tk]. Every query sees the first `prefix` keys; a later key j has position \
         j - prefix, and query i has q_offset[b] + i, without that operand Tk - prefix - Tq + i. The key is visible \
         if all hold: causal: key position <= query position; window > 0: query position - key position < window; \
         kv_len: key position < kv_len[b]; segments: equal. A query that sees no key gives 0.";
    125 LinearCrossEntropy Composite 3..=3 ""
        "CrossEntropy of logits x w': x[..., D], w[V, D], targets[...] of i32, loss[...].";
    126 CrossEntropy Composite 2..=2 ""
        "-log softmax(logits)[target]: logits[..., V], targets[...] of i32, loss[...]. A target outside 0..V is ignored: loss 0.";
    127 CausalConv Composite 3..=3 ""
        "y[b, t, c] = sum_j weight[c, j] concat(tail, x)[b, t + j, c]: x[B, T, C], weight[C, K], tail[B, K - 1, C].";
    128 GatedDeltaRule Composite 6..=6 "chunk = 64"
        "S_t = alpha_t S_{t-1} (I - beta_t k_t k_t') + beta_t v_t k_t', o_t = S_t q_t: q and k[B, H, T, K], v[B, H, T, V], log_alpha <= 0 and beta[B, H, T], state[B, H, V, K]; results o[B, H, T, V] and the last state.";
    129 LinearAttention Composite 5..=5 "chunk = 64"
        "S_t = alpha_t S_{t-1} + v_t k_t', o_t = S_t q_t: operands and results of GatedDeltaRule without beta.";

    // the host's own: what derivatives of composites are made of, refused from plugins
    130 AttentionLse Composite 3..=7 "causal = 1, window = 0, prefix = 0, operands = 0; scale"
        "log of the sum of e^(scale q k') over the keys that each query sees, [B, H, Tq]: operands and attributes of \
         Attention. 0 for a query that sees no key. The host's own.";
    131 AttentionGrad Composite 6..=10 "causal = 1, window = 0, prefix = 0, operands = 0; scale"
        "Cotangents of q, k and v, three results, from operands and attributes of Attention, its result, its \
         AttentionLse and the cotangent of its result. The host's own.";
    132 LinearCrossEntropyGrad Composite 4..=4 ""
        "Cotangents of x and w, two results, from operands of LinearCrossEntropy and the cotangent[...] of its result. \
         The host's own.";
    133 GatedDeltaRuleGrad Composite 7..=8 "chunk = 64, cotangents = 3"
        "Cotangents of the six operands of GatedDeltaRule, a result for each, from those operands and the cotangents of \
         its results. The bits of `cotangents` say which of these follow: 1 of o, 2 of the last state. The host's own.";
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}
