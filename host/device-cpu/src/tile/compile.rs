//! Tile kernel to program: what varies along which axis, when each value is computed, and in which register.

use ops::{DType, Op};
use plan::{Expr, Template, TileKernel, ValueId};

use super::apply::supports;
use super::program::*;
use super::registers::{self, Lifetimes};
use super::shape::{Address, Shape, regroup};

/// Longest row that stays in a tile while its elements are used again.
pub const MAX_ROW: usize = 16_384;
/// Elements of a register: small enough for a dozen to stay in the first-level cache.
const SMALL_TILE: usize = 512;
const LARGE_TILE: usize = 1024;
/// Elements of all registers of a tile together.
const TILE_BUDGET: usize = 8192;
/// Operands read and written in place from which on they are prefetched.
const MANY_OPERANDS: usize = 3;
/// Columns of a tile of which some operand is read or written across its rows.
const TRANSPOSED_COLUMNS: usize = 64;

/// The error is a reason for `DeviceError::BadPlan`.
pub fn compile(kernel: &TileKernel) -> Result<Program, String> {
    let mut affines = Vec::new();
    let mut address_of = vec![0; kernel.values.len()];
    for (id, value) in kernel.values.iter().enumerate() {
        if let Expr::Load { at, .. } | Expr::Iota(at) = &value.expr {
            address_of[id] = affines.len();
            affines.push(at);
        }
    }
    let first_store = affines.len();
    affines.extend(kernel.stores.iter().map(|store| &store.at));
    let (shape, addresses) = regroup(kernel, &affines);

    let roots = roots(kernel);
    let classes = classes(kernel, &shape, &addresses, &address_of);
    let late = depends_on_reduction(kernel);
    let walk = choose_walk(kernel, &shape, &classes, &late, &addresses[first_store..])?;
    let streams = matches!(walk, Walk::Stream | Walk::Long);
    let class_of = |id: ValueId| match classes[id] {
        // Columns of a streamed row change from tile to tile.
        Class::Column if streams => Class::Element,
        class => class,
    };

    let mut program =
        Program { walk, places: vec![Place::Unused; kernel.values.len()], ..empty(shape, addresses) };
    let follows: Vec<bool> = (0..kernel.values.len())
        .map(|id| draws_in_order(kernel, id, &roots, class_of, &program, &address_of))
        .collect();
    let live = live_values(kernel, &roots, &follows);
    for (id, value) in kernel.values.iter().enumerate().filter(|(id, _)| live[*id]) {
        let class = class_of(id);
        let address = address_of[id];
        let step = match &value.expr {
            Expr::Const(bits) => {
                program.places[id] = Place::Constant(program.constants.len());
                program.constants.push([*bits; LANES]);
                continue;
            }
            Expr::Load { binding, gather: None, .. } => {
                // A loaded value that is stored as it is must be taken before any store may overwrite it.
                let is_stored = kernel.stores.iter().any(|store| roots[store.value] == id);
                let in_place = !(is_stored && kernel.stores.len() > 1);
                Step::Load { out: id, binding: *binding, address, class, in_place }
            }
            Expr::Load { binding, gather: Some(gather), .. } => Step::Gather {
                out: id,
                binding: *binding,
                address,
                class,
                index: roots[gather.index],
                stride: gather.stride,
                limit: gather.limit,
            },
            Expr::Iota(_) => Step::Iota { out: id, address, class, dtype: value.dtype },
            Expr::Apply { op: Op::Rand, args } if follows[id] => {
                let [k0, k1, c1] = [args[1], args[2], args[3]].map(|arg| roots[arg]);
                Step::RandomWords { out: id, address: address_of[roots[args[0]]], args: [k0, k1, c1], class }
            }
            Expr::Apply { op, args } => apply_step(kernel, &roots, id, *op, args, class)?,
            Expr::Reduce { op, arg } => {
                let fold = match op {
                    Op::Sum => Fold::Sum,
                    Op::ReduceMax => Fold::Max,
                    _ => return Err(format!("v{id}: {op} is not a reduction")),
                };
                if kernel.values[*arg].dtype != DType::F32 {
                    return Err(format!("v{id}: {op} of {}", kernel.values[*arg].dtype));
                }
                program.reductions.push((id, fold));
                let arg = roots[*arg];
                if walk == Walk::Columns {
                    program.body.push(Step::AccumulateRows { out: id, arg, fold });
                } else {
                    program.body.push(Step::Accumulate { out: id, arg, fold });
                    let folds = if walk == Walk::Tiles { &mut program.body } else { &mut program.folds };
                    folds.push(Step::FoldLanes { out: id, fold });
                }
                continue;
            }
        };
        let list = match class {
            _ if late[id] && walk != Walk::Tiles => &mut program.finish,
            _ if late[id] => &mut program.body,
            Class::Uniform | Class::Column => &mut program.once,
            Class::Row => &mut program.rows,
            Class::Element => &mut program.body,
        };
        list.push(step);
    }
    for (index, store) in kernel.stores.iter().enumerate() {
        let step =
            Step::Store { binding: store.binding, address: first_store + index, value: roots[store.value] };
        match late[store.value] && walk != Walk::Tiles {
            true => program.finish.push(step),
            false => program.body.push(step),
        }
    }
    if program.walk == Walk::Tiles {
        // Operands first: what follows the last of them has all views, and so can ask for their next tiles.
        program.body.sort_by_key(|step| !matches!(step, Step::Load { .. }));
    }
    lay_out(&mut program, class_of);
    if program.walk == Walk::Tiles {
        let Program { body, addresses, shape, .. } = &mut program;
        spread_prefetches(body, |address| {
            addresses[address].column == 1 && addresses[address].is_linear && shape.runs.is_empty()
        });
    }
    Ok(program)
}

/// Tiles meet memory in bursts, one operand after another, which the machine's own prefetcher does not follow beyond
/// two or three operands: the next tiles of what is read, and this tile of what is written, are asked for bit by bit
/// between the steps.
fn spread_prefetches(body: &mut Vec<Step>, is_dense: impl Fn(usize) -> bool) {
    let mut operands = Vec::new();
    let mut read = Vec::new();
    for step in body.iter() {
        if let Step::Load { out, class: Class::Element, in_place: true, binding, .. } = *step {
            operands.push(out);
            read.push(binding);
        }
    }
    let mut results = Vec::new();
    for step in body.iter() {
        match *step {
            // What is updated in place is there already.
            Step::Store { binding, address, .. } if is_dense(address) && !read.contains(&binding) => {
                results.push((binding, address));
            }
            _ => {}
        }
    }
    if operands.len() + results.len() < MANY_OPERANDS {
        return;
    }
    let mut pending = Vec::new();
    for part in 0..PREFETCH_PARTS {
        let stores = results.iter().map(|(binding, address)| (*binding, *address));
        pending.extend(stores.map(|(binding, address)| Step::PrefetchStore { binding, address, part }));
        pending.extend(operands.iter().map(|value| Step::Prefetch { value: *value, part }));
    }
    let works = |step: &Step| matches!(step, Step::Apply { .. } | Step::Accumulate { .. });
    let last_load = body.iter().rposition(|step| matches!(step, Step::Load { .. })).unwrap_or(0);
    let mut left = body[last_load..].iter().filter(|step| works(step)).count();
    let steps = std::mem::take(body);
    for (index, step) in steps.into_iter().enumerate() {
        let works = works(&step) && index >= last_load;
        body.push(step);
        if works {
            body.extend(pending.drain(..pending.len().div_ceil(left)));
            left -= 1;
        }
    }
}

fn empty(shape: Shape, addresses: Vec<Address>) -> Program {
    Program {
        shape,
        addresses,
        walk: Walk::Tiles,
        tile_rows: 0,
        tile_columns: 0,
        pitch: 0,
        once: Vec::new(),
        rows: Vec::new(),
        body: Vec::new(),
        folds: Vec::new(),
        finish: Vec::new(),
        reductions: Vec::new(),
        places: Vec::new(),
        constants: Vec::new(),
        scratch: 0,
        partials: 0,
    }
}

fn apply_step(
    kernel: &TileKernel,
    roots: &[ValueId],
    id: ValueId,
    op: Op,
    args: &[ValueId],
    class: Class,
) -> Result<Step, String> {
    let (fewest, most) = op.row().arity;
    if args.len() < fewest || args.len() > most.min(4) || args.is_empty() {
        return Err(format!("v{id}: {op} has {} arguments", args.len()));
    }
    let dtype = kernel.values[args[if op == Op::Select { 1 } else { 0 }]].dtype;
    let to = kernel.values[id].dtype;
    if !supports(op, dtype) {
        return Err(format!("v{id}: the CPU has no {op} of {dtype}"));
    }
    let arg = |index: usize| roots[args[index.min(args.len() - 1)]];
    Ok(Step::Apply { out: id, op, args: [arg(0), arg(1), arg(2), arg(3)], dtype, to, class })
}

/// The value that computes each value: another one for copies and for casts that keep the bits.
fn roots(kernel: &TileKernel) -> Vec<ValueId> {
    let mut roots: Vec<ValueId> = Vec::with_capacity(kernel.values.len());
    for (id, value) in kernel.values.iter().enumerate() {
        let root = match &value.expr {
            Expr::Apply { op: Op::Copy | Op::Bitcast, args } => roots[args[0]],
            Expr::Apply { op: Op::Cast, args } if keeps_bits(kernel.values[args[0]].dtype, value.dtype) => {
                roots[args[0]]
            }
            _ => id,
        };
        roots.push(root);
    }
    roots
}

fn keeps_bits(from: DType, to: DType) -> bool {
    from == to || (from != DType::F32 && matches!(to, DType::I32 | DType::U32))
}

fn classes(kernel: &TileKernel, shape: &Shape, addresses: &[Address], address_of: &[usize]) -> Vec<Class> {
    let has_rows = shape.row_count() > 1;
    let mut classes: Vec<Class> = Vec::with_capacity(kernel.values.len());
    for (id, value) in kernel.values.iter().enumerate() {
        let of_address = || {
            let at = &addresses[address_of[id]];
            Class::new(at.varies_by_row(), at.varies_by_column())
        };
        let class = match &value.expr {
            Expr::Const(_) => Class::Uniform,
            Expr::Iota(_) => of_address(),
            Expr::Load { gather, .. } => {
                gather.map_or(of_address(), |gather| of_address().join(classes[gather.index]))
            }
            Expr::Apply { args, .. } => {
                args.iter().fold(Class::Uniform, |class, arg| class.join(classes[*arg]))
            }
            Expr::Reduce { .. } if matches!(kernel.template, Template::ColReduce { .. }) => Class::Column,
            Expr::Reduce { .. } => Class::Row,
        };
        // With a single row there is nothing to share between rows.
        let class = if class == Class::Column && !has_rows && !is_column_reduction(kernel) {
            Class::Element
        } else {
            class
        };
        classes.push(class);
    }
    classes
}

fn is_column_reduction(kernel: &TileKernel) -> bool {
    matches!(kernel.template, Template::ColReduce { .. })
}

fn depends_on_reduction(kernel: &TileKernel) -> Vec<bool> {
    let mut late: Vec<bool> = Vec::with_capacity(kernel.values.len());
    for value in &kernel.values {
        let is_late = match &value.expr {
            Expr::Reduce { .. } => true,
            Expr::Apply { args, .. } => args.iter().any(|arg| late[*arg]),
            Expr::Load { gather, .. } => gather.is_some_and(|gather| late[gather.index]),
            Expr::Const(_) | Expr::Iota(_) => false,
        };
        late.push(is_late);
    }
    late
}

fn choose_walk(
    kernel: &TileKernel,
    shape: &Shape,
    classes: &[Class],
    late: &[bool],
    stores: &[Address],
) -> Result<Walk, String> {
    let columns = shape.columns();
    // A late value that is an element, or a reduction of late values, needs the row's elements a second time.
    let reuses = kernel.values.iter().enumerate().any(|(id, value)| match &value.expr {
        Expr::Reduce { arg, .. } => late[*arg],
        _ => late[id] && classes[id].by_column(),
    });
    let spreads =
        kernel.stores.iter().zip(stores).any(|(store, at)| late[store.value] && at.varies_by_column());
    match kernel.template {
        Template::Map => Ok(Walk::Tiles),
        Template::ColReduce { .. } => {
            let is_late = |id: ValueId| late[id] && !matches!(kernel.values[id].expr, Expr::Reduce { .. });
            match (0..kernel.values.len()).find(|id| is_late(*id)) {
                Some(id) => Err(format!("v{id} uses the result of a column reduction")),
                None => Ok(Walk::Columns),
            }
        }
        Template::RowReduce { .. } if reuses || spreads => match columns <= MAX_ROW {
            true => Ok(Walk::Tiles),
            false => Err(format!("rows of {columns} are used again after a reduction, more than {MAX_ROW}")),
        },
        Template::RowReduce { .. } if columns > LONG_ROW => Ok(Walk::Long),
        Template::RowReduce { .. } if columns > LARGE_TILE => Ok(Walk::Stream),
        Template::RowReduce { .. } => Ok(Walk::Tiles),
    }
}

/// Whether a value is the random words of elements that follow each other along the columns, under one key per row.
fn draws_in_order(
    kernel: &TileKernel,
    id: ValueId,
    roots: &[ValueId],
    class_of: impl Fn(ValueId) -> Class,
    program: &Program,
    address_of: &[usize],
) -> bool {
    let Expr::Apply { op: Op::Rand, args } = &kernel.values[id].expr else { return false };
    let [index, k0, k1, c1] = args[..] else { return false };
    let index = roots[index];
    let at = &program.addresses[address_of[index]];
    let is_iota =
        matches!(kernel.values[index].expr, Expr::Iota(_)) && kernel.values[index].dtype != DType::F32;
    let is_word = kernel.values[id].dtype == DType::U32 && kernel.values[args[0]].dtype == DType::U32;
    let has_key = [k0, k1, c1].iter().all(|arg| !class_of(*arg).by_column());
    is_iota && is_word && has_key && at.column == 1 && program.shape.runs.is_empty()
}

/// Which values some store needs. The indices of words that are drawn in order are not computed for these.
fn live_values(kernel: &TileKernel, roots: &[ValueId], follows: &[bool]) -> Vec<bool> {
    let mut live = vec![false; kernel.values.len()];
    kernel.stores.iter().for_each(|store| live[roots[store.value]] = true);
    for (id, value) in kernel.values.iter().enumerate().rev().filter(|(id, _)| roots[*id] == *id) {
        if !live[id] {
            continue;
        }
        match &value.expr {
            Expr::Apply { args, .. } => {
                args.iter().skip(usize::from(follows[id])).for_each(|arg| live[roots[*arg]] = true);
            }
            Expr::Reduce { arg, .. } => live[roots[*arg]] = true,
            Expr::Load { gather: Some(gather), .. } => live[roots[gather.index]] = true,
            Expr::Load { .. } | Expr::Const(_) | Expr::Iota(_) => {}
        }
    }
    live
}

/// Chooses the tile's size and gives each value its place.
fn lay_out(program: &mut Program, class_of: impl Fn(ValueId) -> Class) {
    let lifetimes = Lifetimes::of(program);
    let registers = registers::allocate(program, &lifetimes, class_of);
    let budget = TILE_BUDGET / registers.elements().max(1);
    let size = budget.next_power_of_two().clamp(SMALL_TILE, LARGE_TILE);
    let columns = program.shape.columns();
    let crosses = |at: &Address| at.column.abs() > 1 && at.varies_by_row();
    let crosses_rows = program.addresses.iter().any(crosses) && columns > TRANSPOSED_COLUMNS;
    let reduces_rows = !program.reductions.is_empty() && program.walk == Walk::Tiles;
    program.tile_columns = match program.walk {
        Walk::Tiles if reduces_rows => columns,
        Walk::Tiles | Walk::Columns if crosses_rows => TRANSPOSED_COLUMNS,
        Walk::Columns => columns.min(SMALL_TILE),
        Walk::Tiles | Walk::Stream | Walk::Long => columns.min(size),
    };
    program.pitch = program.tile_columns.next_multiple_of(LANES);
    let most_rows = if program.walk == Walk::Columns { BLOCK_ROWS } else { usize::MAX };
    program.tile_rows = (size / program.pitch).clamp(1, most_rows).min(program.shape.row_count());
    program.scratch = registers.place(program);
    program.partials = match program.walk {
        Walk::Tiles | Walk::Stream => 0,
        Walk::Long => program.shape.row_count() * columns.div_ceil(LONG_BLOCK),
        Walk::Columns => {
            program.shape.plane_count() * program.shape.row_count().div_ceil(BLOCK_ROWS) * columns
        }
    } * program.reductions.len();
}
