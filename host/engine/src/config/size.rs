//! An amount of memory as people write it: `536870912`, `"512MiB"`, `"1.5 GiB"`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes, or a number with a unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    Bytes(u64),
    Text(String),
}

const UNITS: [(&str, f64); 8] = [
    ("", 1.0),
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("GiB", 1024.0 * 1024.0 * 1024.0),
];

impl Size {
    /// In bytes; the error says what is wrong with the text.
    pub fn bytes(&self) -> Result<u64, String> {
        let text = match self {
            Size::Bytes(bytes) => return Ok(*bytes),
            Size::Text(text) => text.trim(),
        };
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let factor =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).map(|(_, factor)| factor);
        let bytes = number.parse::<f64>().ok().zip(factor).map(|(number, factor)| number * factor);
        let bytes = bytes.filter(|bytes| *bytes < 2.0_f64.powi(60)).map(|bytes| bytes as u64);
        bytes
            .ok_or_else(|| format!("{text:?} is no amount of memory, as 512MiB, 1.5GiB or a number of bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_none() {
        let bytes = |text: &str| Size::Text(text.into()).bytes();
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("1.5 gib"), Ok(3 << 29));
        assert_eq!(bytes("2000"), Ok(2000));
        assert_eq!(bytes("2MB"), Ok(2_000_000));
        assert_eq!(Size::Bytes(7).bytes(), Ok(7));
        for wrong in ["", "MiB", "-1", "1.2.3", "5 apples", "1e30"] {
            assert!(bytes(wrong).is_err_and(|reason| reason.contains("512MiB")), "{wrong}");
        }
    }
}
