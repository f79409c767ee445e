//! The arena: one offset for each buffer, fixed before the first step.

mod lives;
mod peak;
mod place;

use graph::Op;
use plan::{DeviceCaps, Region, Slot};

use crate::Module;
use crate::analysis::Analysis;

pub use crate::parts::Parts;
pub use lives::{Span, Spans};

/// Buffers start at multiples of this: what WebGPU asks of a binding, and a whole number of cache lines.
const ALIGNMENT: usize = 256;

/// An arena that is more than this part above its bound is worth a second look.
const CLOSE: usize = 25;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    let analysis = Analysis::new(&module.graph);
    let mut buffers = lives::buffers(module, &analysis, true);
    let live = peak::live(&buffers, module.order.len());
    let highest = peak::highest(&live);
    module.plan.peak = peak::held(&module.graph, &buffers, highest);
    let bound = live[highest];
    let (mut offsets, mut arena_bytes) = place::place(&buffers, bound);
    if arena_bytes > bound + bound / CLOSE {
        // Long chains of results that lie on their operands can be harder to place than each on its own.
        let others = lives::buffers(module, &analysis, false);
        let (places, bytes) = place::place(&others, bound);
        if bytes < arena_bytes {
            (buffers, offsets, arena_bytes) = (others, places, bytes);
        }
    }
    let in_block = buffers.iter().filter(|buffer| buffer.in_block);
    module.plan.block_bytes = in_block.map(|buffer| buffer.bytes.next_multiple_of(ALIGNMENT)).sum();
    module.plan.arena_bytes = arena_bytes;
    module.plan.live_bytes = bound;
    module.slots.clear();
    for (buffer, offset) in buffers.iter().zip(offsets) {
        for owner in &buffer.owners {
            module.slots.insert(*owner, Slot { region: Region::Arena, offset, bytes: buffer.bytes });
        }
    }
    for id in module.graph.ids() {
        let node = module.graph.node(id);
        if matches!(node.op, Op::State | Op::Write) {
            let decl = &module.graph.states[node.ints[0] as usize];
            let state = module.states.find(&decl.name).ok_or_else(|| format!("no State {}", decl.name))?;
            module.slots.insert(id, state.slot);
        }
    }
    Ok(())
}

/// How long everything is needed under the schedule.
pub fn spans(module: &Module, analysis: &Analysis, parts: &Parts) -> Spans {
    lives::spans(module, analysis, parts).0
}

/// The launch at which most is alive.
pub fn peak(module: &Module, analysis: &Analysis) -> usize {
    peak::highest(&peak::live(&lives::buffers(module, analysis, true), module.order.len()))
}
