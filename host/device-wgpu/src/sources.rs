//! The kernels of a plan set as text, which takes no device: what is compiled, dumped and checked.

use std::collections::HashSet;

use plan::{DeviceError, Plan, PlanSet};

use crate::wgsl::{self, Dispatch, Tiles};

/// The text of a kernel, for dumps and checks.
pub struct Source {
    pub plan: String,
    /// The first launch that uses it.
    pub label: String,
    pub text: String,
    pub storage_buffers: usize,
}

/// The distinct kernels of a plan set, without a device.
pub fn sources(set: &PlanSet, tiles: Tiles) -> Result<Vec<Source>, DeviceError> {
    let mut sources: Vec<Source> = Vec::new();
    let mut known = HashSet::new();
    for plan in &set.plans {
        plan.validate(set.states.bytes)?;
        for (launch, dispatch) in dispatches(plan, tiles)? {
            if known.insert(dispatch.source.clone()) {
                sources.push(Source {
                    plan: plan.name.clone(),
                    label: plan.launches[launch].label.clone(),
                    text: dispatch.source,
                    storage_buffers: dispatch.ranges.len(),
                });
            }
        }
    }
    Ok(sources)
}

/// What a plan's launches become, each with the index of its launch.
pub fn dispatches(plan: &Plan, tiles: Tiles) -> Result<Vec<(usize, Dispatch)>, DeviceError> {
    let mut all = Vec::with_capacity(plan.launches.len());
    for (index, launch) in plan.launches.iter().enumerate() {
        let printed =
            wgsl::print(plan, &launch.op, tiles).map_err(|reason| at_launch(plan, index, reason))?;
        all.extend(printed.into_iter().map(|dispatch| (index, dispatch)));
    }
    Ok(all)
}

/// An error of one launch of a plan.
pub fn at_launch(plan: &Plan, launch: usize, reason: String) -> DeviceError {
    DeviceError::Launch { plan: plan.name.clone(), launch: plan.launches[launch].label.clone(), reason }
}
