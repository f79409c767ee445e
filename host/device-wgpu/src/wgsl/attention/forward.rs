//! Attention forward: a workgroup has 16 queries of one head and walks over the keys they see.

use plan::{Attention, AttentionShape};

use super::{
    BLOCK, BOUNDS, EACH, Frame, INVOCATIONS, MASKED, NONE_ABOVE, PITCH, clamped, columns, of_mask, row,
    split, weights, write,
};
use crate::wgsl::source::{Dispatch, Kernel, line};
use crate::wgsl::{Operands, scalar};

pub fn print(attention: &Attention) -> Result<Dispatch, String> {
    let Attention { shape, q, k, v, out, lse } = attention;
    let results = out.iter().map(|out| &out.slot).chain(lse.iter());
    let own: Vec<_> = [&q.slot, &k.slot, &v.slot].into_iter().chain(results).collect();
    let bound = Operands::new(own.iter().copied().chain(of_mask(shape))).bind(0)?;
    let frame = Frame { shape, bound: &bound, own: own.len() };
    let AttentionShape { batch, heads, groups, queries, keys, width, value_width, .. } = *shape;
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
        line(text, 1, &format!("let own_query{i} = first_query + {};", row(i)));
        line(text, 1, &format!("let query{i} = min(own_query{i}, {}u);", queries - 1));
        line(text, 1, &format!("var most{i} = {MASKED};\n    var sum{i} = 0.0f;"));
        (0..columns(value_width)).for_each(|j| line(text, 1, &format!("var y{i}_{j} = 0.0f;")));
    }
    line(text, 1, &format!("for (var first_key = seen.x; first_key < seen.y; first_key += {BLOCK}u) {{"));
    line(text, 2, &format!("let key = min(first_key + column, {}u);", keys - 1));
    (0..EACH).for_each(|i| line(text, 2, &format!("var s{i} = 0.0f;")));
    line(text, 2, &format!("for (var e = 0u; e < {width}u; e++) {{"));
    line(text, 3, &format!("let x = {};", frame.float(1, k, ["b", "g", "key", "e"])));
    for i in 0..EACH {
        let of_query = frame.float(0, q, ["b", "h", &format!("query{i}"), "e"]);
        line(text, 3, &format!("s{i} += {of_query} * x;"));
    }
    line(text, 2, "}");
    for i in 0..EACH {
        let sees = frame.sees(&format!("query{i}"), "key");
        let is_seen = format!("first_key + column < {keys}u && {sees}");
        let score = format!("s{i} * {}", scalar::float(shape.scale));
        line(text, 2, &format!("s{i} = select({MASKED}, {score}, {is_seen});"));
        line(text, 2, &format!("weights[{} * {PITCH}u + column] = s{i};", row(i)));
    }
    line(text, 2, "workgroupBarrier();");
    for i in 0..EACH {
        line(text, 2, &format!("let before{i} = most{i};"));
        line(text, 2, &format!("for (var t = 0u; t < {BLOCK}u; t++) {{"));
        line(text, 3, &format!("most{i} = max(most{i}, weights[{} * {PITCH}u + t]);", row(i)));
        line(text, 2, "}");
    }
    line(text, 2, "workgroupBarrier();");
    for i in 0..EACH {
        let weight = format!("select(exponential(s{i} - most{i}), 0.0f, s{i} <= {NONE_ABOVE})");
        line(text, 2, &format!("weights[{} * {PITCH}u + column] = {weight};", row(i)));
        line(text, 2, &format!("let less{i} = bounded_exponential(before{i} - most{i});"));
        line(text, 2, &format!("sum{i} = sum{i} * less{i};"));
        (0..columns(value_width)).for_each(|j| line(text, 2, &format!("y{i}_{j} = y{i}_{j} * less{i};")));
    }
    line(text, 2, "workgroupBarrier();");
    line(text, 2, &format!("for (var t = 0u; t < {BLOCK}u; t++) {{"));
    line(text, 3, &format!("let value_key = min(first_key + t, {}u);", keys - 1));
    for i in 0..EACH {
        line(text, 3, &format!("let w{i} = weights[{} * {PITCH}u + t];", row(i)));
        line(text, 3, &format!("sum{i} += w{i};"));
    }
    for j in 0..columns(value_width) {
        let element = clamped(j, value_width);
        line(text, 3, &format!("let x{j} = {};", frame.float(2, v, ["b", "g", "value_key", &element])));
        (0..EACH).for_each(|i| line(text, 3, &format!("y{i}_{j} += w{i} * x{j};")));
    }
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    line(text, 1, "}");
    let there = |i: usize| format!("own_query{i} < {queries}u");
    for i in 0..EACH {
        // A query that sees nothing has a sum of 0, and results of 0.
        line(text, 1, &format!("let share{i} = select(0.0f, 1.0f / max(sum{i}, 1e-37f), sum{i} > 0.0f);"));
    }
    if let Some(out) = out {
        let place =
            |i: usize, element: &str| frame.element(3, out, ["b", "h", &format!("query{i}"), element]);
        write(text, value_width, |i, j| format!("y{i}_{j} * share{i}"), there, place);
    }
    if lse.is_some() {
        let operand = own.len() - 1;
        let binding = bound.places[operand].binding;
        for i in 0..EACH {
            let value = format!("select(0.0f, most{i} + logarithm(max(sum{i}, 1e-37f)), sum{i} > 0.0f)");
            let place = format!("m{binding}[o{operand} + (b * {heads}u + h) * {queries}u + query{i}]");
            line(text, 1, &format!("if column == 0u && {} {{ {place} = bitcast<u32>({value}); }}", there(i)));
        }
    }
    let globals = format!("{BOUNDS}{}", weights("weights"));
    Kernel { bound: &bound, invocations: INVOCATIONS, groups: blocks * heads * batch, globals, body }.finish()
}
