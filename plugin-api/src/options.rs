//! Options of a component: a serde struct with defaults and a JSON schema, from one macro.

use serde::de::DeserializeOwned;

use crate::abi::PluginError;

/// Declares the options of a component, each with type, default and doc; or a choice among named variants, which
/// users write in lower case.
///
/// The struct derives `Deserialize` (unknown keys are refused), `Serialize`, `Default` and `JsonSchema`. Attributes
/// pass through, so `#[schemars(range(min = 1))]` states a range.
#[macro_export]
macro_rules! options {
    (
        $(#[$outer:meta])*
        pub struct $name:ident {
            $($(#[$inner:meta])* pub $field:ident: $ty:ty = $default:expr),* $(,)?
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug, $crate::serde::Serialize, $crate::serde::Deserialize, $crate::schemars::JsonSchema)]
        #[serde(crate = "plugin_api::serde", default, deny_unknown_fields)]
        #[schemars(crate = "plugin_api::schemars")]
        pub struct $name { $($(#[$inner])* pub $field: $ty),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }
    };
    (
        $(#[$outer:meta])*
        pub enum $name:ident {
            $($(#[$inner:meta])* $variant:ident),* $(,)?
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, $crate::serde::Serialize, $crate::serde::Deserialize)]
        #[derive($crate::schemars::JsonSchema)]
        #[serde(crate = "plugin_api::serde", rename_all = "lowercase")]
        #[schemars(crate = "plugin_api::schemars")]
        pub enum $name { $($(#[$inner])* $variant),* }
    };
}

/// What the run has decided before a component's options are judged.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Dims {
    /// Vocabulary size V.
    pub vocab: usize,
    /// Tokens in a window, T.
    pub window: usize,
    /// Windows in a batch, B.
    pub batch: usize,
    /// Width of the model, where its options state one as `d_model`.
    pub width: Option<usize>,
}

/// Options from JSON; the message is serde's, with the key in it.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, PluginError> {
    serde_json::from_str(json)
        .map_err(|error| PluginError { message: error.to_string().into(), location: Default::default() })
}

/// JSON schema of the options.
pub fn schema<T: schemars::JsonSchema>() -> String {
    schemars::schema_for!(T).to_value().to_string()
}
