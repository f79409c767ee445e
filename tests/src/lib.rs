//! Cross-crate tests: conformance, ABI, end to end, faults.
