//! Where hand kernels find their operands, and memory that tasks share out.

use plan::{Heads, Region, Slot};

use crate::product::Left;

/// Where the plan's regions begin.
#[derive(Clone, Copy)]
pub struct Memory {
    pub state: *mut u8,
    pub arena: *mut u8,
}

// SAFETY: tasks write disjoint parts of the slots of a launch and read others.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn at(&self, slot: &Slot) -> *mut f32 {
        let start = if slot.region == Region::State { self.state } else { self.arena };
        start.wrapping_add(slot.offset).cast()
    }

    /// One head of one sequence: rows are tokens.
    ///
    /// # Safety
    /// The head lies in the tensor, and the tensor in its slot.
    pub unsafe fn head(&self, heads: &Heads, batch: usize, head: usize) -> Left {
        // SAFETY: the caller's.
        let ptr = unsafe { self.at(&heads.slot).cast_const().add(batch * heads.batch + head * heads.head) };
        Left { ptr, row: heads.token, column: heads.element }
    }
}

/// Memory that workers and tasks share out.
#[derive(Clone, Copy)]
pub struct Scratch(pub *mut f32);

// SAFETY: each worker or task uses its own part.
unsafe impl Sync for Scratch {}

impl Scratch {
    pub fn part(&self, index: usize, floats: usize) -> *mut f32 {
        self.0.wrapping_add(index * floats)
    }
}
