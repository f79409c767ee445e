//! Primitives without a kernel (boxes with a start known only at run time, ArgMax, CumSum), said in primitives that have
//! one.

use plan::DeviceCaps;

use crate::Module;

pub fn run(module: &mut Module, _caps: &DeviceCaps) -> Result<(), String> {
    module.graph = graph::legalize(&module.graph);
    Ok(())
}
