//! Attention backward, in up to three dispatches without atomics.
//!
//! The first gives each query the product of its result and the cotangent of that, into the scratch; the second has 16
//! queries to a workgroup and walks over keys, for the cotangent of q; the third has 16 keys and walks over the queries
//! of every head of their group, for those of k and v.

use plan::{AttentionGrad, AttentionShape, Slot};

use super::{
    BLOCK, BOUNDS, EACH, Frame, INVOCATIONS, PITCH, clamped, columns, of_mask, row, split, weights, write,
};
use crate::memory::Bound;
use crate::wgsl::source::{Dispatch, Kernel, line};
use crate::wgsl::{Operands, scalar};

/// Operands that both walks have in front: q, k, v, log-sum-exp, cotangent of the result.
const GIVEN: usize = 5;

pub fn print(grad: &AttentionGrad) -> Result<Vec<Dispatch>, String> {
    let mut dispatches = vec![products(grad)?];
    if grad.ct_q.is_some() {
        dispatches.push(of_queries(grad)?);
    }
    if grad.ct_k.is_some() || grad.ct_v.is_some() {
        dispatches.push(of_keys(grad)?);
    }
    Ok(dispatches)
}

fn rows(shape: &AttentionShape) -> usize {
    shape.batch * shape.heads * shape.queries
}

/// Sum of result times its cotangent, for each query of each head.
fn products(grad: &AttentionGrad) -> Result<Dispatch, String> {
    let AttentionGrad { shape, out, ct_out, .. } = grad;
    let bound = Operands::new([&out.slot, &ct_out.slot]).bind(rows(shape) * 4)?;
    let frame = Frame { shape, bound: &bound, own: 2 };
    let AttentionShape { heads, queries, value_width, .. } = *shape;
    let mut body = String::new();
    let text = &mut body;
    line(text, 1, &format!("let row = work * {INVOCATIONS}u + lane;"));
    line(text, 1, &format!("if row < {}u {{", rows(shape)));
    line(text, 2, &format!("let query = row % {queries}u;"));
    line(text, 2, &format!("let h = row / {queries}u % {heads}u;"));
    line(text, 2, &format!("let b = row / {}u;", queries * heads));
    line(text, 2, "var sum = 0.0f;");
    line(text, 2, &format!("for (var e = 0u; e < {value_width}u; e++) {{"));
    let [y, ct] =
        [(0, out), (1, ct_out)].map(|(operand, heads)| frame.float(operand, heads, ["b", "h", "query", "e"]));
    line(text, 3, &format!("sum += {y} * {ct};"));
    line(text, 2, "}");
    line(text, 2, &format!("m{}[o2 + row] = bitcast<u32>(sum);", bound.places[2].binding));
    line(text, 1, "}");
    let groups = rows(shape).div_ceil(INVOCATIONS);
    Kernel { bound: &bound, invocations: INVOCATIONS, groups, globals: String::new(), body }.finish()
}

/// Bindings of a walk, whose results follow what is given; the mask's operands and the scratch come last.
fn bind(grad: &AttentionGrad, results: &[&Slot]) -> Result<Bound, String> {
    let AttentionGrad { shape, q, k, v, lse, ct_out, .. } = grad;
    let given = [&q.slot, &k.slot, &v.slot, lse, &ct_out.slot].into_iter();
    let all = given.chain(results.iter().copied()).chain(of_mask(shape));
    Operands::new(all).bind(rows(shape) * 4)
}

/// A float of a row of queries: of the log-sum-exp, or of the scratch.
fn of_row(frame: &Frame, operand: usize, query: &str) -> String {
    let AttentionShape { heads, queries, .. } = frame.shape;
    let binding = frame.bound.places[operand].binding;
    format!("bitcast<f32>(m{binding}[o{operand} + (b * {heads}u + h) * {queries}u + {query}])")
}

/// Weights and cotangents of scores of a block go to workgroup memory: `key`, `own_key` and the queries are named.
fn block(text: &mut String, depth: usize, grad: &AttentionGrad, frame: &Frame) {
    let AttentionGrad { shape, q, k, v, ct_out, .. } = grad;
    let AttentionShape { queries, keys, width, value_width, .. } = *shape;
    for i in 0..EACH {
        line(text, depth, &format!("var s{i} = 0.0f;"));
        line(text, depth, &format!("var c{i} = 0.0f;"));
    }
    for (extent, sum, operand, of_keys, other, of_queries) in
        [(width, "s", 1, k, 0, q), (value_width, "c", 2, v, 4, ct_out)]
    {
        line(text, depth, &format!("for (var e = 0u; e < {extent}u; e++) {{"));
        line(text, depth + 1, &format!("let x = {};", frame.float(operand, of_keys, ["b", "g", "key", "e"])));
        for i in 0..EACH {
            let of_query = frame.float(other, of_queries, ["b", "h", &format!("query{i}"), "e"]);
            line(text, depth + 1, &format!("{sum}{i} += {of_query} * x;"));
        }
        line(text, depth, "}");
    }
    for i in 0..EACH {
        let sees = frame.sees(&format!("query{i}"), "key");
        line(
            text,
            depth,
            &format!("let is_seen{i} = own_key < {keys}u && own_query{i} < {queries}u && {sees};"),
        );
        let weight = format!("exponential(s{i} * {} - lse{i})", scalar::float(shape.scale));
        line(text, depth, &format!("let w{i} = select(0.0f, {weight}, is_seen{i});"));
        let place = format!("[{} * {PITCH}u + column]", row(i));
        line(text, depth, &format!("weights{place} = w{i};"));
        line(text, depth, &format!("ct_scores{place} = w{i} * (c{i} - product{i});"));
    }
}

fn of_queries(grad: &AttentionGrad) -> Result<Dispatch, String> {
    let AttentionGrad { shape, k, ct_q, .. } = grad;
    let ct_q = ct_q.ok_or("no cotangent of q is asked for")?;
    let bound = bind(grad, &[&ct_q.slot])?;
    let frame = Frame { shape, bound: &bound, own: GIVEN + 1 };
    let AttentionShape { batch, heads, groups, queries, keys, width, .. } = *shape;
    let blocks = queries.div_ceil(BLOCK);
    let mut body = String::new();
    let text = &mut body;
    split(text);
    line(text, 1, &format!("let first_query = work % {blocks}u * {BLOCK}u;"));
    line(text, 1, &format!("let h = work / {blocks}u % {heads}u;"));
    line(text, 1, &format!("let b = work / {}u;", blocks * heads));
    line(text, 1, &format!("let g = h / {}u;", heads / groups));
    frame.positions(text);
    frame.keys_seen(text);
    for i in 0..EACH {
        name_query(text, 1, &frame, i, queries);
        (0..columns(width)).for_each(|j| line(text, 1, &format!("var y{i}_{j} = 0.0f;")));
    }
    line(text, 1, &format!("for (var first_key = seen.x; first_key < seen.y; first_key += {BLOCK}u) {{"));
    line(text, 2, "let own_key = first_key + column;");
    line(text, 2, &format!("let key = min(own_key, {}u);", keys - 1));
    block(text, 2, grad, &frame);
    line(text, 2, "workgroupBarrier();");
    line(text, 2, &format!("for (var t = 0u; t < {BLOCK}u; t++) {{"));
    line(text, 3, &format!("let other = min(first_key + t, {}u);", keys - 1));
    for i in 0..EACH {
        line(text, 3, &format!("let d{i} = ct_scores[{} * {PITCH}u + t];", row(i)));
    }
    for j in 0..columns(width) {
        line(text, 3, &format!("let x{j} = {};", frame.float(1, k, ["b", "g", "other", &clamped(j, width)])));
        (0..EACH).for_each(|i| line(text, 3, &format!("y{i}_{j} += d{i} * x{j};")));
    }
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    line(text, 1, "}");
    let place =
        |i: usize, element: &str| frame.element(GIVEN, &ct_q, ["b", "h", &format!("query{i}"), element]);
    let scale = scalar::float(shape.scale);
    let there = |i: usize| format!("own_query{i} < {queries}u");
    write(text, width, |i, j| format!("y{i}_{j} * {scale}"), there, place);
    let globals = format!("{BOUNDS}{}{}", weights("weights"), weights("ct_scores"));
    Kernel { bound: &bound, invocations: INVOCATIONS, groups: blocks * heads * batch, globals, body }.finish()
}

/// Names a query, its log-sum-exp and its product.
fn name_query(text: &mut String, depth: usize, frame: &Frame, i: usize, queries: usize) {
    line(text, depth, &format!("let own_query{i} = first_query + {};", row(i)));
    line(text, depth, &format!("let query{i} = min(own_query{i}, {}u);", queries - 1));
    line(text, depth, &format!("let lse{i} = {};", of_row(frame, 3, &format!("query{i}"))));
    let scratch = frame.bound.places.len() - 1;
    line(text, depth, &format!("let product{i} = {};", of_row(frame, scratch, &format!("query{i}"))));
}

fn of_keys(grad: &AttentionGrad) -> Result<Dispatch, String> {
    let AttentionGrad { shape, q, ct_out, ct_k, ct_v, .. } = grad;
    let results: Vec<&Slot> = ct_k.iter().chain(ct_v).map(|ct| &ct.slot).collect();
    let bound = bind(grad, &results)?;
    let frame = Frame { shape, bound: &bound, own: GIVEN + results.len() };
    let AttentionShape { batch, heads, groups, queries, keys, width, value_width, .. } = *shape;
    let blocks = keys.div_ceil(BLOCK);
    let shared = heads / groups;
    let mut body = String::new();
    let text = &mut body;
    split(text);
    line(text, 1, &format!("let first_key = work % {blocks}u * {BLOCK}u;"));
    line(text, 1, &format!("let g = work / {blocks}u % {groups}u;"));
    line(text, 1, &format!("let b = work / {}u;", blocks * groups));
    line(text, 1, "let own_key = first_key + column;");
    line(text, 1, &format!("let key = min(own_key, {}u);", keys - 1));
    frame.positions(text);
    frame.queries_seen(text);
    // What is walked: the sums of k from q and cotangents of scores, those of v from cotangents of the result and weights.
    let walks = [(ct_k, "x", width, 0, q, "ct_scores"), (ct_v, "z", value_width, 4, ct_out, "weights")];
    let walks = walks.into_iter().filter_map(|(ct, name, width, operand, from, by)| {
        ct.as_ref().map(|ct| (ct, name, width, operand, from, by))
    });
    let walks: Vec<_> = walks.collect();
    for (_, name, width, ..) in &walks {
        for i in 0..EACH {
            (0..columns(*width)).for_each(|j| line(text, 1, &format!("var {name}{i}_{j} = 0.0f;")));
        }
    }
    line(text, 1, &format!("for (var h = g * {shared}u; h < (g + 1u) * {shared}u; h++) {{"));
    line(
        text,
        1,
        &format!("for (var first_query = seen.x; first_query < seen.y; first_query += {BLOCK}u) {{"),
    );
    (0..EACH).for_each(|i| name_query(text, 2, &frame, i, queries));
    block(text, 2, grad, &frame);
    line(text, 2, "workgroupBarrier();");
    line(text, 2, &format!("for (var t = 0u; t < {BLOCK}u; t++) {{"));
    line(text, 3, &format!("let other = min(first_query + t, {}u);", queries - 1));
    for (_, name, width, operand, from, by) in &walks {
        for i in 0..EACH {
            line(text, 3, &format!("let {name}_by{i} = {by}[t * {PITCH}u + {}];", row(i)));
        }
        for j in 0..columns(*width) {
            let element = frame.float(*operand, from, ["b", "h", "other", &clamped(j, *width)]);
            line(text, 3, &format!("let {name}_of{j} = {element};"));
            (0..EACH).for_each(|i| line(text, 3, &format!("{name}{i}_{j} += {name}_by{i} * {name}_of{j};")));
        }
    }
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    line(text, 1, "}\n    }");
    let scale = scalar::float(shape.scale);
    for (result, (ct, name, width, operand, ..)) in walks.iter().enumerate() {
        let place = |i: usize, element: &str| {
            frame.element(GIVEN + result, ct, ["b", "g", &format!("(first_key + {})", row(i)), element])
        };
        // Only the cotangent of k has the scale of the scores.
        let value = |i: usize, j: usize| match operand {
            0 => format!("{name}{i}_{j} * {scale}"),
            _ => format!("{name}{i}_{j}"),
        };
        write(text, *width, value, |i| format!("first_key + {} < {keys}u", row(i)), place);
    }
    let globals = format!("{BOUNDS}{}{}", weights("weights"), weights("ct_scores"));
    Kernel { bound: &bound, invocations: INVOCATIONS, groups: blocks * groups * batch, globals, body }
        .finish()
}
