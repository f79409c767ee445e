//! Element types. Their numbers are part of the ABI.

use std::fmt;

/// Type of one tensor element. Every type is stored in four bytes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DType {
    /// IEEE single precision (double in the interpreter).
    F32 = 0,
    /// Signed 32-bit integer: token ids, positions.
    I32 = 1,
    /// Unsigned 32-bit integer: random words, bit patterns.
    U32 = 2,
    /// Truth value, stored as 0 or 1.
    Bool = 3,
}

impl DType {
    /// Bytes of one element on a device.
    pub const BYTES: usize = 4;

    pub const ALL: [DType; 4] = [DType::F32, DType::I32, DType::U32, DType::Bool];

    pub fn from_code(code: i64) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| *dtype as i64 == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::Bool => "bool",
        }
    }

    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    pub fn is_float(self) -> bool {
        self == DType::F32
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
