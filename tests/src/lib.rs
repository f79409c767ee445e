//! What the cross-crate tests share.

#![forbid(unsafe_code)]

pub mod programs;
pub mod replay;
