//! From an author's trait to the ABI object of its kind, with every entry guarded.

use std::marker::PhantomData;

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RErr, RResult, RStr, RString, RVec};
use abi_stable::type_layout::TypeLayout;
use abi_stable::StableAbi;
use schemars::JsonSchema;
use serde::{de::DeserializeOwned, Serialize};

use crate::abi::*;
use crate::guard::Guarded;
use crate::{
    guard, options, Attention, Cx, Dims, Eval, Fault, Group, Layout, Model, Optimizer, Registration, Role,
    Trained,
};

/// Bounds of an options type.
pub trait Options: DeserializeOwned + Serialize + JsonSchema + 'static {}
impl<T: DeserializeOwned + Serialize + JsonSchema + 'static> Options for T {}

extern "C" fn schema<T: Options>() -> RResult<RString, PluginError> {
    guard(|| Ok(options::schema::<T>().into()))
}

extern "C" fn resolve<T: Options>(json: RStr<'_>) -> RResult<RString, PluginError> {
    guard(|| {
        let value: T = options::parse(&json)?;
        serde_json::to_string(&value).map(RString::from).map_err(refusal)
    })
}

fn refusal(error: impl std::fmt::Display) -> PluginError {
    PluginError { message: error.to_string().into(), location: RString::new() }
}

fn faults(list: Vec<Fault>) -> RVec<OptionFault> {
    list.into_iter().map(|(key, message)| OptionFault { key: key.into(), message: message.into() }).collect()
}

extern "C" fn no_model(_: RStr<'_>) -> RResult<ModelObject_TO<'static, RBox<()>>, PluginError> {
    RErr(refusal("this component is not a model"))
}

extern "C" fn no_attention(_: RStr<'_>) -> RResult<AttentionObject_TO<'static, RBox<()>>, PluginError> {
    RErr(refusal("this component is not an attention backbone"))
}

extern "C" fn no_optimizer(_: RStr<'_>) -> RResult<OptimizerObject_TO<'static, RBox<()>>, PluginError> {
    RErr(refusal("this component is not an optimizer"))
}

extern "C" fn no_eval(_: RStr<'_>) -> RResult<EvalObject_TO<'static, RBox<()>>, PluginError> {
    RErr(refusal("this component is not an eval"))
}

macro_rules! adapter {
    ($adapter:ident, $trait:ident, $object:ident, $to:ident, $kind:ident, $model:expr, $attention:expr, $optimizer:expr, $eval:expr) => {
        /// Makes the ABI entry of an options type.
        pub struct $adapter<T>(PhantomData<T>);

        impl<T: $trait + Options> $adapter<T> {
            /// The entry; lives as long as the library, which is never unloaded.
            pub fn entry(name: &'static str, summary: &'static str) -> ComponentEntry_Ref {
                let entry = ComponentEntry {
                    kind: kind::$kind,
                    name: name.into(),
                    summary: summary.into(),
                    schema: schema::<T>,
                    resolve: resolve::<T>,
                    validate: Self::validate,
                    make_model: $model,
                    make_attention: $attention,
                    make_optimizer: $optimizer,
                    make_eval: $eval,
                };
                entry.leak_into_prefix()
            }

            extern "C" fn validate(
                json: RStr<'_>,
                dims: RStr<'_>,
            ) -> RResult<RVec<OptionFault>, PluginError> {
                guard(|| {
                    let dims: Dims = options::parse(&dims)?;
                    Ok(faults(options::parse::<T>(&json)?.validate(&dims)))
                })
            }

            extern "C" fn make(json: RStr<'_>) -> RResult<$to<'static, RBox<()>>, PluginError> {
                guard(|| Ok($to::from_value(Guarded::new(options::parse::<T>(&json)?), TD_Opaque)))
            }
        }
    };
}

adapter!(
    ModelAdapter,
    Model,
    ModelObject,
    ModelObject_TO,
    MODEL,
    Self::make,
    no_attention,
    no_optimizer,
    no_eval
);
adapter!(
    AttentionAdapter,
    Attention,
    AttentionObject,
    AttentionObject_TO,
    ATTENTION,
    no_model,
    Self::make,
    no_optimizer,
    no_eval
);
adapter!(
    OptimizerAdapter,
    Optimizer,
    OptimizerObject,
    OptimizerObject_TO,
    OPTIMIZER,
    no_model,
    no_attention,
    Self::make,
    no_eval
);
adapter!(
    EvalAdapter,
    Eval,
    EvalObject,
    EvalObject_TO,
    EVAL,
    no_model,
    no_attention,
    no_optimizer,
    Self::make
);

impl<T: Model + Options> ModelObject for Guarded<T> {
    fn forward(&self, builder: BuilderRef<'_>, tokens: u32) -> RResult<ForwardIds, PluginError> {
        guard(|| {
            let cx = Cx::new(&builder);
            let output = self.get()?.forward(&cx, cx.tensor(tokens));
            Ok(ForwardIds { hidden: output.hidden.id(), head: output.head.id() })
        })
    }

    fn train(&self, builder: BuilderRef<'_>, tokens: u32, targets: u32) -> RResult<LossIds, PluginError> {
        guard(|| {
            let cx = Cx::new(&builder);
            let loss = self.get()?.train(&cx, cx.tensor(tokens), cx.tensor(targets));
            let auxiliary = loss.auxiliary.map_or(NONE, |tensor| tensor.id());
            Ok(LossIds { token_losses: loss.token_losses.id(), auxiliary })
        })
    }

    fn flush(&self, builder: BuilderRef<'_>) -> RResult<(), PluginError> {
        guard(|| {
            self.get()?.flush(&Cx::new(&builder));
            Ok(())
        })
    }
}

impl<T: Attention + Options> AttentionObject for Guarded<T> {
    fn trace(&self, builder: BuilderRef<'_>, x: u32, positions: u32) -> RResult<u32, PluginError> {
        guard(|| {
            let cx = Cx::new(&builder);
            let positions = (positions != NONE).then(|| cx.tensor(positions));
            Ok(self.get()?.trace(&cx, cx.tensor(x), positions).id())
        })
    }
}

impl<T: Optimizer + Options> OptimizerObject for Guarded<T> {
    fn update(&self, builder: BuilderRef<'_>, group: GroupIds) -> RResult<u32, PluginError> {
        guard(|| {
            let cx = Cx::new(&builder);
            let unknown = || refusal(format!("knows no parameter role {}", group.role));
            let role = Role::from_code(group.role).ok_or_else(unknown)?;
            let (parameter, gradient) = (cx.tensor(group.parameter), cx.tensor(group.gradient));
            Ok(self.get()?.update(&cx, Group { role, parameter, gradient }).id())
        })
    }

    fn layout(&self, role: u8) -> RResult<u8, PluginError> {
        // A role of a later version is refused where it is updated.
        let layout =
            |optimizer: &T| Role::from_code(role).map_or(Layout::Flat, |role| optimizer.layout(role));
        guard(|| Ok(layout(self.get()?) as u8))
    }
}

impl<T: Eval + Options> EvalObject for Guarded<T> {
    fn run(&self, session: SessionRef<'_>, host: ServicesRef<'_>) -> RResult<RString, PluginError> {
        guard(|| {
            let host = (session, host);
            let metrics = self.get()?.run(&Trained::new(&host)).map_err(refusal)?;
            serde_json::to_string(&metrics).map(RString::from).map_err(refusal)
        })
    }
}

/// The root of a plugin: its name, version and registered components.
pub fn plugin_root(plugin: &'static str, version: &'static str) -> PluginRoot_Ref {
    extern "C" fn components() -> RVec<ComponentEntry_Ref> {
        inventory::iter::<Registration>.into_iter().map(|registration| (registration.entry)()).collect()
    }
    let root =
        PluginRoot { plugin: plugin.into(), version: version.into(), components, log: crate::log::log };
    root.leak_into_prefix()
}

/// Layout of the root as this crate was compiled.
pub extern "C" fn root_layout() -> &'static TypeLayout {
    <PluginRoot_Ref as StableAbi>::LAYOUT
}
