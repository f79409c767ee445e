//! Tests of the device as a whole.
