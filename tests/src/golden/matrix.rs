//! Iterations on whole matrices, as optimizer plugins export them.

use optim_muon::{QUINTIC, SMALLEST_NORM, newton_schulz as iterate};
use plugin_api::Op;

use super::trace::{Given, Outputs};

/// Each matrix NAME of the case as a stack of one, and all of one shape in one stack.
pub fn newton_schulz<'c>(given: &Given<'c>) -> Outputs<'c> {
    for (key, value) in [("ns_a", QUINTIC[0]), ("ns_b", QUINTIC[1]), ("ns_c", QUINTIC[2])] {
        given.fixed(key, value);
    }
    given.fixed("ns_eps", SMALLEST_NORM);
    let steps = given.number("ns_steps") as usize;
    let names: Vec<&str> = given.case.tensors.keys().filter_map(|name| name.strip_suffix("_out")).collect();
    let mut outputs = Outputs::new();
    for name in &names {
        let x = given.x(name);
        let (rows, columns) = (x.dim(0), x.dim(1));
        let alone = iterate(x.reshape(&[1, rows, columns]), steps);
        outputs.push((format!("{name}_out"), alone.reshape(&[rows, columns])));

        let alike: Vec<&str> =
            names.iter().copied().filter(|other| given.x(other).dims() == x.dims()).collect();
        let stack = |name: &&str| given.x(name).reshape(&[1, rows, columns]);
        let stacked: Vec<_> = alike.iter().map(stack).collect();
        let stacked = iterate(given.cx.emit(Op::Concat, &stacked, &[0], &[]), steps);
        for (index, other) in alike.iter().enumerate().filter(|_| alike[0] == *name) {
            let one = stacked.slice(0, index, 1).reshape(&[rows, columns]);
            outputs.push((format!("{other}_out"), one));
        }
    }
    outputs
}
