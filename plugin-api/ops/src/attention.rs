//! The bits of Attention's `operands` attribute: which optional operands follow q, k and v, in the order of the bits.
//! Here because the façade that sets them and the graph that reads them share only this crate.

/// Position of each sequence's first query among the keys after the prefix, `i32[B]`.
pub const Q_OFFSET: i64 = 1;
/// How many keys after the prefix hold something, `i32[B]`.
pub const KV_LEN: i64 = 2;
/// Segment of each query, `i32[B, Tq]`: queries see keys of their own segment only.
pub const QUERY_SEGMENTS: i64 = 4;
/// Segment of each key, `i32[B, Tk]`.
pub const KEY_SEGMENTS: i64 = 8;
