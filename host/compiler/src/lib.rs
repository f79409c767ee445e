//! From a graph to a plan: the pass list, top to bottom.
//!
//! The compiler knows no device (only [`DeviceCaps`]), no file and no plugin. Each pass has a name, can be shown to a
//! dump callback, and, where the result stays correct without it, be switched off.

#![forbid(unsafe_code)]

mod analysis;
mod budget;
mod fuse;
mod guard;
mod joined;
mod layout;
mod legalize;
mod lower;
mod memory;
mod module;
mod parts;
mod remat;
mod schedule;
mod select;
mod simplify;
mod sums;
mod unroll;
mod view;

use graph::Graph;
use plan::{DeviceCaps, Plan, StateLayout};

pub use fuse::Apart;
pub use module::{Cluster, Module};

/// What can go wrong. A graph that passed the trace compiles, so most of these are bugs of the host.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error(transparent)]
    Graph(#[from] graph::GraphError),
    #[error("plan {plan}: pass {pass}: {reason}; this is a bug of the host")]
    Pass { plan: String, pass: &'static str, reason: String },
    #[error("plan {plan}: no State {name} of type {ty} in the slab")]
    NoState { plan: String, name: String, ty: String },
    #[error(
        "plan {plan} needs {least} bytes for what is alive together, and the memory budget leaves it {budget}; the \
         largest tensors of its peak are {largest}"
    )]
    Budget { plan: String, least: usize, budget: usize, largest: String },
}

/// A step of the compiler.
pub struct Pass {
    pub name: &'static str,
    /// Without it the plan is slower or larger but computes the same.
    pub optional: bool,
    run: Run,
}

type Run = fn(&mut Module, &DeviceCaps) -> Result<(), String>;

/// The compiler, read top to bottom.
pub const PASSES: &[Pass] = &[
    Pass { name: "select", optional: false, run: select::run },
    Pass { name: "unroll", optional: false, run: unroll::run },
    Pass { name: "legalize", optional: false, run: legalize::run },
    Pass { name: "simplify", optional: true, run: simplify::run },
    Pass { name: "sums", optional: false, run: sums::run },
    Pass { name: "layout", optional: false, run: layout::run },
    Pass { name: "fuse", optional: true, run: fuse::run },
    Pass { name: "remat", optional: true, run: remat::run },
    Pass { name: "schedule", optional: false, run: schedule::run },
    Pass { name: "memory", optional: false, run: memory::run },
    Pass { name: "budget", optional: true, run: budget::run },
    Pass { name: "lower", optional: false, run: lower::run },
];

/// Gets the text of the module after each pass: number and name of the pass, then the text.
pub type Dump<'d> = dyn FnMut(&str, &str) + 'd;

/// How to compile.
#[derive(Default)]
pub struct Options<'d> {
    /// Names of optional passes to leave out.
    pub disabled: Vec<String>,
    /// Verify the graph between passes.
    pub verify: bool,
    /// Most bytes of the arena: above it values are computed again instead of kept.
    pub budget: Option<usize>,
    pub dump: Option<&'d mut Dump<'d>>,
}

/// Compiles one graph into a plan over the given State slab.
pub fn compile(
    name: &str,
    graph: &Graph,
    states: &StateLayout,
    caps: &DeviceCaps,
    options: Options<'_>,
) -> Result<Plan, CompileError> {
    let budget = options.budget;
    within(budget, passed(name, graph, states, caps, options)?.plan)
}

/// Pairs of tile kernels in the plan of a graph that the rules of fusion would let be one.
pub fn apart(
    graph: &Graph,
    states: &StateLayout,
    caps: &DeviceCaps,
    options: Options<'_>,
) -> Result<Vec<Apart>, CompileError> {
    Ok(fuse::apart(&passed("apart", graph, states, caps, options)?, caps))
}

/// A graph after all passes.
fn passed(
    name: &str,
    graph: &Graph,
    states: &StateLayout,
    caps: &DeviceCaps,
    mut options: Options<'_>,
) -> Result<Module, CompileError> {
    graph::verify(graph)?;
    for decl in &graph.states {
        let found = states
            .find(&decl.name)
            .is_some_and(|slot| slot.dims == decl.ty.dims && slot.dtype == decl.ty.dtype);
        if !found {
            let (plan, name, ty) = (name.to_string(), decl.name.clone(), decl.ty.to_string());
            return Err(CompileError::NoState { plan, name, ty });
        }
    }
    let mut module = Module::new(name, graph.clone(), states.clone());
    module.budget = options.budget;
    dump(&mut options, "00-trace", &module);
    for (index, pass) in PASSES.iter().enumerate() {
        if pass.optional && options.disabled.iter().any(|name| name == pass.name) {
            continue;
        }
        let failed = |reason| CompileError::Pass { plan: name.to_string(), pass: pass.name, reason };
        (pass.run)(&mut module, caps).map_err(failed)?;
        // What a pass could not emit is missing in its graph.
        if let Some(error) = module.graph.errors.first() {
            return Err(failed(error.to_string()));
        }
        if options.verify || cfg!(debug_assertions) {
            graph::verify(&module.graph).map_err(|error| failed(error.to_string()))?;
        }
        dump(&mut options, &format!("{:02}-{}", index + 1, pass.name), &module);
    }
    Ok(module)
}

/// Tensors that an error names.
const NAMED: usize = 5;

fn within(budget: Option<usize>, plan: Plan) -> Result<Plan, CompileError> {
    match budget.filter(|budget| plan.arena_bytes > *budget) {
        None => Ok(plan),
        Some(budget) => {
            let named =
                plan.peak.iter().take(NAMED).map(|held| format!("{} ({} bytes)", held.name, held.bytes));
            let largest = named.collect::<Vec<_>>().join(", ");
            Err(CompileError::Budget { plan: plan.name, least: plan.arena_bytes, budget, largest })
        }
    }
}

/// The graph as straight code in the ops that kernels know: no composite, region or other op is left that a pass says
/// in simpler ones, and no hand kernel is used. What the interpreter and a device can be compared on, node by node.
pub fn straight(graph: &Graph, caps: &DeviceCaps) -> Result<Graph, CompileError> {
    graph::verify(graph)?;
    let caps = &DeviceCaps { attention: None, cross_entropy: None, delta: None, ..caps.clone() };
    let mut module = Module::new("straight", graph.clone(), StateLayout::default());
    for (pass, run) in [("select", select::run as Run), ("unroll", unroll::run), ("legalize", legalize::run)]
    {
        let failed = |reason| CompileError::Pass { plan: "straight".into(), pass, reason };
        run(&mut module, caps).map_err(failed)?;
    }
    Ok(module.graph)
}

fn dump(options: &mut Options<'_>, stage: &str, module: &Module) {
    if let Some(dump) = &mut options.dump {
        dump(stage, &module.to_string());
    }
}
