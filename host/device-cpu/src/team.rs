//! One group of launches on the pool: their tasks run side by side, and threads wait for each other once.
//!
//! A kernel hands out its tasks in the middle of its own function, since what they share lies on its stack. So that those
//! of several kernels can run together, the call that hands them out first starts the next kernel of the group, whose own
//! call starts the one after it; the last runs the tasks of all, and then all calls return. Whatever else a kernel hands
//! out runs at once.

use std::ops::Range;

use crate::groups::MOST;
use crate::pool::{Job, Pool, TaskPanicked};

/// Starts the kernel of a launch.
pub type Start<'t> = &'t dyn Fn(usize, &mut Team<'_>) -> Result<(), TaskPanicked>;

pub struct Team<'t> {
    pool: &'t mut Pool,
    start: Start<'t>,
    /// Launches that have not started.
    left: Range<usize>,
    /// Tasks of those that have, until they run.
    waiting: [Option<Waiting>; MOST],
    has_run: bool,
}

/// Tasks of a launch.
#[derive(Clone, Copy)]
struct Waiting {
    job: Job<'static>,
    tasks: usize,
}

/// Runs the launches of a group, at most [`MOST`].
pub fn run(pool: &mut Pool, group: Range<usize>, start: Start<'_>) -> Result<(), TaskPanicked> {
    let mut team = Team { pool, start, left: group, waiting: [None; MOST], has_run: false };
    team.start_others()
}

impl Team<'_> {
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Calls `job(worker, task)` once for each task in `0..tasks` and returns when all are done.
    pub fn run(&mut self, tasks: usize, job: Job) -> Result<(), TaskPanicked> {
        let room = self.waiting.iter_mut().find(|waiting| waiting.is_none());
        let Some(room) = room.filter(|_| !self.has_run) else { return self.pool.run(tasks, job) };
        // SAFETY: only the lifetime changes; `run_waiting` takes the job out before this call returns.
        let job = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        *room = Some(Waiting { job, tasks });
        let others = self.start_others();
        let own = self.run_waiting();
        others.and(own)
    }

    /// [`Team::run`], or all of it on this thread where handing it out costs more than it saves.
    pub fn share(&mut self, tasks: usize, is_small: bool, job: Job) -> Result<(), TaskPanicked> {
        match is_small {
            true => self.run(1, &|worker, _| (0..tasks).for_each(|task| job(worker, task))),
            false => self.run(tasks, job),
        }
    }

    fn start_others(&mut self) -> Result<(), TaskPanicked> {
        while let Some(next) = self.left.next() {
            (self.start)(next, self)?;
        }
        Ok(())
    }

    /// Runs what waits, unless a kernel that started later did.
    fn run_waiting(&mut self) -> Result<(), TaskPanicked> {
        self.has_run = true;
        let waiting = std::mem::take(&mut self.waiting);
        let waiting = || waiting.iter().flatten();
        let tasks = waiting().map(|of_one| of_one.tasks).sum();
        self.pool.run(tasks, &|worker, mut task| {
            for Waiting { job, tasks } in waiting() {
                if task < *tasks {
                    return job(worker, task);
                }
                task -= tasks;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn kernels_of_a_group_run_each_task_once_and_return_when_all_have() {
        for threads in [1, 3] {
            let mut pool = Pool::new(threads);
            for kernels in 1..=MOST {
                let counts: Vec<AtomicUsize> = (0..kernels * 10).map(|_| AtomicUsize::new(0)).collect();
                // Kernel i has 3 i tasks, the first none, and then one more, which needs those of all.
                let start = |kernel: usize, team: &mut Team<'_>| {
                    let at = |task: usize| &counts[kernel * 10 + task];
                    team.run(3 * kernel, &|_, task| {
                        at(task).fetch_add(1, Ordering::Relaxed);
                    })?;
                    let done = counts.iter().filter(|count| count.load(Ordering::Relaxed) > 0).count();
                    assert!(done >= (0..kernels).map(|kernel| 3 * kernel).sum());
                    team.run(1, &|_, _| {
                        at(9).fetch_add(1, Ordering::Relaxed);
                    })
                };
                assert_eq!(run(&mut pool, 0..kernels, &start), Ok(()));
                for (index, count) in counts.into_iter().enumerate() {
                    let (kernel, task) = (index / 10, index % 10);
                    let want = usize::from(task < 3 * kernel || task == 9);
                    assert_eq!(count.into_inner(), want, "task {task} of kernel {kernel}");
                }
            }
        }
    }

    #[test]
    fn a_panic_fails_the_group() {
        let mut pool = Pool::new(2);
        let start = |kernel: usize, team: &mut Team<'_>| {
            team.run(4, &|_, task| assert!(kernel != 1 || task != 2, "as the test intends"))
        };
        assert_eq!(run(&mut pool, 0..3, &start), Err(TaskPanicked));
        assert_eq!(run(&mut pool, 2..3, &start), Ok(()));
    }
}
