//! Which components there are and where they are looked for.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use plugin_api::abi::kind;

use super::{Accepted, Component, ComponentInfo, Library, PluginInfo, Trust, copies, metadata};
use crate::Error;
use crate::nearest::suggest;

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Model,
    Attention,
    Optimizer,
    Eval,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Model, Kind::Attention, Kind::Optimizer, Kind::Eval];

    pub fn code(self) -> u8 {
        match self {
            Kind::Model => kind::MODEL,
            Kind::Attention => kind::ATTENTION,
            Kind::Optimizer => kind::OPTIMIZER,
            Kind::Eval => kind::EVAL,
        }
    }

    pub fn name(self) -> &'static str {
        kind::NAMES[self.code() as usize]
    }
}

/// A folder of the search path.
#[derive(Clone, Debug)]
pub struct Folder {
    pub path: PathBuf,
    /// Why it is one, in words.
    pub origin: &'static str,
}

/// Libraries of the search path, listed by their metadata and opened on first use, if they may run.
pub struct Registry {
    /// In the order in which they are searched.
    pub folders: Vec<Folder>,
    pub trust: Trust,
    pub plugins: Vec<PluginInfo>,
    /// Library files that are no usable plugins, and why.
    pub rejected: Vec<(PathBuf, String)>,
    open: RefCell<HashMap<PathBuf, Library>>,
}

impl Registry {
    /// Looks in `HOST_PLUGIN_PATH`, then beside the executable, then in `lib/host` of its prefix. No plugin code runs,
    /// and later none but that of the build and of the plugins that the user trusts.
    pub fn discover() -> Registry {
        let mut folders = Vec::new();
        let mut add = |path: PathBuf, origin: &'static str| folders.push(Folder { path, origin });
        if let Some(path) = std::env::var_os("HOST_PLUGIN_PATH") {
            let named = std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty());
            named.for_each(|folder| add(folder, "HOST_PLUGIN_PATH"));
        }
        beside_executable("plugins").into_iter().for_each(|folder| add(folder, "the host's own"));
        Registry::search(folders, Trust::of_user())
    }

    /// Looks in `folders`. The caller vouches for everything in them: no lock file is asked.
    pub fn of(folders: Vec<PathBuf>) -> Registry {
        let folders = folders.into_iter().map(|path| Folder { path, origin: "given" }).collect();
        Registry::search(folders, Trust::everything())
    }

    fn search(folders: Vec<Folder>, trust: Trust) -> Registry {
        let (mut plugins, mut rejected) = (Vec::new(), Vec::new());
        // A folder may be named twice, by HOST_PLUGIN_PATH and as the host's own.
        let mut seen = HashSet::new();
        let files = folders.iter().flat_map(|folder| libraries(&folder.path));
        for path in files.filter(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone()))) {
            match metadata::read(&path) {
                Ok(info) => plugins.push(info),
                Err(reason) => rejected.push((path, reason)),
            }
        }
        Registry { folders, trust, plugins, rejected, open: RefCell::default() }
    }

    /// The library at a path, or that of the plugin called so.
    pub fn named(&self, word: &str) -> Result<PluginInfo, Error> {
        let path = Path::new(word);
        if path.components().count() > 1 || path.is_file() {
            return metadata::read(path).map_err(|reason| Error::said(format!("{word} {reason}")));
        }
        let matches: Vec<&PluginInfo> = self.plugins.iter().filter(|info| info.plugin == word).collect();
        match matches[..] {
            [info] => Ok(info.clone()),
            [] => {
                let advice = suggest(word, self.plugins.iter().map(|info| info.plugin.as_str()));
                Err(Error::said(format!(
                    "there is no file {word:?} here and no plugin of that name in the search path{advice}"
                )))
            }
            [first, second, ..] => Err(Error::said(format!(
                "two libraries call themselves {word}: {} and {}; say which file you mean",
                first.path.display(),
                second.path.display()
            ))),
        }
    }

    /// Why a library may run, or the sentence with which it would be refused. None of its code runs.
    pub fn standing(&self, info: &PluginInfo) -> Result<Accepted, Error> {
        self.trust.judge(info).map(|judged| judged.accepted)
    }

    /// Why plugins of the search path would be refused, one sentence each. Their bytes are read and hashed side by side.
    pub fn refusals(&self) -> Vec<Error> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = self.plugins.len().div_ceil(threads).max(1);
        let trust = &self.trust;
        let judge = |plugins: &[PluginInfo]| -> Vec<Error> {
            plugins.iter().filter_map(|info| trust.judge(info).err()).collect()
        };
        std::thread::scope(|scope| {
            let shares: Vec<_> =
                self.plugins.chunks(share).map(|plugins| scope.spawn(move || judge(plugins))).collect();
            // A thread that panicked has found nothing: the plugin is judged again when it is used.
            shares.into_iter().flat_map(|share| share.join().unwrap_or_default()).collect()
        })
    }

    /// All announced components of a kind, with their plugins.
    pub fn components(&self, kind: Kind) -> impl Iterator<Item = (&PluginInfo, &ComponentInfo)> {
        let all =
            self.plugins.iter().flat_map(|plugin| plugin.components.iter().map(move |each| (plugin, each)));
        all.filter(move |(_, component)| component.kind == kind.name())
    }

    /// The component called `name` or `plugin/name`, opened.
    pub fn find(&self, kind: Kind, name: &str) -> Result<Component, Error> {
        let (plugin, short) = match name.split_once('/') {
            Some((plugin, short)) => (Some(plugin), short),
            None => (None, name),
        };
        let matches: Vec<&PluginInfo> = self
            .components(kind)
            .filter(|(info, component)| {
                component.name == short && plugin.is_none_or(|plugin| info.plugin == plugin)
            })
            .map(|(info, _)| info)
            .collect();
        let info = match matches[..] {
            [info] => info,
            [] => return Err(self.unknown(kind, name)),
            [first, second, ..] => {
                let advice = if first.plugin == second.plugin {
                    "take one of them out of the search path".to_string()
                } else {
                    format!("say {}/{short} or {}/{short}", first.plugin, second.plugin)
                };
                return Err(Error::said(format!(
                    "two plugins have {} {short:?}: {} ({}) and {} ({}); {advice}",
                    kind.name(),
                    first.plugin,
                    first.path.display(),
                    second.plugin,
                    second.path.display(),
                )));
            }
        };
        let library = self.library(info)?;
        let found = library
            .components()
            .into_iter()
            .find(|component| component.kind() == kind.code() && component.name() == short);
        found.ok_or_else(|| {
            Error::said(format!(
                "plugin {} announces {} {short} but does not have it; rebuild it",
                info.plugin,
                kind.name()
            ))
        })
    }

    fn library(&self, info: &PluginInfo) -> Result<Library, Error> {
        if let Some(library) = self.open.borrow().get(&info.path) {
            return Ok(*library);
        }
        let judged = self.trust.judge(info)?;
        let hint =
            "the plugin cannot be used; check free space and permissions of the folder for temporary files";
        let copy = copies::private(&judged.bytes, &judged.sha256).map_err(Error::file(&info.path, hint))?;
        let library = Library::open(info, &copy.path)?;
        self.open.borrow_mut().insert(info.path.clone(), library);
        Ok(library)
    }

    fn unknown(&self, kind: Kind, name: &str) -> Error {
        let qualified = name.contains('/');
        let known: Vec<String> = self
            .components(kind)
            .map(|(info, component)| match qualified {
                true => format!("{}/{}", info.plugin, component.name),
                false => component.name.clone(),
            })
            .collect();
        let folders: Vec<String> =
            self.folders.iter().map(|folder| folder.path.display().to_string()).collect();
        let looked = format!("looked in {}", folders.join(", "));
        let advice = if known.is_empty() {
            "; build plugins with `cargo xtask build`".to_string()
        } else {
            suggest(name, known.iter().map(String::as_str))
        };
        Error::said(format!("there is no {} {name:?}{advice} ({looked})", kind.name()))
    }
}

/// `name` beside the executable and below `lib/host` of its prefix, where they exist.
pub fn beside_executable(name: &str) -> Vec<PathBuf> {
    let executable = std::env::current_exe().and_then(|path| path.canonicalize());
    let Some(folder) = executable.ok().and_then(|path| path.parent().map(Path::to_path_buf)) else {
        return Vec::new();
    };
    let places = [folder.join(name), folder.join("../lib/host").join(name)];
    places.into_iter().filter(|place| place.is_dir()).collect()
}

/// Library files of a folder, sorted.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == std::env::consts::DLL_EXTENSION));
    files.sort();
    files
}
