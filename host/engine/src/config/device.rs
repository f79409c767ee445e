//! The names of devices, as configurations and `--device` say them.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Adapters that have a name of their own: `wgpu:0` to `wgpu:7`.
const NUMBERED: u8 = 8;

/// Where a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The fastest device that is there: a graphics card, else the CPU.
    Auto,
    Cpu,
    /// Vulkan, Metal or DX12: the first adapter that is hardware, or the one with a number.
    Wgpu(Option<u8>),
    /// The f64 interpreter: slow, the oracle of the others.
    Interpreter,
}

impl DeviceName {
    fn all() -> impl Iterator<Item = DeviceName> {
        let numbered = (0..NUMBERED).map(|number| DeviceName::Wgpu(Some(number)));
        let plain = [DeviceName::Auto, DeviceName::Cpu, DeviceName::Interpreter, DeviceName::Wgpu(None)];
        plain.into_iter().chain(numbered)
    }
}

impl Display for DeviceName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Auto => f.write_str("auto"),
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Interpreter => f.write_str("interpreter"),
            DeviceName::Wgpu(None) => f.write_str("wgpu"),
            DeviceName::Wgpu(Some(number)) => write!(f, "wgpu:{number}"),
        }
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<DeviceName, String> {
        let found = DeviceName::all().find(|name| name.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no device"))
    }
}

impl JsonSchema for DeviceName {
    fn schema_name() -> Cow<'static, str> {
        "DeviceName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<String> = DeviceName::all().map(String::from).collect();
        json_schema!({ "type": "string", "enum": names })
    }
}
