//! Which launches of a plan run side by side: neighbours in the tape of which none writes what another reads or writes.
//!
//! Threads wait for each other after a launch, and in a small one for longer than they compute. The gradients by the two
//! operands of a product, or the sums over rows of several cotangents, need not wait for each other.

use std::ops::Range;

use plan::{Gemm, Launch, LaunchOp, Plan, Slot};

/// Most launches of a group.
pub const MOST: usize = 4;

/// How a launch uses the memory that no worker owns. There is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    None,
    /// A panel for each worker, for as long as a task.
    Panels,
    /// What one stage leaves for the next.
    Whole,
}

/// The groups of a plan, in order.
pub fn groups(plan: &Plan, scratch: impl Fn(usize, &Launch) -> Scratch) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut members: Vec<Touched> = Vec::new();
    let mut start = 0;
    for (index, launch) in plan.launches.iter().enumerate() {
        let touched = Touched::by(plan, launch, scratch(index, launch));
        let joins = members.len() < MOST
            && plan.launches[start].guards == launch.guards
            && members.iter().all(|member| !member.disturbs(&touched));
        if !joins && index > start {
            groups.push(start..index);
            members.clear();
            start = index;
        }
        members.push(touched);
    }
    if start < plan.launches.len() {
        groups.push(start..plan.launches.len());
    }
    groups
}

/// The memory of a launch.
struct Touched {
    reads: Vec<Slot>,
    writes: Vec<Slot>,
    scratch: Scratch,
}

impl Touched {
    fn by(plan: &Plan, launch: &Launch, scratch: Scratch) -> Touched {
        let (reads, writes) = match &launch.op {
            LaunchOp::Tile { kernel, bindings } => {
                let written = |index: &usize| plan.kernels[*kernel].bindings[*index].written;
                let all = 0..bindings.len();
                // What is written may be read as well, which a conflict with writes covers.
                let (writes, reads): (Vec<usize>, Vec<usize>) = all.partition(written);
                let slots = |list: Vec<usize>| list.into_iter().map(|index| bindings[index]).collect();
                (slots(reads), slots(writes))
            }
            LaunchOp::Gemm(Gemm { a, b, c, out, .. }) => {
                let reads = [a, b].into_iter().chain(c).map(|matrix| matrix.slot);
                (reads.collect(), vec![out.slot])
            }
            LaunchOp::ScatterAdd(scatter) => (vec![scatter.ids, scatter.source], vec![scatter.out]),
            // All of them count as written: what an attention reads is seldom wanted beside it.
            LaunchOp::Attention(launch) => (Vec::new(), launch.slots()),
            LaunchOp::AttentionGrad(launch) => (Vec::new(), launch.slots()),
            LaunchOp::CrossEntropy(launch) => (Vec::new(), launch.slots()),
            LaunchOp::DeltaRule(launch) => (Vec::new(), launch.slots()),
            LaunchOp::DeltaRuleGrad(launch) => (Vec::new(), launch.slots()),
        };
        Touched { reads, writes, scratch }
    }

    fn disturbs(&self, other: &Touched) -> bool {
        let meet = |x: &[Slot], y: &[Slot]| x.iter().any(|x| y.iter().any(|y| x.overlaps(y)));
        let shares = matches!((self.scratch, other.scratch), (Scratch::None, _) | (_, Scratch::None))
            || self.scratch == Scratch::Panels && other.scratch == Scratch::Panels;
        !shares
            || meet(&self.writes, &other.writes)
            || meet(&self.writes, &other.reads)
            || meet(&self.reads, &other.writes)
    }
}
