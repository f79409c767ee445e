//! Nested learning (Behrouz et al. 2025): memories that learn while a model reads.
//!
//! Layers for model plugins, which link this crate; it holds no component of its own. `cms` is a level of a continuum
//! memory system, `teach` what it learns from.

pub mod cms;
pub mod teach;
