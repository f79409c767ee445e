//! Registers: values whose lifetimes do not overlap share memory.
//!
//! A step may write over an argument that ends with it: inner loops load a group of lanes before they store it.

use plan::ValueId;

use super::program::*;

/// For each value, the step that ends it; `usize::MAX` where it must outlive the body.
pub struct Lifetimes {
    last_use: Vec<usize>,
}

/// Registers by class, before the tile's size is known.
pub struct Registers {
    /// Class and number within the class, for each value.
    of_value: Vec<Option<(Class, usize)>>,
    counts: [usize; 4],
}

fn class_index(class: Class) -> usize {
    match class {
        Class::Uniform => 0,
        Class::Column => 1,
        Class::Row => 2,
        Class::Element => 3,
    }
}

/// All steps in the order in which they first run.
fn steps(program: &Program) -> impl Iterator<Item = &Step> {
    [&program.once, &program.rows, &program.body, &program.folds, &program.finish].into_iter().flatten()
}

fn output(step: &Step) -> Option<ValueId> {
    match step {
        Step::Load { out, .. }
        | Step::Gather { out, .. }
        | Step::Iota { out, .. }
        | Step::Apply { out, .. }
        | Step::RandomWords { out, .. }
        | Step::Accumulate { out, .. }
        | Step::FoldLanes { out, .. }
        | Step::AccumulateRows { out, .. } => Some(*out),
        Step::Store { .. } | Step::Prefetch { .. } | Step::PrefetchStore { .. } => None,
    }
}

fn arguments(step: &Step) -> [Option<ValueId>; 4] {
    match step {
        Step::Load { .. } | Step::Iota { .. } | Step::Prefetch { .. } | Step::PrefetchStore { .. } => {
            [None; 4]
        }
        Step::Gather { index, .. } => [Some(*index), None, None, None],
        Step::Apply { args, .. } => args.map(Some),
        Step::RandomWords { args: [k0, k1, c1], .. } => [Some(*k0), Some(*k1), Some(*c1), None],
        Step::Accumulate { arg, .. } | Step::AccumulateRows { arg, .. } => [Some(*arg), None, None, None],
        Step::FoldLanes { out, .. } => [Some(*out), None, None, None],
        Step::Store { value, .. } => [Some(*value), None, None, None],
    }
}

impl Lifetimes {
    pub fn of(program: &Program) -> Lifetimes {
        let mut last_use = vec![0; program.places.len()];
        for (time, step) in steps(program).enumerate() {
            let used = arguments(step).into_iter().flatten().chain(output(step));
            used.for_each(|value| last_use[value] = time);
        }
        // What is computed before the body is used by every run of it; what leaves a repeated body must survive it.
        let mut outlives =
            |step: &Step| output(step).into_iter().for_each(|value| last_use[value] = usize::MAX);
        program.once.iter().for_each(&mut outlives);
        if program.walk != Walk::Tiles {
            program.rows.iter().for_each(&mut outlives);
            program.reductions.iter().for_each(|(value, _)| last_use[*value] = usize::MAX);
        }
        Lifetimes { last_use }
    }
}

pub fn allocate(program: &Program, lifetimes: &Lifetimes, class_of: impl Fn(ValueId) -> Class) -> Registers {
    let mut registers = Registers { of_value: vec![None; program.places.len()], counts: [0; 4] };
    let mut free: [Vec<usize>; 4] = Default::default();
    // Values that outlive the body are written in it while others are live at its start, so they come first.
    for value in steps(program).filter_map(output).filter(|value| lifetimes.last_use[*value] == usize::MAX) {
        registers.take(value, class_of(value), &mut free);
    }
    for (time, step) in steps(program).enumerate() {
        let mut ended = arguments(step);
        for index in 0..ended.len() {
            let Some(value) = ended[index] else { continue };
            if lifetimes.last_use[value] != time || ended[..index].contains(&Some(value)) {
                ended[index] = None;
            }
        }
        // A step whose result is laid out differently from an argument must not write over it.
        let (in_place, apart): (Vec<ValueId>, Vec<ValueId>) = ended
            .into_iter()
            .flatten()
            .filter(|value| Some(*value) != output(step))
            .partition(|_| matches!(step, Step::Apply { .. }));
        registers.release(&in_place, &mut free);
        if let Some(value) = output(step) {
            registers.take(value, class_of(value), &mut free);
        }
        registers.release(&apart, &mut free);
    }
    registers
}

impl Registers {
    fn take(&mut self, value: ValueId, class: Class, free: &mut [Vec<usize>; 4]) {
        if self.of_value[value].is_some() {
            return;
        }
        let kind = class_index(class);
        let number = free[kind].pop().unwrap_or_else(|| {
            self.counts[kind] += 1;
            self.counts[kind] - 1
        });
        self.of_value[value] = Some((class, number));
    }

    fn release(&self, values: &[ValueId], free: &mut [Vec<usize>; 4]) {
        for (class, number) in values.iter().filter_map(|value| self.of_value[*value]) {
            free[class_index(class)].push(number);
        }
    }

    /// How many registers are as large as a tile.
    pub fn elements(&self) -> usize {
        self.counts[class_index(Class::Element)]
    }

    /// Places the registers in scratch, now that the tile's size is known; returns the elements of all together.
    pub fn place(&self, program: &mut Program) -> usize {
        let sizes = [LANES, program.pitch, program.tile_rows * LANES, program.tile_rows * program.pitch];
        let mut starts = [0; 5];
        for kind in 0..4 {
            starts[kind + 1] = starts[kind] + sizes[kind] * self.counts[kind];
        }
        for (value, register) in self.of_value.iter().enumerate() {
            if let Some((class, number)) = *register {
                let kind = class_index(class);
                program.places[value] = Place::Scratch { offset: starts[kind] + number * sizes[kind], class };
            }
        }
        starts[4]
    }
}
