//! Loops and conditions in a trace: a body is traced once and runs many times, or only at some steps.
//!
//! ```text
//! // A recurrent network over xs[T, D]: the last state, and all of them as hs[T, D].
//! let (last, hs) = cx.scan(Scan::over(t), &[start], &[xs], |_step, state, x| {
//!     let next = (state[0].dot_last(w) + x[0]).tanh();
//!     (vec![next], vec![next])
//! });
//!
//! // A mean over all of it, renewed at every tenth step of the optimizer.
//! let mean = cx.when(cx.step(), 10, 0, &[old], |_old| vec![hs.mean(&[0, 1])])[0];
//! ```
//!
//! A body may use what was computed before it, take gradients, ask for parameters and other components, and hold loops
//! of its own. What it computes is seen outside only through its results. Writes and metrics stand outside.

use std::panic::Location;

use crate::abi::POISON;
use crate::{Cx, Op, Tensor};

/// A loop: how many steps, in which direction, and what its derivative keeps. By default it keeps every value of the
/// body that it reads.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    steps: usize,
    reverse: bool,
    recompute: bool,
    every: Option<usize>,
}

impl Scan {
    /// `steps` times, from the first slice to the last.
    pub fn over(steps: usize) -> Scan {
        Scan { steps, reverse: false, recompute: false, every: None }
    }

    /// From the last slice to the first; stacked results keep the places of their slices.
    pub fn reverse(self) -> Scan {
        Scan { reverse: true, ..self }
    }

    /// The derivative keeps the carries of each step and computes the rest of the body again, but for what
    /// [`Cx::save`] marks.
    pub fn recompute(self) -> Scan {
        Scan { recompute: true, ..self }
    }

    /// The derivative keeps the carries of every k-th step only, and computes k steps at a time again. k divides the
    /// number of steps.
    pub fn every(self, k: usize) -> Scan {
        Scan { every: Some(k), ..self }
    }
}

impl<'c> Cx<'c> {
    /// Runs `body` once for each step. It gets the index of the step (i32[]), the carries, and the step's slice of the
    /// first axis of each of `xs`; it returns the next carries, of the same types, and tensors to be stacked. Returns
    /// the last carries, and the stacks: `[steps, ...]`.
    #[track_caller]
    pub fn scan(
        &'c self,
        scan: Scan,
        carry: &[Tensor<'c>],
        xs: &[Tensor<'c>],
        body: impl FnOnce(Tensor<'c>, &[Tensor<'c>], &[Tensor<'c>]) -> (Vec<Tensor<'c>>, Vec<Tensor<'c>>),
    ) -> (Vec<Tensor<'c>>, Vec<Tensor<'c>>) {
        let at = Location::caller();
        let Some(k) = scan.every else { return self.scan_once(scan, carry, xs, body, at) };
        let steps = scan.steps;
        if k == 0 || !steps.is_multiple_of(k) {
            self.fail(&format!(
                "a Scan of {steps} steps cannot keep its carries every {k}: {k} does not divide {steps}"
            ));
            return self.scan_once(scan, carry, xs, body, at);
        }
        let outer = Scan { steps: steps / k, recompute: true, ..scan };
        let inner = Scan { steps: k, ..scan };
        let regroup = |tensor: &Tensor<'c>, head: &[usize], replaced: usize| {
            let dims = tensor.dims();
            tensor.reshape(&[head, dims.get(replaced..).unwrap_or_default()].concat())
        };
        let groups: Vec<Tensor<'c>> = xs.iter().map(|x| regroup(x, &[steps / k, k], 1)).collect();
        let steps_of = |group: Tensor<'c>, carry: &[Tensor<'c>], xs: &[Tensor<'c>]| {
            let body = |step, carry: &[_], xs: &[_]| body(group * k as f64 + step, carry, xs);
            self.scan_once(inner, carry, xs, body, at)
        };
        let (last, ys) = self.scan_once(outer, carry, &groups, steps_of, at);
        (last, ys.iter().map(|y| regroup(y, &[steps], 2)).collect())
    }

    fn scan_once(
        &'c self,
        scan: Scan,
        carry: &[Tensor<'c>],
        xs: &[Tensor<'c>],
        body: impl FnOnce(Tensor<'c>, &[Tensor<'c>], &[Tensor<'c>]) -> (Vec<Tensor<'c>>, Vec<Tensor<'c>>),
        at: &Location<'_>,
    ) -> (Vec<Tensor<'c>>, Vec<Tensor<'c>>) {
        let carries = carry.len();
        let ints = [scan.steps as i64, carries as i64, scan.reverse.into(), scan.recompute.into()];
        let inside = self.builder().region_begin(Op::Scan, &ids(&[carry, xs].concat()), &ints, at);
        let inside = self.several(inside, 1 + carries + xs.len());
        let (own, slices) = inside[1..].split_at(carries);
        let (next, ys) = body(inside[0], own, slices);
        let next = self.of_body("carries", next, carries, at);
        let count = carries + ys.len();
        let results = self.builder().region_end(&ids(&[next, ys].concat()), at);
        let mut last = self.several(results, count);
        let ys = last.split_off(carries);
        (last, ys)
    }

    /// Where `counter` (i32[]) is `offset` modulo `period`, the new values that `body` makes of `olds`, of the same
    /// types; elsewhere `olds`, and the body does not run. The counter is one that the host knows beforehand:
    /// [`Cx::step`], the index of a [`Scan`]'s step, or arithmetic on these.
    #[track_caller]
    pub fn when(
        &'c self,
        counter: Tensor<'c>,
        period: usize,
        offset: usize,
        olds: &[Tensor<'c>],
        body: impl FnOnce(&[Tensor<'c>]) -> Vec<Tensor<'c>>,
    ) -> Vec<Tensor<'c>> {
        let at = Location::caller();
        let inputs = [&[counter], olds].concat();
        let inside =
            self.builder().region_begin(Op::When, &ids(&inputs), &[period as i64, offset as i64], at);
        let news = body(&self.several(inside, olds.len()));
        let news = self.of_body("new values", news, olds.len(), at);
        self.several(self.builder().region_end(&ids(&news), at), olds.len())
    }

    /// x. A [`Scan`] that recomputes its body keeps this value of it for the derivative.
    #[track_caller]
    pub fn save(&'c self, x: Tensor<'c>) -> Tensor<'c> {
        self.emit(Op::Save, &[x], &[], &[])
    }

    /// Exactly `count` tensors: a call that failed may give fewer ids.
    fn several(&'c self, mut ids: Vec<u32>, count: usize) -> Vec<Tensor<'c>> {
        ids.resize(count, POISON);
        ids.into_iter().map(|id| self.tensor(id)).collect()
    }

    /// What a body returned, in the number that belongs there.
    fn of_body(
        &'c self,
        what: &str,
        mut tensors: Vec<Tensor<'c>>,
        count: usize,
        at: &Location<'_>,
    ) -> Vec<Tensor<'c>> {
        if tensors.len() != count {
            let message = format!("the body returns {} {what}, and began with {count}", tensors.len());
            self.builder().fail(&message, at);
            tensors.resize(count, self.tensor(POISON));
        }
        tensors
    }
}

fn ids(tensors: &[Tensor<'_>]) -> Vec<u32> {
    tensors.iter().map(|tensor| tensor.id()).collect()
}
