//! Walks a program's tiles as tasks of the pool.

use plan::DeviceError;

use super::isa::Isa;
use super::lanes::store;
use super::program::*;
use crate::memory::Map;
use crate::pool::{Pool, TaskPanicked};
use crate::team::Team;

/// Elements of a task: enough for its start to cost little, few enough for all threads to end together.
const SMALL_TASK: usize = 4096;
const LARGE_TASK: usize = 32_768;
/// Tasks into which smaller launches are cut.
const TASKS: usize = 16;
/// Steps times elements below which handing tasks out costs more than it saves.
const INLINE_WORK: usize = 65_536;

/// Registers and views of each worker, and one memory for the results of a launch's first stage where it has two.
pub struct Workspace {
    map: Map,
    worker_bytes: usize,
    view_bytes: usize,
    shared: usize,
}

impl Workspace {
    /// `shared` is how many floats launches other than the programs' need of the shared memory.
    pub fn new<'a>(
        programs: impl Iterator<Item = &'a Program> + Clone,
        shared: usize,
        pool: &mut Pool,
    ) -> Result<Workspace, DeviceError> {
        let threads = pool.threads();
        let largest = |size: fn(&Program) -> usize| programs.clone().map(size).max().unwrap_or(0);
        let view_bytes = (largest(|program| program.places.len()) * size_of::<View>()).next_multiple_of(256);
        let worker_bytes = view_bytes + (largest(|program| program.scratch) * 4).next_multiple_of(4096);
        let shared_bytes = largest(|program| program.partials).max(shared) * 4;
        let map = Map::new("device scratch", threads * worker_bytes + shared_bytes, pool)?;
        Ok(Workspace { map, worker_bytes, view_bytes, shared: threads * worker_bytes })
    }

    /// The memory that no worker owns.
    pub fn shared(&self) -> *mut f32 {
        self.map.start().wrapping_add(self.shared).cast()
    }
}

/// What every task of a launch shares.
struct Launch<'a> {
    program: &'a Program,
    bindings: &'a [*mut u32],
    isa: Isa,
    memory: *mut u8,
    worker_bytes: usize,
    view_bytes: usize,
    partials: *mut f32,
}

// SAFETY: workers use disjoint parts of the workspace, and the plan's contract makes different tiles write different
// elements.
unsafe impl Sync for Launch<'_> {}

/// Runs a program once.
///
/// # Safety
/// `bindings` point at the slots of a launch that passed `Plan::validate`, in memory nobody else uses meanwhile. The
/// workspace was made for this program and this pool, and `isa` is available.
pub unsafe fn run(
    program: &Program,
    bindings: &[*mut u32],
    isa: Isa,
    team: &mut Team<'_>,
    workspace: &Workspace,
) -> Result<(), TaskPanicked> {
    let memory = workspace.map.start();
    let launch = Launch {
        program,
        bindings,
        isa,
        memory,
        worker_bytes: workspace.worker_bytes,
        view_bytes: workspace.view_bytes,
        partials: workspace.shared(),
    };
    let columns = program.shape.columns();
    match program.walk {
        Walk::Tiles | Walk::Stream => {
            let cut = Cut::of(program);
            launch.share(team, cut.rows.count() * cut.columns.count(), |worker, task| {
                launch.run_tiles(worker, cut.rows.range(task / cut.columns.count()), {
                    cut.columns.range(task % cut.columns.count())
                });
            })
        }
        Walk::Long => {
            let blocks = columns.div_ceil(LONG_BLOCK);
            let rows = program.shape.row_count();
            launch.share(team, rows * blocks, |worker, task| {
                launch.run_long_block(worker, task / blocks, task % blocks);
            })?;
            team.run(rows, &|worker, row| launch.finish_long_row(worker, row, blocks))
        }
        Walk::Columns => {
            let blocks = program.shape.row_count().div_ceil(BLOCK_ROWS);
            let chunks = Chunks { total: columns, size: program.tile_columns };
            let per_plane = blocks * chunks.count();
            launch.share(team, program.shape.plane_count() * per_plane, |worker, task| {
                let (plane, rest) = (task / per_plane, task % per_plane);
                let range = chunks.range(rest % chunks.count());
                launch.run_column_block(worker, plane, rest / chunks.count(), blocks, range);
            })?;
            if blocks == 1 {
                return Ok(());
            }
            team.run(program.shape.plane_count() * chunks.count(), &|worker, task| {
                launch.finish_columns(
                    worker,
                    task / chunks.count(),
                    blocks,
                    chunks.range(task % chunks.count()),
                );
            })
        }
    }
}

/// `total` things in pieces of `size`.
#[derive(Clone, Copy)]
struct Chunks {
    total: usize,
    size: usize,
}

type Range = std::ops::Range<usize>;

impl Chunks {
    fn count(self) -> usize {
        self.total.div_ceil(self.size)
    }

    fn range(self, index: usize) -> Range {
        index * self.size..self.total.min((index + 1) * self.size)
    }
}

/// The tasks of a walk over tiles.
struct Cut {
    rows: Chunks,
    columns: Chunks,
}

impl Cut {
    fn of(program: &Program) -> Cut {
        let (rows, columns) = (program.shape.row_count(), program.shape.columns());
        let elements = (rows * columns / TASKS).clamp(SMALL_TASK, LARGE_TASK);
        if program.walk == Walk::Stream {
            let size = (elements / columns).max(1).next_multiple_of(program.tile_rows);
            return Cut {
                rows: Chunks { total: rows, size },
                columns: Chunks { total: columns, size: columns },
            };
        }
        // A task keeps to one chunk of columns, so that what is computed once per column stays valid.
        let tile = program.tile_rows * program.tile_columns;
        let tiles = (elements / tile).max(1);
        let (row_tiles, column_tiles) = if rows == 1 { (1, tiles) } else { (tiles, 1) };
        Cut {
            rows: Chunks { total: rows, size: row_tiles * program.tile_rows },
            columns: Chunks { total: columns, size: column_tiles * program.tile_columns },
        }
    }
}

impl<'a> Launch<'a> {
    /// Runs tasks on the pool, or here where they are not worth sharing.
    fn share(
        &self,
        team: &mut Team<'_>,
        tasks: usize,
        task: impl Fn(usize, usize) + Sync,
    ) -> Result<(), TaskPanicked> {
        let program = self.program;
        let points = program.shape.plane_count() * program.shape.row_count() * program.shape.columns();
        if points * (program.rows.len() + program.body.len()) < INLINE_WORK {
            return team.run(1, &|worker, _| (0..tasks).for_each(|index| task(worker, index)));
        }
        team.run(tasks, &task)
    }

    /// A tile of this worker with every view at home, and what is computed once already computed.
    fn start(&self, worker: usize, plane: usize, column: Range) -> Tile<'a> {
        let memory = self.memory.wrapping_add(worker * self.worker_bytes);
        // SAFETY: the workspace has room for this program's views at the start of each worker's part, which only
        // this worker uses, for one task at a time. Zero bytes are a View.
        let views =
            unsafe { std::slice::from_raw_parts_mut(memory.cast::<View>(), self.program.places.len()) };
        let mut tile = Tile {
            program: self.program,
            bindings: self.bindings,
            views,
            registers: memory.wrapping_add(self.view_bytes).cast(),
            plane,
            row: 0,
            rows: 1,
            column: column.start,
            columns: column.len(),
            first: true,
        };
        for value in 0..self.program.places.len() {
            tile.views[value] = tile.home(value);
        }
        self.steps(&self.program.once, &mut tile);
        tile
    }

    fn steps(&self, steps: &[Step], tile: &mut Tile) {
        // SAFETY: `run`'s caller; every walk below keeps its tiles within the shape.
        unsafe { self.isa.run(steps, tile) }
    }

    fn run_tiles(&self, worker: usize, rows: Range, columns: Range) {
        let program = self.program;
        let chunk = program.tile_columns;
        let mut tile = self.start(worker, 0, columns.start..columns.end.min(columns.start + chunk));
        let row_end = rows.end;
        for row in rows.step_by(program.tile_rows) {
            (tile.row, tile.rows) = (row, program.tile_rows.min(row_end - row));
            self.steps(&program.rows, &mut tile);
            for column in columns.clone().step_by(chunk) {
                (tile.column, tile.columns) = (column, chunk.min(columns.end - column));
                tile.first = program.walk == Walk::Tiles || column == columns.start;
                self.steps(&program.body, &mut tile);
            }
            self.steps(&program.folds, &mut tile);
            self.steps(&program.finish, &mut tile);
        }
    }

    fn run_long_block(&self, worker: usize, row: usize, block: usize) {
        let program = self.program;
        let blocks = Chunks { total: program.shape.columns(), size: LONG_BLOCK };
        let columns = blocks.range(block);
        let mut tile = self.start(worker, 0, columns.start..columns.start);
        (tile.row, tile.rows) = (row, 1);
        self.steps(&program.rows, &mut tile);
        for column in columns.clone().step_by(program.tile_columns) {
            (tile.column, tile.columns) = (column, program.tile_columns.min(columns.end - column));
            tile.first = column == columns.start;
            self.steps(&program.body, &mut tile);
        }
        self.steps(&program.folds, &mut tile);
        for (index, (value, _)) in program.reductions.iter().enumerate() {
            let at = (index * program.shape.row_count() + row) * blocks.count() + block;
            // SAFETY: `Program::partials` counts reductions x rows x blocks, and no other task has this block.
            unsafe { *self.partials.add(at) = *tile.views[*value].ptr.cast::<f32>() };
        }
    }

    fn finish_long_row(&self, worker: usize, row: usize, blocks: usize) {
        let program = self.program;
        let mut tile = self.start(worker, 0, 0..1);
        (tile.row, tile.rows) = (row, 1);
        self.steps(&program.rows, &mut tile);
        for (index, (value, fold)) in program.reductions.iter().enumerate() {
            let start = (index * program.shape.row_count() + row) * blocks;
            // SAFETY: as in `run_long_block`, whose tasks have ended; a register of a row holds a group.
            unsafe {
                let results = std::slice::from_raw_parts(self.partials.add(start), blocks);
                let total = results.iter().fold(fold.identity(), |total, x| fold.apply(total, *x));
                store(tile.views[*value].ptr.cast::<f32>(), [total; LANES]);
            }
        }
        self.steps(&program.finish, &mut tile);
    }

    fn run_column_block(&self, worker: usize, plane: usize, block: usize, blocks: usize, columns: Range) {
        let program = self.program;
        let rows = Chunks { total: program.shape.row_count(), size: BLOCK_ROWS }.range(block);
        let mut tile = self.start(worker, plane, columns.clone());
        for row in rows.clone().step_by(program.tile_rows) {
            (tile.row, tile.rows) = (row, program.tile_rows.min(rows.end - row));
            tile.first = row == rows.start;
            self.steps(&program.rows, &mut tile);
            self.steps(&program.body, &mut tile);
        }
        if blocks == 1 {
            (tile.row, tile.rows) = (0, 1);
            return self.steps(&program.finish, &mut tile);
        }
        for (index, (value, _)) in program.reductions.iter().enumerate() {
            // SAFETY: `Program::partials` counts reductions x planes x blocks x columns, no other task has these,
            // and the register holds the columns of the tile.
            unsafe {
                let to = self.column_partial(index, plane, blocks, block, columns.start);
                let from = tile.views[*value].ptr.cast::<f32>();
                std::ptr::copy_nonoverlapping(from, to, columns.len());
            }
        }
    }

    fn finish_columns(&self, worker: usize, plane: usize, blocks: usize, columns: Range) {
        let program = self.program;
        let mut tile = self.start(worker, plane, columns.clone());
        for (index, (value, fold)) in program.reductions.iter().enumerate() {
            // SAFETY: as in `run_column_block`, whose tasks have ended.
            let totals = unsafe {
                std::slice::from_raw_parts_mut(tile.views[*value].ptr.cast::<f32>(), columns.len())
            };
            totals.fill(fold.identity());
            for block in 0..blocks {
                // SAFETY: as above.
                let results = unsafe {
                    let from = self.column_partial(index, plane, blocks, block, columns.start);
                    std::slice::from_raw_parts(from, columns.len())
                };
                totals.iter_mut().zip(results).for_each(|(total, x)| *total = fold.apply(*total, *x));
            }
        }
        self.steps(&program.finish, &mut tile);
    }

    fn column_partial(
        &self,
        index: usize,
        plane: usize,
        blocks: usize,
        block: usize,
        column: usize,
    ) -> *mut f32 {
        let shape = &self.program.shape;
        let row = (index * shape.plane_count() + plane) * blocks + block;
        self.partials.wrapping_add(row * shape.columns() + column)
    }
}
