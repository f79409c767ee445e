//! ScatterAdd without float atomics: whoever owns a row of the result looks for the ids that name it.
//!
//! A workgroup owns one row and some of its columns. It reads 64 ids at a time, marks those that are its own as bits of
//! two words, and adds their rows in the order of the bits, which is that of the plan's contract.

use plan::ScatterAdd;

use super::Operands;
use super::source::{Dispatch, Kernel, element, line};

const INVOCATIONS: usize = 64;
/// Most columns of one invocation.
const COLUMNS: usize = 4;

/// Operands are the result, the ids and the source.
pub fn print(scatter: &ScatterAdd, operands: &Operands) -> Result<Dispatch, String> {
    let bound = operands.bind(0)?;
    let ScatterAdd { rows, width, count, .. } = *scatter;
    let each = width.div_ceil(INVOCATIONS).min(COLUMNS);
    let parts = width.div_ceil(each * INVOCATIONS);
    let mut body = String::new();
    let text = &mut body;
    line(text, 1, &format!("let row = work / {parts}u;"));
    line(text, 1, &format!("let first = work % {parts}u * {}u + lane;", each * INVOCATIONS));
    for j in 0..each {
        line(text, 1, &format!("let column{j} = min(first + {}u, {}u);", j * INVOCATIONS, width - 1));
        line(text, 1, &format!("var sum{j} = 0.0f;"));
    }
    line(text, 1, &format!("for (var start = 0u; start < {count}u; start += {INVOCATIONS}u) {{"));
    line(text, 2, "if lane < 2u {");
    line(text, 3, "atomicStore(&own[lane], 0u);");
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    let id = element(&bound, 1, &format!("min(start + lane, {}u)", count - 1));
    line(text, 2, &format!("let id = u32(clamp(bitcast<i32>({id}), 0i, {}i));", rows - 1));
    line(text, 2, &format!("if start + lane < {count}u && id == row {{"));
    line(text, 3, "atomicOr(&own[lane / 32u], 1u << (lane % 32u));");
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    line(text, 2, "for (var half = 0u; half < 2u; half++) {");
    line(text, 3, "var left = atomicLoad(&own[half]);");
    line(text, 3, "while left != 0u {");
    line(text, 4, &format!("let first_source = (start + half * 32u + countTrailingZeros(left)) * {width}u;"));
    for j in 0..each {
        let value = element(&bound, 2, &format!("first_source + column{j}"));
        line(text, 4, &format!("sum{j} += bitcast<f32>({value});"));
    }
    line(text, 4, "left = left & (left - 1u);");
    line(text, 3, "}");
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    line(text, 1, "}");
    for j in 0..each {
        line(text, 1, &format!("if first + {}u < {width}u {{", j * INVOCATIONS));
        let place = element(&bound, 0, &format!("row * {width}u + column{j}"));
        line(text, 2, &format!("{place} = bitcast<u32>(sum{j});"));
        line(text, 1, "}");
    }
    let globals = "var<workgroup> own: array<atomic<u32>, 2>;\n".to_string();
    Kernel { bound: &bound, invocations: INVOCATIONS, groups: rows * parts, globals, body }.finish()
}
