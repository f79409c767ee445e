//! Opening a library and holding its components. The only unsafe code of the engine.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use abi_stable::StableAbi;
use abi_stable::std_types::{RBox, RErr, ROk, RResult};
use plugin_api::abi::{
    API_VERSION, AttentionObject_TO, ComponentEntry_Ref, EvalObject_TO, HEADER_SYMBOL, LibHeader, MAGIC,
    ModelObject_TO, OptimizerObject_TO, PluginError, PluginRoot_Ref, kind,
};
use plugin_api::{Dims, Fault, OP_SET_VERSION};

use super::{PluginInfo, layout, log};
use crate::Error;

static CALLS: AtomicU64 = AtomicU64::new(0);

/// How often plugin code has been entered in this process. Between the second step and the last it stands still.
pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// An accepted library. It stays mapped until the process ends.
#[derive(Clone, Copy)]
pub struct Library {
    root: PluginRoot_Ref,
}

impl Library {
    /// Opens `copy`, the private copy of a library that may run: runs its initialisers, checks version and layout.
    #[allow(unsafe_code)]
    pub fn open(info: &PluginInfo, copy: &Path) -> Result<Library, Error> {
        let refuse = |reason: String| {
            Error::said(format!("plugin {} ({}) {reason}", info.plugin, info.path.display()))
        };
        count();
        // SAFETY: the build or the user vouches for the bytes of this library, which is what trusting it means (in
        // `check`, for one process that does nothing else); nobody but the user can change the copy while it is mapped.
        let library = unsafe { open_library(copy) }
            .map_err(|error| refuse(format!("does not load: {error}; rebuild it for this machine")))?;
        // SAFETY: the symbol is a `LibHeader` if its first bytes are the magic; nothing else is read before that
        // holds. The reference lives as long as the library, which is forgotten below and so never unloaded.
        let header: &'static LibHeader = unsafe {
            let symbol = library
                .get::<*const LibHeader>(HEADER_SYMBOL.as_bytes())
                .map_err(|_| refuse("exports no plugin header; add `export_plugin!()`".into()))?;
            &**symbol
        };
        std::mem::forget(library);
        if header.magic != MAGIC {
            return Err(refuse(
                "has a header this host does not know; rebuild it against its plugin-api".into(),
            ));
        }
        let [major, minor, patch] = header.api_version;
        if major != API_VERSION.0 {
            let (host_major, host_minor, host_patch) = API_VERSION;
            return Err(refuse(format!(
                "speaks ABI {major}.{minor}.{patch}, this host {host_major}.{host_minor}.{host_patch}; \
                 rebuild it against plugin-api {host_major}"
            )));
        }
        if header.op_set_version > OP_SET_VERSION {
            tracing::debug!(
                "{} knows op set {}, this host {OP_SET_VERSION}",
                info.plugin,
                header.op_set_version
            );
        }
        let (theirs, ours) = ((header.layout)(), <PluginRoot_Ref as StableAbi>::LAYOUT);
        layout::check(theirs, ours, minor > API_VERSION.1).map_err(|difference| {
            refuse(format!("has another layout than ABI {major}.{minor} says ({difference}); rebuild it"))
        })?;
        let root = (header.root)();
        // A library from before ABI 1.1 has no log.
        if let Some(into) = root.log() {
            let (sink, greatest) = log::sink(&info.plugin);
            into(sink, greatest);
        }
        Ok(Library { root })
    }

    pub fn components(&self) -> Vec<Component> {
        let plugin = self.root.plugin().to_string();
        let entries = (self.root.components())();
        entries.into_iter().map(|entry| Component { plugin: plugin.clone(), entry }).collect()
    }
}

#[allow(unsafe_code)]
#[cfg(unix)]
unsafe fn open_library(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: as the caller says.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map(Into::into) }
}

#[allow(unsafe_code)]
#[cfg(not(unix))]
unsafe fn open_library(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: as the caller says.
    unsafe { libloading::Library::new(path) }
}

/// A component of an open library. Every method is a call into the plugin.
#[derive(Clone)]
pub struct Component {
    pub plugin: String,
    entry: ComponentEntry_Ref,
}

impl Component {
    pub fn kind(&self) -> u8 {
        self.entry.kind()
    }

    pub fn name(&self) -> String {
        self.entry.name().to_string()
    }

    pub fn summary(&self) -> String {
        self.entry.summary().to_string()
    }

    /// JSON schema of the options.
    pub fn schema(&self) -> Result<serde_json::Value, Error> {
        let text = self.outcome((self.entry.schema())())?;
        serde_json::from_str(&text)
            .map_err(|error| self.error(&format!("has a malformed options schema ({error})"), ""))
    }

    /// The options with every default filled in.
    pub fn resolve(&self, options: &serde_json::Value) -> Result<serde_json::Value, Error> {
        let text = self.outcome((self.entry.resolve())(options.to_string().as_str().into()))?;
        serde_json::from_str(&text)
            .map_err(|error| self.error(&format!("returned malformed options ({error})"), ""))
    }

    /// What the component has against its options.
    pub fn validate(&self, options: &serde_json::Value, dims: &Dims) -> Result<Vec<Fault>, Error> {
        let dims = serde_json::to_string(dims).map_err(|error| self.error(&error.to_string(), ""))?;
        let faults = (self.entry.validate())(options.to_string().as_str().into(), dims.as_str().into());
        let faults = self.outcome(faults)?;
        Ok(faults.into_iter().map(|fault| (fault.key.into(), fault.message.into())).collect())
    }

    pub fn model(&self, options: &serde_json::Value) -> Result<ModelObject_TO<'static, RBox<()>>, Error> {
        self.outcome((self.entry.make_model())(options.to_string().as_str().into()))
    }

    pub fn attention(
        &self,
        options: &serde_json::Value,
    ) -> Result<AttentionObject_TO<'static, RBox<()>>, Error> {
        self.outcome((self.entry.make_attention())(options.to_string().as_str().into()))
    }

    pub fn optimizer(
        &self,
        options: &serde_json::Value,
    ) -> Result<OptimizerObject_TO<'static, RBox<()>>, Error> {
        self.outcome((self.entry.make_optimizer())(options.to_string().as_str().into()))
    }

    pub fn eval(&self, options: &serde_json::Value) -> Result<EvalObject_TO<'static, RBox<()>>, Error> {
        let older = || self.error("was built before there were evals", "");
        let make = self.entry.make_eval().ok_or_else(older)?;
        self.outcome(make(options.to_string().as_str().into()))
    }

    /// Counts the call that gave `result` and names the plugin in its error.
    pub fn outcome<T>(&self, result: RResult<T, PluginError>) -> Result<T, Error> {
        count();
        match result {
            ROk(value) => Ok(value),
            RErr(error) => Err(self.error(&error.message, &error.location)),
        }
    }

    fn error(&self, message: &str, location: &str) -> Error {
        let place = if location.is_empty() { String::new() } else { format!(" (at {location})") };
        let kind = kind::NAMES.get(usize::from(self.kind())).copied().unwrap_or("component");
        Error::said(format!("{kind} {} of plugin {}: {message}{place}", self.name(), self.plugin))
    }
}

fn count() {
    CALLS.fetch_add(1, Ordering::Relaxed);
}
