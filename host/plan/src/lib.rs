//! Plain data between the compiler and the devices, and the one trait a device implements.
//!
//! A [`Plan`] is a straight list of [`Launch`]es over two memories whose addresses never change: the State slab,
//! shared by all plans of a run, and the scratch arena, shared by turns. Nothing here knows a device, a plugin or a
//! file, and nothing here computes.
//!
//! Obligations a device may rely on once [`Plan::validate`] has passed: each slot lies in its region, each address a
//! kernel forms lies in its slot, and values refer only to earlier values.

#![forbid(unsafe_code)]

mod attention;
mod cost;
mod cross_entropy;
mod delta;
mod device;
mod kernel;
mod launch;
mod plan;
mod text;
mod validate;

pub use attention::{Attention, AttentionGrad, AttentionShape, Heads, Numbers};
pub use cost::{Cost, Peaks};
pub use cross_entropy::{CrossEntropy, CrossEntropyGrad, Numbered, Rows};
pub use delta::{DeltaRule, DeltaRuleGrad, DeltaShape, DeltaTensors};
pub use device::{AttentionCaps, CrossEntropyCaps, DeltaCaps, Device, DeviceCaps, DeviceError, Outputs};
pub use kernel::{Affine, Binding, Domain, Expr, Gather, Store, Template, TileKernel, Value, ValueId};
pub use launch::{Gemm, GemmBatch, Launch, LaunchOp, Matrix, Region, ScatterAdd, Slot};
pub use plan::{Guard, Held, IoSlot, Plan, PlanSet, StateLayout, StateSlot};
