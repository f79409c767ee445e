//! ColReduce: one invocation a column and block of rows, in the order of the plan's contract.
//!
//! Blocks of 256 rows are folded side by side, each in order; their totals pass through workgroup memory and one
//! invocation folds those in order.

use std::ops::Range;

use plan::TileKernel;

use super::source::{Dispatch, Kernel, line};
use super::tile::{View, fold, identity};
use crate::memory::Bound;

/// Rows of a block.
const BLOCK: usize = 256;
/// Invocations of a workgroup where there is one block.
const INVOCATIONS: usize = 64;
/// Columns and blocks of a workgroup where there are more.
const COLUMNS: usize = 16;
const BLOCKS: usize = 16;

pub fn print(kernel: &TileKernel, folded: Range<usize>, bound: &Bound) -> Result<Dispatch, String> {
    let rank = kernel.dims.len();
    let rows = kernel.reduced_len();
    let columns = kernel.points() / rows;
    let blocks = rows.div_ceil(BLOCK);
    let view = View::new(kernel, folded.clone(), bound);
    let stores: Vec<_> = kernel.stores.iter().collect();
    let live = view.needed(stores.iter().map(|store| store.value), |_| false);
    let reductions: Vec<_> = view.reductions().into_iter().filter(|(id, ..)| live[*id]).collect();
    let is_reduction = |id: usize| reductions.iter().any(|(other, ..)| *other == id);
    if let Some(id) = (0..live.len()).find(|id| live[*id] && view.round(*id) > 0 && !is_reduction(*id)) {
        return Err(format!("v{id} uses the result of a column reduction"));
    }
    let (across, abreast) = if blocks > 1 { (COLUMNS, BLOCKS) } else { (INVOCATIONS, 1) };
    let mut body = String::new();
    let text = &mut body;
    line(text, 1, &format!("let own_column = work * {across}u + lane % {across}u;"));
    line(text, 1, &format!("let is_column = own_column < {columns}u;"));
    line(text, 1, &format!("let column = min(own_column, {}u);", columns - 1));
    let inner: usize = kernel.dims[folded.end..].iter().product();
    line(text, 1, &format!("let inside = column % {inner}u;"));
    line(text, 1, &format!("let outside = column / {inner}u;"));
    view.indices(text, 1, "inside", folded.end..rank);
    view.indices(text, 1, "outside", 0..folded.start);
    view.values(
        text,
        1,
        (0..live.len()).filter(|id| live[*id] && !view.is_inner(*id) && view.round(*id) == 0),
    )?;
    for (id, op, _) in &reductions {
        line(text, 1, &format!("var t{id} = {};", identity(*op)));
    }
    line(text, 1, &format!("for (var round = 0u; round < {blocks}u; round += {abreast}u) {{"));
    line(text, 2, &format!("let start = (round + lane / {across}u) * {BLOCK}u;"));
    line(text, 2, &format!("let end = select(0u, min(start + {BLOCK}u, {rows}u), is_column);"));
    for (id, op, _) in &reductions {
        line(text, 2, &format!("var a{id} = {};", identity(*op)));
    }
    line(text, 2, "for (var row = start; row < end; row++) {");
    view.indices(text, 3, "row", folded.clone());
    let of_elements: Vec<_> = stores.iter().filter(|store| view.stores_elements(store)).collect();
    let wanted = reductions.iter().map(|(_, _, arg)| *arg).chain(of_elements.iter().map(|store| store.value));
    let needed = view.needed(wanted, |id| !view.is_inner(id));
    view.values(text, 3, (0..needed.len()).filter(|id| needed[*id]))?;
    for (id, op, arg) in &reductions {
        line(text, 3, &format!("a{id} = {};", fold(*op, &format!("a{id}"), &format!("v{arg}"))));
    }
    of_elements.iter().for_each(|store| view.store(text, 3, store));
    line(text, 2, "}");
    if abreast == 1 {
        for (id, op, _) in &reductions {
            line(text, 2, &format!("t{id} = {};", fold(*op, &format!("t{id}"), &format!("a{id}"))));
        }
    } else {
        for (index, (id, ..)) in reductions.iter().enumerate() {
            line(text, 2, &format!("totals[{}u + lane] = a{id};", index * across * abreast));
        }
        line(text, 2, "workgroupBarrier();");
        line(text, 2, &format!("let there = min({blocks}u - round, {abreast}u);"));
        line(text, 2, "for (var i = 0u; i < there; i++) {");
        for (index, (id, op, _)) in reductions.iter().enumerate() {
            let place = format!("{}u + i * {across}u + lane % {across}u", index * across * abreast);
            line(text, 3, &format!("let x{id} = totals[{place}];"));
            line(text, 3, &format!("t{id} = {};", fold(*op, &format!("t{id}"), &format!("x{id}"))));
        }
        line(text, 2, "}");
        line(text, 2, "workgroupBarrier();");
    }
    line(text, 1, "}");
    line(text, 1, &format!("if is_column && lane < {across}u {{"));
    for (id, ..) in &reductions {
        line(text, 2, &format!("let v{id} = t{id};"));
    }
    stores.iter().filter(|store| !view.stores_elements(store)).for_each(|store| view.store(text, 2, store));
    line(text, 1, "}");
    let globals = match abreast {
        1 => String::new(),
        _ => format!("var<workgroup> totals: array<f32, {}>;\n", reductions.len().max(1) * across * abreast),
    };
    let groups = columns.div_ceil(across);
    Kernel { bound, invocations: across * abreast, groups, globals, body }.finish()
}
