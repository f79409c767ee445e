//! Our own worker threads: a launch is a number of tasks, taken one by one by whoever is free.
//!
//! Waking a parked thread costs tens of microseconds, more than many launches, so workers spin for a while between
//! launches before they park. The caller never waits for a worker that did not join: on a busy machine a launch then
//! costs no more than on one thread. Which thread runs a task is left to chance; what a task computes may not
//! depend on it.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Spins of a worker between two launches before it parks: some 200 microseconds.
const SPINS: usize = 10_000;

/// `state` is `epoch * EPOCH + OPEN? + joined workers`.
const OPEN: u64 = 1 << 15;
const EPOCH: u64 = 1 << 16;
const JOINED: u64 = OPEN - 1;

/// `(worker, task)`; worker 0 is the caller.
pub type Job<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A task panicked; its launch is incomplete.
#[derive(Debug, PartialEq, Eq)]
pub struct TaskPanicked;

pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    state: AtomicU64,
    stop: AtomicBool,
    panicked: AtomicBool,
    next: AtomicUsize,
    /// Written by the caller while the state is closed with nobody joined, read by joined workers.
    launch: UnsafeCell<Option<(Job<'static>, usize)>>,
    parked: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `launch` is the only field that is not Sync by itself; its protocol is stated there.
unsafe impl Sync for Shared {}
// SAFETY: the job it holds is Sync, hence may be called from any thread.
unsafe impl Send for Shared {}

impl Pool {
    /// `threads` counts the caller. A machine that refuses a thread gets a smaller pool: results do not change.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            launch: UnsafeCell::new(None),
            parked: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads.clamp(1, JOINED as usize))
            .map_while(|worker| {
                let shared = shared.clone();
                let name = format!("host-cpu-{worker}");
                std::thread::Builder::new().name(name).spawn(move || shared.work(worker)).ok()
            })
            .collect();
        Pool { shared, workers }
    }

    /// The caller and the workers.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(worker, task)` once for each task in `0..tasks` and returns when all are done.
    pub fn run(&mut self, tasks: usize, job: Job) -> Result<(), TaskPanicked> {
        let shared = &*self.shared;
        if tasks <= 1 || self.workers.is_empty() {
            let all = AssertUnwindSafe(|| (0..tasks).for_each(|task| job(0, task)));
            return catch_unwind(all).map_err(|_| TaskPanicked);
        }
        // SAFETY: the state is closed and nobody has joined (the end of this function, or `new`), so no worker
        // reads `launch`. The job outlives its use: this function returns only after it has closed the state
        // again and every worker that joined has left.
        unsafe { *shared.launch.get() = Some((std::mem::transmute::<Job<'_>, Job<'static>>(job), tasks)) };
        shared.next.store(0, Ordering::Relaxed);
        let epoch = shared.state.load(Ordering::Relaxed) & !(EPOCH - 1);
        shared.state.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        if shared.parked.load(Ordering::SeqCst) > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.take_tasks(0, job, tasks);
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.state.load(Ordering::Acquire) & JOINED != 0 {
            spins += 1;
            if spins > SPINS {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        match shared.panicked.swap(false, Ordering::Relaxed) {
            true => Err(TaskPanicked),
            false => Ok(()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so there is no panic to hand on.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn take_tasks(&self, worker: usize, job: Job, tasks: usize) {
        let all = AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                job(worker, task);
            }
        });
        if catch_unwind(all).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    fn work(&self, worker: usize) {
        let mut seen = 0;
        let mut spins = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let state = self.state.load(Ordering::SeqCst);
            if is_new(state, seen) {
                if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
                {
                    // SAFETY: joined, so the caller writes `launch` only after the decrement below.
                    if let Some((job, tasks)) = unsafe { *self.launch.get() } {
                        self.take_tasks(worker, job, tasks);
                    }
                    seen = state / EPOCH;
                    self.state.fetch_sub(1, Ordering::Release);
                }
                spins = 0;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.park(seen);
                spins = 0;
            }
        }
    }

    /// Sleeps until a launch opens. The caller stores the state before it reads `parked`, and this stores `parked`
    /// before it reads the state, so one of the two sees the other.
    fn park(&self, seen: u64) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.fetch_add(1, Ordering::SeqCst);
        while !self.stop.load(Ordering::SeqCst) && !is_new(self.state.load(Ordering::SeqCst), seen) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }
}

fn is_new(state: u64, seen: u64) -> bool {
    state & OPEN != 0 && state / EPOCH != seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                let job = |worker: usize, task: usize| {
                    assert!(worker < threads);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                };
                assert_eq!(pool.run(tasks, &job), Ok(()));
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_is_reported_and_the_pool_goes_on() {
        let mut pool = Pool::new(3);
        for round in 0..20 {
            let outcome = pool.run(50, &|_, task| assert!(task != round, "as the test intends"));
            assert_eq!(outcome, Err(TaskPanicked));
            assert_eq!(pool.run(50, &|_, _| {}), Ok(()));
        }
    }

    #[test]
    fn parked_workers_wake() {
        let mut pool = Pool::new(2);
        std::thread::sleep(std::time::Duration::from_millis(50));
        let helped = AtomicBool::new(false);
        let job = |worker: usize, _: usize| {
            helped.fetch_or(worker == 1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        assert_eq!(pool.run(50, &job), Ok(()));
        assert!(helped.into_inner());
    }
}
