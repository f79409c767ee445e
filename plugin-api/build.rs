//! Records the compiler and target for the metadata that travels in every plugin.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    println!("cargo:rustc-env=HOST_RUSTC={}", version.unwrap_or_else(|_| "unknown".into()));
    println!("cargo:rustc-env=HOST_TARGET={}", std::env::var("TARGET").unwrap_or_else(|_| "unknown".into()));
}
