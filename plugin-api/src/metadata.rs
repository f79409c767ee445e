//! What can be known of a library without running it: JSON lines in a link section.

use crate::abi::ComponentEntry_Ref;

/// Section that holds the JSON lines.
#[cfg(target_vendor = "apple")]
pub const METADATA_SECTION: &str = "__DATA,__host_plugin";
/// Section that holds the JSON lines.
#[cfg(not(target_vendor = "apple"))]
pub const METADATA_SECTION: &str = ".host_plugin";

/// Compiler that built this crate, and so the plugin.
pub const RUSTC: &str = env!("HOST_RUSTC");
/// Target triple.
pub const TARGET: &str = env!("HOST_TARGET");

/// A component as `component!` collects it.
pub struct Registration {
    pub entry: fn() -> ComponentEntry_Ref,
    /// Its line in the metadata section; held so that the linker keeps it.
    pub metadata: &'static [u8],
}

inventory::collect!(Registration);

/// Summed length of `parts`.
pub const fn total(parts: &[&str]) -> usize {
    let mut sum = 0;
    let mut part = 0;
    while part < parts.len() {
        sum += parts[part].len();
        part += 1;
    }
    sum
}

/// `parts` one after another, at compile time.
pub const fn join<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut bytes = [0; N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let text = parts[part].as_bytes();
        let mut index = 0;
        while index < text.len() {
            bytes[at] = text[index];
            at += 1;
            index += 1;
        }
        part += 1;
    }
    bytes
}
