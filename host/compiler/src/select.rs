//! Hand kernel or decomposition: each composite a device has no kernel for is replaced by its meaning.
//!
//! No device has a hand kernel yet, so all composites are decomposed. Sharing of equal nodes then joins the forward
//! pass with what derivatives recompute. Primitives without a kernel (boxes with a start known only at run time, ArgMax, CumSum) are
//! then legalised: said in primitives that have one.

use plan::DeviceCaps;

use crate::Module;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    module.graph = graph::legalize(&graph::expand(&module.graph));
    Ok(())
}
