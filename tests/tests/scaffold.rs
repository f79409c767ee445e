//! New plugins as `host plugins new` makes them: each kind builds outside of the workspace, passes its own test, is found
//! and trains, or measures.

use std::path::Path;

use host_tests::{Outcome, Run, SMALL, Sandbox, host, root, says};

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

/// A host beside a new plugin that was made, tested, built, laid into `plugins` and trusted.
struct Grown {
    sandbox: Sandbox,
    package: &'static str,
}

impl Grown {
    /// `trial` is what the host says to type to see the plugin at work.
    #[track_caller]
    fn new(kind: &str, package: &'static str, trial: &str) -> Grown {
        let sandbox = Sandbox::new();
        let made = sandbox.host(&["plugins", "new", kind, "first"]).succeeded().stdout;
        says(&made, &[&format!("made {package}"), &format!("cd {package}"), "cargo build --release"]);
        says(&made, &[&format!("host plugins trust {package}"), &format!("host {trial}")]);

        // The versions of the workspace, which need no registry.
        std::fs::copy(root().join("Cargo.lock"), sandbox.path(&format!("{package}/Cargo.lock")))
            .expect("a copy");
        cargo(&sandbox, package, &["test"]);
        cargo(&sandbox, package, &["build"]);
        let library = package.replace('-', "_");
        let file = format!("{}{library}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let bytes = std::fs::read(host().with_file_name(&file)).expect("cargo built it");
        sandbox.write(&format!("plugins/{file}"), bytes);

        let grown = Grown { sandbox, package };
        grown.host(&["plugins", "trust", package]).succeeded();
        let info = grown.host(&["plugins", "info", "first"]).succeeded().stdout;
        says(&info, &[&format!("{kind} first (plugin {package})"), "option", "default", "range"]);
        grown
    }

    fn host(&self, words: &[&str]) -> Outcome {
        let output = self.sandbox.command(host()).env("HOST_PLUGIN_PATH", "plugins").args(words).output();
        Outcome::of(words, output.expect("the host starts"))
    }

    /// Two steps with these flags.
    fn trains(&self, chosen: &[&str]) {
        let words = [&["run", "--steps=2", "--out=run"], chosen, SMALL].concat();
        self.host(&words).succeeded();
        let losses = Run::at(self.sandbox.path("run")).losses();
        assert!(losses.len() == 2 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    }

    /// Its name is taken now, and its folder too.
    fn is_taken(&self, kind: &str) {
        let (package, words) = (self.package, ["plugins", "new", kind, "first"]);
        says(&self.host(&words).failed(), &[package, "choose another name"]);
        let source = self.sandbox.write(&format!("{package}/src/lib.rs"), "mine");
        let refused = self.sandbox.host(&words).failed();
        says(&refused, &[package, "exists already and is left as it is"]);
        assert_eq!(std::fs::read_to_string(&source).expect("it is there"), "mine");
    }
}

/// A kind that a run is made with.
#[track_caller]
fn grows(kind: &str, package: &'static str, flag: &str) {
    let grown = Grown::new(kind, package, &format!("run {flag} first --steps 20"));
    grown.trains(&[flag, "first"]);
    grown.is_taken(kind);
}

#[test]
fn a_new_eval_measures() {
    let grown = Grown::new("eval", "eval-first", "eval RUN --task first");
    grown.trains(&[]);
    let table = grown.host(&["eval", "run", "--task=first", "--set=first.tokens=9"]).succeeded().stdout;
    says(&table, &["first", "accuracy", "%"]);
    let outcome = Run::at(grown.sandbox.path("run")).json("evals/first.json");
    let metric = &outcome["metrics"][0];
    let number = |key: &str| metric[key].as_f64().expect("a number");
    assert_eq!((metric["n"].as_u64(), outcome["options"]["tokens"].as_u64()), (Some(8), Some(9)));
    assert!(number("low") <= number("value") && number("value") <= number("high"), "{outcome}");
    let refused = grown.host(&["eval", "run", "--task=first", "--set=first.token=9"]).failed();
    says(&refused, &["first", "token"]);
    grown.is_taken("eval");
}

#[test]
fn a_new_attention_backbone_trains() {
    grows("attention", "attention-first", "--attention");
}

#[test]
fn a_new_optimizer_trains() {
    grows("optimizer", "optim-first", "--optim");
}

#[test]
fn a_new_model_trains() {
    grows("model", "model-first", "--plugin");
}

#[test]
fn names_and_folders_are_checked() {
    let sandbox = Sandbox::new();
    says(
        &sandbox.host(&["plugins", "new", "attention", "../up"]).failed(),
        &["\"../up\"", "a name is one like sliding-window"],
    );
    says(&sandbox.host(&["plugins", "new", "attention", "full"]).failed(), &["attention-full", "already"]);
    let unknown = sandbox.host(&["plugins", "new", "kernel", "mine"]);
    assert_eq!(unknown.code, Some(2));
    says(&unknown.stderr, &["kernel", "possible values: model, attention, optimizer, eval"]);
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
