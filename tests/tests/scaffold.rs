//! New plugins as `host plugins new` makes them: each kind builds outside of the workspace, passes its own test, is found
//! and trains.

use std::path::Path;

use host_tests::{Outcome, Run, SMALL, Sandbox, host, root, says};

/// Options of `SMALL` that the model or the backbone of the run does not have are left out.
fn sizes(without: &[&str]) -> Vec<&'static str> {
    SMALL.iter().copied().filter(|set| without.iter().all(|name| !set.contains(name))).collect()
}

/// Cargo in the folder of a new crate, with the dependencies that the workspace has already compiled.
fn cargo(sandbox: &Sandbox, folder: &str, words: &[&str]) {
    let target = host().ancestors().nth(2).expect("target/release/host").to_path_buf();
    let mut cargo = sandbox.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(sandbox.path(folder)).args(words).args(["--release", "--quiet", "--offline"]);
    let output = cargo.env("CARGO_TARGET_DIR", target).output().expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {words:?} in {folder}: {said}");
    assert_eq!(said, "", "a new plugin compiles without warnings");
}

/// Makes, tests and builds a plugin, lays it into `plugins`, and trains with it for two steps.
#[track_caller]
fn grows(kind: &str, package: &str, flag: &str, without: &[&str]) {
    let sandbox = Sandbox::new();
    let made = sandbox.host(&["plugins", "new", kind, "first"]).succeeded().stdout;
    says(&made, &[&format!("made {package}"), &format!("cd {package}"), "cargo build --release"]);
    says(&made, &[&format!("host plugins trust {package}"), &format!("host run {flag} first")]);
    let source = sandbox.path(&format!("{package}/src/lib.rs"));
    assert!(source.is_file());

    // The versions of the workspace, which need no registry.
    std::fs::copy(root().join("Cargo.lock"), sandbox.path(&format!("{package}/Cargo.lock"))).expect("a copy");
    cargo(&sandbox, package, &["test"]);
    cargo(&sandbox, package, &["build"]);
    let library = package.replace('-', "_");
    let file = format!("{}{library}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let bytes = std::fs::read(host().with_file_name(&file)).expect("cargo built it");
    sandbox.write(&format!("plugins/{file}"), bytes);

    let with_it = |words: &[&str]| {
        let output = sandbox.command(host()).env("HOST_PLUGIN_PATH", "plugins").args(words).output();
        Outcome::of(words, output.expect("the host starts"))
    };
    with_it(&["plugins", "trust", package]).succeeded();
    let info = with_it(&["plugins", "info", "first"]).succeeded().stdout;
    says(&info, &[&format!("{kind} first (plugin {package})"), "option", "default", "range"]);
    let chosen = [flag, "first"];
    let words = [&["run", "--steps=2", "--out=run"], &chosen[..], &sizes(without)].concat();
    with_it(&words).succeeded();
    let losses = Run::at(sandbox.path("run")).losses();
    assert!(losses.len() == 2 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");

    // Its name is taken now, and its folder too.
    says(&with_it(&["plugins", "new", kind, "first"]).failed(), &[package, "choose another name"]);
    std::fs::write(&source, "mine").expect("the sandbox is writable");
    let refused = sandbox.host(&["plugins", "new", kind, "first"]).failed();
    says(&refused, &[package, "exists already and is left as it is"]);
    assert_eq!(std::fs::read_to_string(&source).expect("it is there"), "mine");
}

#[test]
fn a_new_attention_backbone_trains() {
    grows("attention", "attention-first", "--attention", &[]);
}

#[test]
fn a_new_optimizer_trains() {
    grows("optimizer", "optim-first", "--optim", &[]);
}

#[test]
fn a_new_model_trains() {
    grows("model", "model-first", "--plugin", &[]);
}

#[test]
fn names_and_folders_are_checked() {
    let sandbox = Sandbox::new();
    says(
        &sandbox.host(&["plugins", "new", "attention", "../up"]).failed(),
        &["\"../up\"", "a name is one like sliding-window"],
    );
    says(&sandbox.host(&["plugins", "new", "attention", "full"]).failed(), &["attention-full", "already"]);
    let unknown = sandbox.host(&["plugins", "new", "eval", "mine"]);
    assert_eq!(unknown.code, Some(2));
    says(&unknown.stderr, &["eval", "possible values: model, attention, optimizer"]);
    sandbox.host(&["plugins", "new", "model", "mine", "--path", "deep/folder"]).succeeded();
    let manifest = std::fs::read_to_string(sandbox.path("deep/folder/Cargo.toml")).expect("it was made");
    says(&manifest, &["name = \"model-mine\"", "plugin-api\", version = \"", "[workspace]"]);
    assert!(!sandbox.path("model-mine").exists());
}

/// Every message of the page is one that the source still says, in the parts between the names and numbers.
#[test]
fn the_page_of_errors_quotes_the_source() {
    fn read(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).expect("a folder of the workspace").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => read(&path, text),
                false if path.extension().is_some_and(|ending| ending == "rs") => {
                    *text += &std::fs::read_to_string(&path).expect("a source file");
                }
                false => {}
            }
        }
    }
    let mut source = String::new();
    for folder in ["host/engine/src", "host/graph/src", "plugin-api/src"] {
        read(&root().join(folder), &mut source);
    }
    let page = std::fs::read_to_string(root().join("docs/errors.md")).expect("the page");
    let messages: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(messages.len() > 30, "{}", messages.len());
    for message in messages {
        for part in message.split('…').map(str::trim).filter(|part| !part.is_empty()) {
            assert!(source.contains(part), "{message:?}: nothing says {part:?}");
        }
    }
}
