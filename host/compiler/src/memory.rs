//! The arena: one offset for each buffer, fixed before the first step.
//!
//! A buffer lives from the launch that first writes it to the last that reads it; inputs and outputs live through the
//! whole replay, so that the host may fill and read them outside it. Buffers are placed largest first, each into the
//! lowest gap that is free for its whole life, which stays close to the live-set bound.

use std::collections::{BTreeMap, HashMap};

use graph::{DType, NodeId, Op};
use plan::{DeviceCaps, Region, Slot};

use crate::Module;
use crate::analysis::{Analysis, Kind};
use crate::schedule::buffers;

/// Buffers start at multiples of this: what WebGPU asks of a binding, and a whole number of cache lines.
const ALIGNMENT: usize = 256;

/// Largest input of the block at the start of the arena.
const SMALL_INPUT: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Life {
    owner: NodeId,
    bytes: usize,
    first: usize,
    last: usize,
    /// Lies in the block of small inputs.
    in_block: bool,
}

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let analysis = Analysis::new(&module.graph);
    let lives = lives(module, &analysis);
    let mut slots = place(&lives);
    let in_block = lives.iter().filter(|life| life.in_block);
    module.plan.block_bytes = in_block.map(|life| life.bytes.next_multiple_of(ALIGNMENT)).sum();
    module.plan.arena_bytes =
        slots.values().map(|slot| slot.offset + slot.bytes.next_multiple_of(ALIGNMENT)).max().unwrap_or(0);
    module.plan.live_bytes = live_bytes(&lives, module.order.len());
    for id in module.graph.ids() {
        let node = module.graph.node(id);
        if matches!(node.op, Op::State | Op::Write) {
            let decl = &module.graph.states[node.ints[0] as usize];
            let state = module.states.find(&decl.name).ok_or_else(|| format!("no State {}", decl.name))?;
            slots.insert(id, state.slot);
        }
    }
    module.slots = slots;
    Ok(())
}

fn lives(module: &Module, analysis: &Analysis) -> Vec<Life> {
    let graph = &module.graph;
    let end = module.order.len();
    let mut lives: BTreeMap<NodeId, Life> = BTreeMap::new();
    let mut touch = |owner: NodeId, at: usize| {
        let bytes = graph.ty(owner).elements() * DType::BYTES;
        let in_block = graph.node(owner).op == Op::Input && bytes <= SMALL_INPUT;
        let life = lives.entry(owner).or_insert(Life { owner, bytes, first: at, last: at, in_block });
        (life.first, life.last) = (life.first.min(at), life.last.max(at));
    };
    for (at, index) in module.order.iter().enumerate() {
        let (reads, writes) = buffers(graph, analysis, &module.clusters[*index]);
        reads.into_iter().chain(writes).for_each(|owner| touch(owner, at));
    }
    for id in graph.ids() {
        let node = graph.node(id);
        if node.op == Op::Input {
            (0..=end).step_by(end.max(1)).for_each(|at| touch(id, at));
        }
        if node.op == Op::Output
            && let Some(source) = analysis.source(node.inputs[0])
            && analysis.kind(source.owner) != Kind::Memory
        {
            (0..=end).step_by(end.max(1)).for_each(|at| touch(source.owner, at));
        }
    }
    lives.into_values().collect()
}

fn place(lives: &[Life]) -> HashMap<NodeId, Slot> {
    let mut by_size: Vec<&Life> = lives.iter().collect();
    by_size.sort_by_key(|life| match life.in_block {
        true => (false, std::cmp::Reverse(0), life.owner),
        false => (true, std::cmp::Reverse(life.bytes), life.owner),
    });
    // By offset, so that a look for a gap ends at the first.
    let mut placed: Vec<(Life, usize)> = Vec::new();
    for life in by_size {
        let mut offset = 0;
        for (other, start) in &placed {
            if offset + life.bytes <= *start {
                break;
            }
            if other.first <= life.last && life.first <= other.last {
                offset = offset.max(start + other.bytes.next_multiple_of(ALIGNMENT));
            }
        }
        let at = placed.partition_point(|(_, start)| *start < offset);
        placed.insert(at, (*life, offset));
    }
    let slot = |(life, offset): (Life, usize)| {
        (life.owner, Slot { region: Region::Arena, offset, bytes: life.bytes })
    };
    placed.into_iter().map(slot).collect()
}

fn live_bytes(lives: &[Life], launches: usize) -> usize {
    // How much more is alive at each launch than at the one before.
    let mut changes = vec![0; launches + 2];
    for life in lives {
        changes[life.first] += life.bytes as i64;
        changes[life.last + 1] -= life.bytes as i64;
    }
    let mut alive = 0;
    let totals = changes.into_iter().map(|change| {
        alive += change;
        alive
    });
    totals.max().unwrap_or(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap_and_the_dead_are_reused() {
        let life =
            |owner, bytes, first, last| Life { owner: NodeId(owner), bytes, first, last, in_block: false };
        let lives = [life(0, 1000, 0, 2), life(1, 500, 1, 3), life(2, 900, 3, 4), life(3, 100, 0, 4)];
        let slots = place(&lives);
        for a in &lives {
            for b in lives.iter().filter(|b| b.owner != a.owner && a.first <= b.last && b.first <= a.last) {
                let (a, b) = (slots[&a.owner], slots[&b.owner]);
                assert!(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset, "{a} and {b}");
            }
        }
        assert_eq!(slots[&NodeId(2)].offset, slots[&NodeId(0)].offset);
        assert_eq!(live_bytes(&lives, 5), 1600);
    }

    #[test]
    fn small_inputs_stand_first_and_in_order() {
        let life = |owner, bytes, in_block| Life { owner: NodeId(owner), bytes, first: 0, last: 9, in_block };
        let slots = place(&[life(0, 4, true), life(1, 9000, false), life(2, 64, true), life(3, 8, true)]);
        let offsets = [0, 2, 3, 1].map(|owner| slots[&NodeId(owner)].offset);
        assert_eq!(offsets, [0, 256, 512, 768]);
    }
}
