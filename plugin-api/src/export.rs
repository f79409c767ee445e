//! The two macros that make a crate a plugin.

/// Registers one component: kind, name, options type, one-line summary (no quotes or backslashes in it).
///
/// `component! { attention "full" => Full, "Softmax attention over all earlier positions." }`
#[macro_export]
macro_rules! component {
    (model $name:literal => $options:ty, $summary:literal) => {
        $crate::component!(@register MODEL "model" ModelAdapter $name, $options, $summary);
    };
    (attention $name:literal => $options:ty, $summary:literal) => {
        $crate::component!(@register ATTENTION "attention" AttentionAdapter $name, $options, $summary);
    };
    (optimizer $name:literal => $options:ty, $summary:literal) => {
        $crate::component!(@register OPTIMIZER "optimizer" OptimizerAdapter $name, $options, $summary);
    };
    (eval $name:literal => $options:ty, $summary:literal) => {
        $crate::component!(@register EVAL "eval" EvalAdapter $name, $options, $summary);
    };
    (@register $kind:ident $word:literal $adapter:ident $name:literal, $options:ty, $summary:literal) => {
        const _: () = {
            const PARTS: &[&str] =
                &["{\"kind\":\"", $word, "\",\"name\":\"", $name, "\",\"summary\":\"", $summary, "\"}\n"];
            #[cfg_attr(target_vendor = "apple", link_section = "__DATA,__host_plugin")]
            #[cfg_attr(not(target_vendor = "apple"), link_section = ".host_plugin")]
            static METADATA: [u8; $crate::total(PARTS)] = $crate::join(PARTS);
            $crate::inventory::submit! {
                $crate::Registration {
                    entry: || $crate::$adapter::<$options>::entry($name, $summary),
                    metadata: &METADATA,
                }
            }
        };
    };
}

/// Exports every component of this crate. Once per crate.
#[macro_export]
macro_rules! export_plugin {
    () => {
        #[doc(hidden)]
        pub mod host_plugin_export {
            const PARTS: &[&str] = &[
                "{\"plugin\":\"",
                env!("CARGO_PKG_NAME"),
                "\",\"version\":\"",
                env!("CARGO_PKG_VERSION"),
                "\",\"api\":\"",
                $crate::abi::API_VERSION_TEXT,
                "\",\"rustc\":\"",
                $crate::RUSTC,
                "\",\"target\":\"",
                $crate::TARGET,
                "\"}\n",
            ];
            #[cfg_attr(target_vendor = "apple", link_section = "__DATA,__host_plugin")]
            #[cfg_attr(not(target_vendor = "apple"), link_section = ".host_plugin")]
            static METADATA: [u8; $crate::total(PARTS)] = $crate::join(PARTS);

            extern "C" fn root() -> $crate::abi::PluginRoot_Ref {
                $crate::plugin_root(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            }

            // SAFETY: no other item of a plugin carries this name; the host reads the header as plain data.
            #[no_mangle]
            pub static HOST_PLUGIN_HEADER: $crate::abi::LibHeader = $crate::abi::LibHeader {
                magic: $crate::abi::MAGIC,
                api_version: [
                    $crate::abi::API_VERSION.0,
                    $crate::abi::API_VERSION.1,
                    $crate::abi::API_VERSION.2,
                ],
                op_set_version: $crate::OP_SET_VERSION,
                metadata: &METADATA,
                layout: $crate::root_layout,
                root,
            };
        }
    };
}
