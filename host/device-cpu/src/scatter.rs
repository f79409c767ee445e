//! ScatterAdd: each task owns some rows and columns of the result, so sums need neither atomics nor copies, and
//! rows with one id are added in the order of the source whatever the number of threads.

use plan::ScatterAdd;

use crate::pool::TaskPanicked;
use crate::team::Team;

/// Columns one task owns: two cache lines short of what a prefetcher brings anyway.
const COLUMNS: usize = 64;
/// Tasks wanted; where the columns do not give them, rows are shared out too.
const TASKS: usize = 8;
/// Elements below which handing tasks out costs more than it saves.
const INLINE_ELEMENTS: usize = 32_768;

#[derive(Clone, Copy)]
pub struct Operands {
    pub out: *mut f32,
    pub ids: *const i32,
    pub source: *const f32,
}

// SAFETY: tasks read ids and source and write disjoint parts of out.
unsafe impl Sync for Operands {}

/// # Safety
/// The operands are the slots of a launch that passed `Plan::validate`; nobody else uses them meanwhile.
pub unsafe fn run(scatter: &ScatterAdd, operands: Operands, team: &mut Team<'_>) -> Result<(), TaskPanicked> {
    let column_tasks = scatter.width.div_ceil(COLUMNS).max(1);
    let rows_each = scatter.rows.div_ceil(TASKS.div_ceil(column_tasks)).max(1);
    let row_tasks = scatter.rows.div_ceil(rows_each);
    let operands = &operands;
    let task = |_: usize, task: usize| {
        let first_row = task / column_tasks * rows_each;
        let end_row = scatter.rows.min(first_row + rows_each);
        let column = task % column_tasks * COLUMNS;
        let columns = COLUMNS.min(scatter.width - column);
        // SAFETY: the caller's; rows and columns of this task lie in the result and belong to no other task.
        unsafe { scatter_part(scatter, operands, first_row..end_row, column, columns) };
    };
    let tasks = row_tasks * column_tasks;
    if (scatter.rows + scatter.count) * scatter.width < INLINE_ELEMENTS {
        return team.run(1, &|worker, _| (0..tasks).for_each(|index| task(worker, index)));
    }
    team.run(tasks, &task)
}

unsafe fn scatter_part(
    scatter: &ScatterAdd,
    operands: &Operands,
    rows: std::ops::Range<usize>,
    column: usize,
    columns: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for row in rows.clone() {
            let out = operands.out.add(row * scatter.width + column);
            std::slice::from_raw_parts_mut(out, columns).fill(0.0);
        }
        for i in 0..scatter.count {
            let id = (*operands.ids.add(i)).clamp(0, scatter.rows as i32 - 1) as usize;
            if !rows.contains(&id) {
                continue;
            }
            let out = operands.out.add(id * scatter.width + column);
            let out = std::slice::from_raw_parts_mut(out, columns);
            let source = operands.source.add(i * scatter.width + column);
            let source = std::slice::from_raw_parts(source, columns);
            out.iter_mut().zip(source).for_each(|(sum, x)| *sum += x);
        }
    }
}
