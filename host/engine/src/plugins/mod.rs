//! Plugins: what is there, without running it; and opened, when it is used and may be.

mod check;
mod copies;
mod layout;
mod library;
mod lock;
mod log;
mod metadata;
mod places;
mod registry;
mod trust;

pub use check::{Checked, Held, check, inspect};
pub use library::{Component, Library, calls};
pub use metadata::{ComponentInfo, PluginInfo};
pub(crate) use places::kernels;
pub use registry::{Folder, Kind, Registry, beside_executable};
pub use trust::{Accepted, Judged, Trust};
