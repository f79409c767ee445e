//! Attention without its matrix of scores: workgroups take blocks of 16 queries by 16 keys, of which only the weights
//! pass through workgroup memory.
//!
//! 64 invocations share a block. In products over the width each has one key (its `column`) and four queries (its
//! `part` and every fourth after it); in products over tokens it has every 16th column of four rows of the result, in
//! registers. Forward, a maximum and a sum per query are corrected as larger scores come (Milakov and Gimelshein 2018,
//! Dao et al. 2022); backward, weights come again from the log-sum-exp. Everything is added in a fixed order.

mod backward;
mod forward;

use plan::{AttentionCaps, AttentionShape, Heads, Numbers, Slot};

use super::source::line;
use crate::memory::Bound;

pub use backward::print as print_grad;
pub use forward::print;

/// The widest head: a result's four rows stay in registers.
pub const CAPS: AttentionCaps = AttentionCaps { max_width: 128 };

/// Queries and keys of a block.
const BLOCK: usize = 16;
const INVOCATIONS: usize = 64;
/// Rows of an invocation.
const EACH: usize = BLOCK * BLOCK / INVOCATIONS;
/// Floats from one query's weights in workgroup memory to the next.
const PITCH: usize = BLOCK + 1;
/// What a score is that no query sees, and what lies above none.
const MASKED: &str = "-1e30f";
const NONE_ABOVE: &str = "-1e29f";

/// A kernel's view of its operands: the first ones are its own, those of the mask follow.
struct Frame<'a> {
    shape: &'a AttentionShape,
    bound: &'a Bound,
    /// Operands before those of the mask.
    own: usize,
}

/// The slots that the mask reads, in the order of their operands.
fn of_mask(shape: &AttentionShape) -> Vec<&Slot> {
    numbers(shape).into_iter().flatten().map(|numbers| &numbers.slot).collect()
}

fn numbers(shape: &AttentionShape) -> [Option<&Numbers>; 4] {
    let segments = shape.segments.as_ref();
    [
        shape.q_offset.as_ref(),
        shape.kv_len.as_ref(),
        segments.map(|(of_queries, _)| of_queries),
        segments.map(|(_, of_keys)| of_keys),
    ]
}

impl Frame<'_> {
    /// An element of a tensor of heads.
    fn element(&self, operand: usize, heads: &Heads, [batch, head, token, element]: [&str; 4]) -> String {
        let Heads { batch: of_batch, head: of_head, token: of_token, element: of_element, .. } = heads;
        let binding = self.bound.places[operand].binding;
        format!(
            "m{binding}[o{operand} + {batch} * {of_batch}u + {head} * {of_head}u + {token} * {of_token}u + {element} * {of_element}u]"
        )
    }

    fn float(&self, operand: usize, heads: &Heads, at: [&str; 4]) -> String {
        format!("bitcast<f32>({})", self.element(operand, heads, at))
    }

    /// An element of one of the mask's operands, by its place in [`numbers`].
    fn number(&self, which: usize, token: &str) -> Option<String> {
        let all = numbers(self.shape);
        let operand = self.own + all[..which].iter().flatten().count();
        let Numbers { batch, token: of_token, .. } = all[which]?;
        let binding = self.bound.places[operand].binding;
        Some(format!("bitcast<i32>(m{binding}[o{operand} + b * {batch}u + {token} * {of_token}u])"))
    }

    /// Names `start`, the position of query 0, and `kv_len`.
    fn positions(&self, text: &mut String) {
        let AttentionShape { queries, keys, prefix, .. } = *self.shape;
        let aligned = keys as i64 - prefix as i64 - queries as i64;
        let start = self.number(0, "0u").unwrap_or_else(|| format!("i32({aligned})"));
        line(text, 1, &format!("let start = {start};"));
        if let Some(kv_len) = self.number(1, "0u") {
            line(text, 1, &format!("let kv_len = {kv_len};"));
        }
    }

    /// Whether a query sees a key.
    fn sees(&self, query: &str, key: &str) -> String {
        let AttentionShape { causal, window, prefix, .. } = *self.shape;
        let key_position = format!("i32({key}) - {prefix}i");
        let query_position = format!("start + i32({query})");
        let mut all = Vec::new();
        if causal {
            all.push(format!("{key_position} <= {query_position}"));
        }
        if window > 0 {
            all.push(format!("({query_position}) - ({key_position}) < {window}i"));
        }
        if self.shape.kv_len.is_some() {
            all.push(format!("{key_position} < kv_len"));
        }
        if let (Some(of_query), Some(of_key)) = (self.number(2, query), self.number(3, key)) {
            all.push(format!("{of_query} == {of_key}"));
        }
        match (all.is_empty(), prefix) {
            (true, _) => "true".to_string(),
            (_, 0) => all.join(" && "),
            _ => format!("({key} < {prefix}u || ({}))", all.join(" && ")),
        }
    }

    /// Names `first_key` and `end_key`: no query of the block from `first_query` sees a key outside. A first key is a
    /// multiple of the block.
    fn keys_seen(&self, text: &mut String) {
        let AttentionShape { keys, prefix, causal, window, .. } = *self.shape;
        line(text, 1, &format!("var from_key = 0i;\n    var to_key = {keys}i;"));
        if causal {
            let last = format!("start + i32(first_query) + {}i", BLOCK + prefix);
            line(text, 1, &format!("to_key = min(to_key, max({last}, {prefix}i));"));
        }
        if self.shape.kv_len.is_some() {
            line(text, 1, &format!("to_key = min(to_key, max(kv_len + {prefix}i, {prefix}i));"));
        }
        if window > 0 && prefix == 0 {
            line(
                text,
                1,
                &format!("from_key = clamp(start + i32(first_query) - {}i, 0i, {keys}i);", window - 1),
            );
        }
        range(text, "key");
    }

    /// Names `first_query` and `end_query`: outside, no query sees a key of the block from `first_key`.
    fn queries_seen(&self, text: &mut String) {
        let AttentionShape { queries, prefix, causal, window, .. } = *self.shape;
        line(text, 1, &format!("var from_query = 0i;\n    var to_query = {queries}i;"));
        line(text, 1, &format!("if first_key >= {prefix}u {{"));
        let position = format!("i32(first_key) - {prefix}i - start");
        if causal {
            line(text, 2, &format!("from_query = clamp({position}, 0i, {queries}i);"));
        }
        if window > 0 {
            line(
                text,
                2,
                &format!("to_query = clamp({position} + {}i, 0i, {queries}i);", window + BLOCK - 1),
            );
        }
        line(text, 1, "}");
        range(text, "query");
    }
}

/// Bounds that all invocations agree on, since barriers stand between them.
fn range(text: &mut String, what: &str) {
    line(
        text,
        1,
        &format!(
            "if lane == 0u {{\n        bounds = vec2<u32>(u32(from_{what}) / {BLOCK}u * {BLOCK}u, u32(to_{what}));\n    }}"
        ),
    );
    line(text, 1, "let seen = workgroupUniformLoad(&bounds);");
}

const BOUNDS: &str = "var<workgroup> bounds: vec2<u32>;\n";

/// Workgroup memory for the weights of a block.
fn weights(name: &str) -> String {
    format!("var<workgroup> {name}: array<f32, {}>;\n", BLOCK * PITCH)
}

/// Names `column` and `part`.
fn split(text: &mut String) {
    line(text, 1, &format!("let column = lane % {BLOCK}u;"));
    line(text, 1, &format!("let part = lane / {BLOCK}u;"));
}

/// Row of a block, of the `i`th that an invocation has.
fn row(i: usize) -> String {
    format!("(part + {}u)", i * INVOCATIONS / BLOCK)
}

/// How many columns of a result an invocation has.
fn columns(width: usize) -> usize {
    width.div_ceil(BLOCK)
}

/// The `j`th column of an invocation, and whether that may lie beyond the width.
fn column(j: usize, width: usize) -> (String, bool) {
    (format!("(column + {}u)", j * BLOCK), (j + 1) * BLOCK > width)
}

/// The same, moved inside.
fn clamped(j: usize, width: usize) -> String {
    match column(j, width) {
        (name, true) => format!("min{}, {}u)", name.trim_end_matches(')'), width - 1),
        (name, false) => name,
    }
}

/// Writes an invocation's part of a result: `names(i, j)` holds the value, `there(i)` tells rows that exist.
fn write(
    text: &mut String,
    width: usize,
    names: impl Fn(usize, usize) -> String,
    there: impl Fn(usize) -> String,
    place: impl Fn(usize, &str) -> String,
) {
    for i in 0..EACH {
        line(text, 1, &format!("if {} {{", there(i)));
        for j in 0..columns(width) {
            let (name, is_ragged) = column(j, width);
            let store = format!("{} = bitcast<u32>({});", place(i, &name), names(i, j));
            match is_ragged {
                true => line(text, 2, &format!("if {name} < {width}u {{ {store} }}")),
                false => line(text, 2, &store),
            }
        }
        line(text, 1, "}");
    }
}
