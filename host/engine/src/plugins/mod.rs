//! Plugins: what is there, without running it; and opened, when it is used.

mod layout;
mod library;
mod metadata;
mod registry;

pub use library::{Component, Library, calls};
pub use metadata::{ComponentInfo, PluginInfo};
pub use registry::{Kind, Registry, beside_executable};
