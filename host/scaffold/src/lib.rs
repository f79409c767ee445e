//! What a new plugin begins as: one template for each kind, and how it becomes a folder.
//!
//! `cargo xtask new-plugin` puts the folder into this workspace, `host plugins new` outside of it; both write the same
//! source file. What is made builds, does something small and correct, and has a test that traces it, so that an author
//! changes a plugin that works.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};

/// What the component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Model,
    Attention,
    Optimizer,
    Eval,
}

/// What depends on the kind.
struct Template {
    word: &'static str,
    /// Begins the package's name.
    prefix: &'static str,
    /// Ends the type's name, which keeps it apart from every name of the façade.
    suffix: &'static str,
    /// What follows `host` to try a component of this kind.
    trial: &'static str,
    summary: &'static str,
    source: &'static str,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Model, Kind::Attention, Kind::Optimizer, Kind::Eval];

    fn template(self) -> Template {
        match self {
            Kind::Model => Template {
                word: "model",
                prefix: "model",
                suffix: "Model",
                trial: "run --plugin @NAME@ --steps 20",
                summary: "Blocks of attention and gated feed-forward layers.",
                source: include_str!("../templates/model.rs"),
            },
            Kind::Attention => Template {
                word: "attention",
                prefix: "attention",
                suffix: "Attention",
                trial: "run --attention @NAME@ --steps 20",
                summary: "Causal softmax attention by cosines.",
                source: include_str!("../templates/attention.rs"),
            },
            Kind::Optimizer => Template {
                word: "optimizer",
                prefix: "optim",
                suffix: "Optimizer",
                trial: "run --optim @NAME@ --steps 20",
                summary: "Gradient descent with momentum.",
                source: include_str!("../templates/optimizer.rs"),
            },
            Kind::Eval => Template {
                word: "eval",
                prefix: "eval",
                suffix: "Eval",
                trial: "eval RUN --task @NAME@",
                summary: "How often the next token is the most probable one.",
                source: include_str!("../templates/eval.rs"),
            },
        }
    }

    /// `model`, `attention`, `optimizer` or `eval`.
    pub fn word(self) -> &'static str {
        self.template().word
    }

    /// The kind that a word names.
    pub fn named(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// What to type after `host` to try the component: a short run with it, or itself on a run.
    pub fn trial(self, name: &str) -> String {
        self.template().trial.replace("@NAME@", name)
    }
}

/// Where the new crate lies.
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// In plugins/ of the workspace.
    Workspace,
    /// Anywhere else. `source` is the workspace's root, `api` the version of plugin-api there.
    Outside { source: &'p Path, api: &'p str },
}

/// Why nothing was made.
#[derive(Debug, PartialEq)]
pub struct Refused(String);

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A plugin that could be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Name of the package, and of its folder: `attention-NAME`.
    pub package: String,
    /// Content of Cargo.toml.
    pub manifest: String,
    /// Content of src/lib.rs.
    pub source: String,
}

/// Most characters of a component's name.
const LONGEST: usize = 40;

impl Plugin {
    /// The files of a component, in memory. A name is words of small letters and digits with hyphens between them.
    pub fn new(kind: Kind, name: &str, place: Place<'_>) -> Result<Plugin, Refused> {
        check(name)?;
        let Template { prefix, suffix, summary, source, .. } = kind.template();
        let package = format!("{prefix}-{name}");
        let type_name = format!("{}{suffix}", camel_case(name));
        let manifest = match place {
            Place::Workspace => include_str!("../templates/workspace.toml").to_string(),
            Place::Outside { source, api } => {
                let source = source.display().to_string().replace('\\', "/");
                include_str!("../templates/outside.toml").replace("@SOURCE@", &source).replace("@API@", api)
            }
        };
        let filled = |text: &str| {
            let text = text.replace("@PACKAGE@", &package).replace("@NAME@", name);
            text.replace("@TYPE@", &type_name).replace("@SUMMARY@", summary)
        };
        Ok(Plugin { manifest: filled(&manifest), source: filled(source), package })
    }

    /// Writes the files into a new folder. One that is there is refused and stays as it is.
    pub fn write(&self, folder: &Path) -> Result<(), Refused> {
        let failed = |path: &Path, error: std::io::Error| {
            Refused(format!("{} cannot be made: {error}", path.display()))
        };
        if folder.symlink_metadata().is_ok() {
            let advice = "choose another name or folder";
            return Err(Refused(format!(
                "{} exists already and is left as it is; {advice}",
                folder.display()
            )));
        }
        let sources = folder.join("src");
        std::fs::create_dir_all(&sources).map_err(|error| failed(&sources, error))?;
        for (path, text) in
            [(folder.join("Cargo.toml"), &self.manifest), (sources.join("lib.rs"), &self.source)]
        {
            std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

/// The workspace that this crate was compiled in, if it still lies there.
pub fn source() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    root.join("plugin-api/Cargo.toml").is_file().then(|| root.to_path_buf())
}

fn check(name: &str) -> Result<(), Refused> {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fault = if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        "does not begin with a small letter"
    } else if name.len() > LONGEST {
        "is longer than 40 characters"
    } else if name.split('-').any(str::is_empty) {
        "has a hyphen that joins nothing"
    } else if !name.chars().all(|c| is_letter(c) || c == '-') {
        "has other characters than small letters, digits and hyphens"
    } else {
        return Ok(());
    };
    Err(Refused(format!("{name:?} {fault}; a name is one like sliding-window or lion2")))
}

/// `sliding-window` is SlidingWindow.
fn camel_case(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(capital).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["a", "lion2", "sliding-window", &"x".repeat(LONGEST)] {
            assert!(Plugin::new(Kind::Model, name, Place::Workspace).is_ok(), "{name}");
        }
        let long = "x".repeat(LONGEST + 1);
        for name in
            ["", "-a", "a-", "a--b", "A", "2d", "a_b", "a/b", "../a", "a b", "\u{e9}t\u{e9}", "a.b", &long]
        {
            let refused = Plugin::new(Kind::Model, name, Place::Workspace).unwrap_err().to_string();
            assert!(refused.contains(&format!("{name:?}")), "{refused}");
        }
    }

    #[test]
    fn nothing_of_a_template_stays_open() {
        let place = Place::Outside { source: Path::new("/src"), api: "1.2.3" };
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.word()), Some(kind));
            for place in [Place::Workspace, place] {
                let plugin = Plugin::new(kind, "two-words", place).unwrap();
                assert!(!plugin.manifest.contains('@') && !plugin.source.contains('@'), "{plugin:?}");
                assert!(plugin.source.contains(&format!("TwoWords{}", kind.template().suffix)));
                assert!(plugin.manifest.contains(&format!("name = \"{}\"", plugin.package)));
            }
        }
        assert_eq!(Kind::named("kernel"), None);
        assert_eq!(Kind::Eval.trial("mine"), "eval RUN --task mine");
    }

    #[test]
    fn what_exists_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = Plugin::new(Kind::Optimizer, "new", Place::Workspace).unwrap();
        let (taken, free) = (folder.path().join("taken"), folder.path().join("a/free"));
        std::fs::create_dir(&taken).unwrap();
        let refused = plugin.write(&taken).unwrap_err().to_string();
        assert!(refused.contains("taken exists already"), "{refused}");
        assert_eq!(std::fs::read_dir(&taken).unwrap().count(), 0);
        plugin.write(&free).unwrap();
        assert_eq!(std::fs::read_to_string(free.join("src/lib.rs")).unwrap(), plugin.source);
        std::fs::write(free.join("src/lib.rs"), "mine").unwrap();
        assert!(plugin.write(&free).is_err());
        assert_eq!(std::fs::read_to_string(free.join("src/lib.rs")).unwrap(), "mine");
    }

    /// A page shows the plugin that the tests of the workspace make and build, up to its own test.
    #[test]
    fn the_pages_show_what_is_made() {
        let root = source().expect("tests run where they were compiled");
        for kind in Kind::ALL {
            let path = root.join(format!("docs/plugins/{}.md", kind.word()));
            let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let listing = page.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
            let source = Plugin::new(kind, "first", Place::Workspace).unwrap().source;
            let shown = source.split("\n#[cfg(test)]").next().unwrap();
            assert_eq!(
                listing,
                Some(shown),
                "copy the listing of {path:?} from templates/{}.rs",
                kind.word()
            );
        }
    }
}
