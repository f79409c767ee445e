//! The ABI file against its snapshots: plugins that were built against a published version must keep working, so a
//! version is the one before it with things appended (docs/abi.md). `cargo xtask abi-snapshot` freezes a version.

mod compare;

use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{File, Item};

/// A state of the ABI file.
struct State {
    path: PathBuf,
    file: File,
}

impl State {
    fn read(path: PathBuf) -> State {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        State {
            file: syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            path,
        }
    }

    fn version(&self) -> (u32, u32) {
        let constant = |item: &Item| match item {
            Item::Const(item) if item.ident == "API_VERSION" => Some(item.expr.to_token_stream().to_string()),
            _ => None,
        };
        let text = self.file.items.iter().find_map(constant).expect("the file says its version");
        let numbers: Vec<u32> = text
            .trim_matches(['(', ')', ' '])
            .split(',')
            .map(|number| number.trim().parse().expect("a version is three numbers"))
            .collect();
        (numbers[0], numbers[1])
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn present() -> State {
    State::read(folder("src/abi.rs"))
}

/// Snapshots of the present major version, oldest first.
fn snapshots() -> Vec<State> {
    let entries = std::fs::read_dir(folder("snapshots")).expect("the snapshots lie beside the source");
    let mut all: Vec<State> =
        entries.map(|entry| State::read(entry.expect("it is readable").path())).collect();
    all.sort_by_key(State::version);
    let major = present().version().0;
    all.retain(|state| state.version().0 == major);
    all
}

#[test]
fn a_version_is_the_one_before_it_and_more() {
    let mut all = snapshots();
    all.push(present());
    for pair in all.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        let ((major, minor), next) = (old.version(), new.version());
        let mut faults = compare::faults(&old.file, &new.file);
        if next == (major, minor) {
            // It is published: nothing can be added to it either.
            let added = compare::faults(&new.file, &old.file);
            if faults.is_empty() && !added.is_empty() {
                faults.push(format!(
                    "ABI {major}.{minor} is frozen and this adds to it: say {major}.{} in API_VERSION, \
                     API_VERSION_TEXT and plugin-api/Cargo.toml",
                    minor + 1
                ));
            }
        }
        assert!(
            faults.is_empty(),
            "{} is not {} with things appended (docs/abi.md says what may change):\n  {}",
            new.path.display(),
            old.path.display(),
            faults.join("\n  ")
        );
    }
}

#[test]
fn versions_are_said_alike() {
    for state in snapshots() {
        let (major, minor) = state.version();
        let name = format!("abi-{major}.{minor}.rs");
        assert_eq!(state.path.file_name(), Some(name.as_ref()), "a snapshot is named by the version in it");
    }
    let (major, minor, patch) = plugin_api::abi::API_VERSION;
    let text = format!("{major}.{minor}.{patch}");
    assert_eq!(plugin_api::abi::API_VERSION_TEXT, text, "API_VERSION_TEXT is API_VERSION");
    assert_eq!(env!("CARGO_PKG_VERSION"), text, "the version of the package is that of the ABI");
}

/// What the comparison says of ABI 1.0, which never changes, after `from` became `to`; empty if nothing.
fn said(from: &str, to: &str) -> String {
    let old = State::read(folder("snapshots/abi-1.0.rs"));
    let text = std::fs::read_to_string(&old.path).expect("it was read before");
    assert_eq!(text.matches(from).count(), 1, "{from:?} is in the ABI file once");
    let changed = syn::parse_file(&text.replace(from, to)).expect("it is still Rust");
    compare::faults(&old.file, &changed).join("\n")
}

/// The last lines of GraphBuilder, PluginRoot and the numbers of initial values.
const LAST_METHOD: &str = "    fn vocab(&self) -> u64;\n";
const LAST_FIELD: &str = "    pub components: extern \"C\" fn() -> RVec<ComponentEntry_Ref>,\n";
const LAST_NUMBER: &str = "    pub const CONSTANT: u8 = 2;\n";

#[test]
fn what_breaks_plugins_is_named_with_the_remedy() {
    let after = |line: &str, what: &str| (line.to_string(), format!("{line}{what}"));
    let instead = |from: &str, to: &str| (from.to_string(), to.to_string());
    for ((from, to), parts) in [
        (
            instead("vocab(&self) -> u64", "vocab(&self) -> u32"),
            &["method vocab of trait GraphBuilder was"][..],
        ),
        (instead("    fn pop_scope(&self);\n", ""), &["lost its method pop_scope", "put it back"]),
        (
            instead("    fn pop_scope(&self);\n", "    fn peek(&self) {}\n    fn pop_scope(&self);\n"),
            &["the method peek where pop_scope was", "append"],
        ),
        (after(LAST_METHOD, "    fn later(&self);\n"), &["new method later without a body", "give it one"]),
        (
            after(LAST_METHOD, "    #[sabi(last_prefix_field)]\n    fn later(&self) {}\n"),
            &["new method later that ends the prefix"],
        ),
        (after("    pub auxiliary: u32,\n", "    pub third: u32,\n"), &["LossIds", "third", "size"]),
        (instead("pub const BIAS: u8 = 3;", "pub const BIAS: u8 = 9;"), &["constant role::BIAS was", "9"]),
        (after(LAST_NUMBER, "    pub const ONES: u8 = 2;\n"), &["init::ONES is 2, which is CONSTANT"]),
        (instead("\"attention\", \"optimizer\"]", "\"optimizer\", \"attention\"]"), &["kind::NAMES was"]),
        (instead("    pub op_set_version: u32,\n", ""), &["LibHeader lost its field op_set_version"]),
        (instead("pub const POISON: u32 = u32::MAX;", ""), &["constant POISON is gone"]),
        (
            instead("pub type BuilderRef<'a> = GraphBuilder_TO", "pub type BuilderRef<'a> = X"),
            &["BuilderRef was"],
        ),
    ] {
        let said = said(&from, &to);
        for part in parts {
            assert!(said.contains(part), "{part:?} is missing in: {said}");
        }
    }
}

#[test]
fn what_is_appended_is_welcome() {
    let names = "[&str; 3] = [\"model\", \"attention\", \"optimizer\"]";
    for (from, to) in [
        (LAST_METHOD, &format!("{LAST_METHOD}    fn later(&self) {{}}\n")[..]),
        (LAST_FIELD, &format!("{LAST_FIELD}    pub home: RStr<'static>,\n")),
        (LAST_NUMBER, &format!("{LAST_NUMBER}    pub const ONES: u8 = 3;\n")),
        (names, "[&str; 4] = [\"model\", \"attention\", \"optimizer\", \"eval\"]"),
        ("/// An operand that is not there.", "/// No operand.\npub const NOBODY: u8 = 0;\n"),
    ] {
        assert_eq!(said(from, to), "", "{to}");
    }
}
