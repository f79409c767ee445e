//! RowReduce: sixteen invocations fold a row in the order of the plan's contract, four rows to a workgroup.
//!
//! Lane l adds elements l, l + 16, ... in order, then the lanes of a row are folded pairwise by each of them from
//! workgroup memory, so all know the result. A row beyond 65,536 elements is cut into blocks of 8192 that are folded
//! side by side; a second dispatch folds their results in order.

use std::ops::Range;

use ops::Op;
use plan::{TileKernel, ValueId};

use super::Operands;
use super::source::{Dispatch, Kernel, line};
use super::tile::{View, fold, identity};

/// Logical lanes of a row.
const LANES: usize = 16;
/// Rows of a workgroup.
const ROWS: usize = 4;
const INVOCATIONS: usize = ROWS * LANES;
/// Rows longer than this are cut.
const LONG: usize = 65_536;
/// Elements of a block of such a row.
const BLOCK: usize = 8192;

pub fn print(kernel: &TileKernel, reduced: usize, operands: &Operands) -> Result<Vec<Dispatch>, String> {
    let rank = kernel.dims.len();
    let folded = rank - reduced..rank;
    let columns = kernel.reduced_len();
    let reductions =
        kernel.values.iter().filter(|value| matches!(value.expr, plan::Expr::Reduce { .. })).count();
    if columns <= LONG || reductions == 0 {
        return Ok(vec![whole(kernel, folded, columns, &operands.bind(0)?)?]);
    }
    let rows = kernel.points() / columns;
    let bound = operands.bind(rows * columns.div_ceil(BLOCK) * reductions * 4)?;
    let view = View::new(kernel, folded, &bound);
    let reuses = |id: ValueId| view.round(id) > 0 && view.is_inner(id);
    let again = view.reductions().iter().any(|(_, _, arg)| view.round(*arg) > 0);
    if again || (0..kernel.values.len()).any(reuses) {
        return Err(format!("rows of {columns} are used again after a reduction, more than {LONG}"));
    }
    Ok(vec![blocks(&view, rows, columns)?, joined(&view, rows, columns)?])
}

/// Outer values of one round, those of reductions left out.
fn outer<'v>(view: &'v View<'_>, needed: &'v [bool], round: usize) -> impl Iterator<Item = ValueId> + 'v {
    let is_reduction = |id: ValueId| matches!(view.kernel.values[id].expr, plan::Expr::Reduce { .. });
    (0..needed.len()).filter(move |id| {
        needed[*id] && !view.is_inner(*id) && view.round(*id) == round && !is_reduction(*id)
    })
}

/// Everything that some store needs.
fn live(view: &View) -> Vec<bool> {
    view.needed(view.kernel.stores.iter().map(|store| store.value), |_| false)
}

/// The numbers of one row at a time, in loops over its elements.
fn whole(
    kernel: &TileKernel,
    folded: Range<usize>,
    columns: usize,
    bound: &crate::memory::Bound,
) -> Result<Dispatch, String> {
    let view = View::new(kernel, folded.clone(), bound);
    let rows = kernel.points() / columns;
    let live = live(&view);
    let reductions: Vec<_> = view.reductions().into_iter().filter(|(id, ..)| live[*id]).collect();
    let mut body = String::new();
    let text = &mut body;
    line(text, 1, &format!("let l = lane % {LANES}u;"));
    line(text, 1, &format!("let own_row = work * {ROWS}u + lane / {LANES}u;"));
    line(text, 1, &format!("let is_row = own_row < {rows}u;"));
    line(text, 1, &format!("let row = min(own_row, {}u);", rows - 1));
    line(text, 1, &format!("let columns = select(0u, {columns}u, is_row);"));
    view.indices(text, 1, "row", 0..folded.start);
    view.values(text, 1, outer(&view, &live, 0))?;
    let rounds = reductions.iter().map(|(_, _, arg)| view.round(*arg) + 1).max().unwrap_or(0);
    let of_elements: Vec<_> = kernel.stores.iter().filter(|store| view.stores_elements(store)).collect();
    let stored = of_elements.iter().map(|store| view.round(store.value)).max();
    // The last loop is that of the last round, unless a store needs its results.
    let loops = rounds.max(stored.map_or(0, |round| round + 1));
    for round in 0..loops {
        let folds: Vec<_> = reductions.iter().filter(|(_, _, arg)| view.round(*arg) == round).collect();
        let stores = if round + 1 == loops { &of_elements[..] } else { &[] };
        for (id, op, _) in &folds {
            line(text, 1, &format!("var a{id} = {};", identity(*op)));
        }
        line(text, 1, &format!("for (var column = l; column < columns; column += {LANES}u) {{"));
        view.indices(text, 2, "column", folded.clone());
        let wanted = folds.iter().map(|(_, _, arg)| *arg).chain(stores.iter().map(|store| store.value));
        let needed = view.needed(wanted, |id| !view.is_inner(id));
        view.values(text, 2, (0..needed.len()).filter(|id| needed[*id]))?;
        for (id, op, arg) in &folds {
            line(text, 2, &format!("a{id} = {};", fold(*op, &format!("a{id}"), &format!("v{arg}"))));
        }
        stores.iter().for_each(|store| view.store(text, 2, store));
        line(text, 1, "}");
        if folds.is_empty() {
            continue;
        }
        let place =
            |id: ValueId| reductions.iter().position(|(other, ..)| *other == id).unwrap_or(0) * INVOCATIONS;
        for (id, ..) in &folds {
            line(text, 1, &format!("lanes[{}u + lane] = a{id};", place(*id)));
        }
        line(text, 1, "workgroupBarrier();");
        for (id, op, _) in &folds {
            line(text, 1, &format!("let v{id} = {}({}u + lane - l);", folding(*op), place(*id)));
        }
        view.values(text, 1, outer(&view, &live, round + 1))?;
    }
    line(text, 1, "if is_row && l == 0u {");
    kernel
        .stores
        .iter()
        .filter(|store| !view.stores_elements(store))
        .for_each(|store| view.store(text, 2, store));
    line(text, 1, "}");
    let globals = lanes(reductions.iter().map(|(_, op, _)| *op).collect());
    Kernel { bound, invocations: INVOCATIONS, groups: rows.div_ceil(ROWS), globals, body }.finish()
}

/// One total per row, block and reduction, into the scratch.
fn blocks(view: &View, rows: usize, columns: usize) -> Result<Dispatch, String> {
    let count = columns.div_ceil(BLOCK);
    let live = live(view);
    let reductions = view.reductions();
    let mut body = String::new();
    let text = &mut body;
    line(text, 1, &format!("let l = lane % {LANES}u;"));
    line(text, 1, &format!("let own_block = work * {ROWS}u + lane / {LANES}u;"));
    line(text, 1, &format!("let is_block = own_block < {}u;", rows * count));
    line(text, 1, &format!("let block = min(own_block, {}u);", rows * count - 1));
    line(text, 1, &format!("let row = block / {count}u;"));
    line(text, 1, &format!("let start = block % {count}u * {BLOCK}u;"));
    line(text, 1, &format!("let end = select(0u, min(start + {BLOCK}u, {columns}u), is_block);"));
    view.indices(text, 1, "row", 0..view.folded.start);
    view.values(text, 1, outer(view, &live, 0))?;
    for (id, op, _) in &reductions {
        line(text, 1, &format!("var a{id} = {};", identity(*op)));
    }
    line(text, 1, &format!("for (var column = start + l; column < end; column += {LANES}u) {{"));
    view.indices(text, 2, "column", view.folded.clone());
    let of_elements = || view.kernel.stores.iter().filter(|store| view.stores_elements(store));
    let wanted = reductions.iter().map(|(_, _, arg)| *arg).chain(of_elements().map(|store| store.value));
    let needed = view.needed(wanted, |id| !view.is_inner(id));
    view.values(text, 2, (0..needed.len()).filter(|id| needed[*id]))?;
    for (id, op, arg) in &reductions {
        line(text, 2, &format!("a{id} = {};", fold(*op, &format!("a{id}"), &format!("v{arg}"))));
    }
    of_elements().for_each(|store| view.store(text, 2, store));
    line(text, 1, "}");
    for (index, (id, ..)) in reductions.iter().enumerate() {
        line(text, 1, &format!("lanes[{}u + lane] = a{id};", index * INVOCATIONS));
    }
    line(text, 1, "workgroupBarrier();");
    line(text, 1, "if is_block && l == 0u {");
    for (index, (_, op, _)) in reductions.iter().enumerate() {
        let place = partial(view, &format!("block * {}u + {index}u", reductions.len()));
        let total = format!("{}({}u + lane)", folding(*op), index * INVOCATIONS);
        line(text, 2, &format!("{place} = bitcast<u32>({total});"));
    }
    line(text, 1, "}");
    let globals = lanes(reductions.iter().map(|(_, op, _)| *op).collect());
    let groups = (rows * count).div_ceil(ROWS);
    Kernel { bound: view.bound, invocations: INVOCATIONS, groups, globals, body }.finish()
}

/// Totals of blocks folded in order, one workgroup a row, and what is made of the results.
fn joined(view: &View, rows: usize, columns: usize) -> Result<Dispatch, String> {
    let count = columns.div_ceil(BLOCK);
    let live = live(view);
    let reductions = view.reductions();
    let mut body = String::new();
    let text = &mut body;
    line(text, 1, "let row = work;");
    view.indices(text, 1, "row", 0..view.folded.start);
    view.values(text, 1, outer(view, &live, 0))?;
    for (id, op, _) in &reductions {
        line(text, 1, &format!("var a{id} = {};", identity(*op)));
    }
    line(text, 1, &format!("for (var start = 0u; start < {count}u; start += {INVOCATIONS}u) {{"));
    line(text, 2, &format!("let block = row * {count}u + min(start + lane, {}u);", count - 1));
    for index in 0..reductions.len() {
        let total = partial(view, &format!("block * {}u + {index}u", reductions.len()));
        line(text, 2, &format!("lanes[{}u + lane] = bitcast<f32>({total});", index * INVOCATIONS));
    }
    line(text, 2, "workgroupBarrier();");
    line(text, 2, &format!("let there = min({count}u - start, {INVOCATIONS}u);"));
    line(text, 2, "for (var i = 0u; i < there; i++) {");
    for (index, (id, op, _)) in reductions.iter().enumerate() {
        line(text, 3, &format!("let x{id} = lanes[{}u + i];", index * INVOCATIONS));
        line(text, 3, &format!("a{id} = {};", fold(*op, &format!("a{id}"), &format!("x{id}"))));
    }
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    line(text, 1, "}");
    for (id, ..) in &reductions {
        line(text, 1, &format!("let v{id} = a{id};"));
    }
    view.values(text, 1, outer(view, &live, 1))?;
    line(text, 1, "if lane == 0u {");
    let of_rows = view.kernel.stores.iter().filter(|store| !view.stores_elements(store));
    of_rows.for_each(|store| view.store(text, 2, store));
    line(text, 1, "}");
    let globals = format!("var<workgroup> lanes: array<f32, {}>;\n", reductions.len() * INVOCATIONS);
    Kernel { bound: view.bound, invocations: INVOCATIONS, groups: rows, globals, body }.finish()
}

/// An element of the scratch, the operand after the kernel's own.
fn partial(view: &View, index: &str) -> String {
    super::source::element(view.bound, view.kernel.bindings.len(), index)
}

/// Workgroup memory for the lanes of each reduction, and the functions that fold them.
fn lanes(ops: Vec<Op>) -> String {
    if ops.is_empty() {
        return String::new();
    }
    let mut text = format!("var<workgroup> lanes: array<f32, {}>;\n", ops.len() * INVOCATIONS);
    for op in [Op::Sum, Op::ReduceMax].into_iter().filter(|op| ops.contains(op)) {
        line(&mut text, 0, &format!("fn {}(first: u32) -> f32 {{", folding(op)));
        for (half, from) in [(8, "lanes[first + "), (4, "e"), (2, "f"), (1, "g")] {
            let to = match half {
                8 => "e",
                4 => "f",
                2 => "g",
                _ => "h",
            };
            let name =
                |lane: usize| if half == 8 { format!("{from}{lane}u]") } else { format!("{from}{lane}") };
            for lane in 0..half {
                line(
                    &mut text,
                    1,
                    &format!("let {to}{lane} = {};", fold(op, &name(lane), &name(lane + half))),
                );
            }
        }
        line(&mut text, 1, "return h0;");
        line(&mut text, 0, "}");
    }
    text
}

fn folding(op: Op) -> &'static str {
    if op == Op::Sum { "sum_of_lanes" } else { "largest_of_lanes" }
}
