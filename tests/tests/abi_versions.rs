//! Plugins of other ABI versions than the host's: older minors run, newer ones run while they ask for nothing that the
//! host lacks, and what does not fit is refused in one sentence (docs/abi.md).

use engine::plugins::Kind;
use host_tests::{Outcome, SMALL, Sandbox, fixture, says};
use plugin_api::abi::{API_VERSION, MAGIC};

/// A short `host run`, with the sizes that the chosen model and attention have options for.
fn words<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let chosen = |option: &str| arguments.iter().any(|word| word.starts_with(option));
    let (model, attention) = (chosen("--plugin="), chosen("--attention="));
    let unknown = |set: &&str| match set {
        set if set.contains("heads") => model || attention,
        set => model && (set.contains("d_model") || set.contains("layers")),
    };
    let small = SMALL.iter().copied().filter(|set| !unknown(set));
    ["run", "--steps=8", "--out=run"].into_iter().chain(small).chain(arguments.iter().copied()).collect()
}

fn run(fixture: &str, arguments: &[&str]) -> Outcome {
    Sandbox::new().host_with(fixture, &words(arguments))
}

/// A fixture's library after `change` has been at the numbers of its header: magic, ABI, op set.
fn changed(plugin: &str, change: impl FnOnce(&mut [u8; 16], &mut [u32; 4])) -> Vec<u8> {
    let mut bytes = fixture(plugin);
    let at = (0..bytes.len() - 32).filter(|at| bytes[*at..].starts_with(&MAGIC));
    // The text may also stand where the plugin's code compares it; the header goes on with a version.
    let at = at.filter(|at| bytes[at + 16..at + 20] == 1u32.to_ne_bytes()).collect::<Vec<_>>();
    let [at] = at[..] else { panic!("{} headers in {plugin}", at.len()) };
    let mut magic = MAGIC;
    let number = |index: usize| bytes[at + 16 + 4 * index..][..4].try_into().map(u32::from_ne_bytes);
    let mut numbers = [0, 1, 2, 3].map(|index| number(index).expect("four bytes"));
    change(&mut magic, &mut numbers);
    bytes[at..at + 16].copy_from_slice(&magic);
    bytes[at + 16..at + 32].copy_from_slice(&numbers.map(u32::to_ne_bytes).concat());
    bytes
}

/// The sentence with which a run refuses a changed library, although it is trusted.
fn refused(plugin: &str, component: &str, change: impl FnOnce(&mut [u8; 16], &mut [u32; 4])) -> String {
    let sandbox = Sandbox::new();
    let sentence = sandbox.host_with_bytes(plugin, changed(plugin, change), &words(&[component])).failed();
    assert!(!sandbox.path("run").exists(), "a refused run left a folder");
    says(&sentence, &[&format!("plugin {plugin}")]);
    sentence
}

#[test]
fn an_older_plugin_runs_on_todays_host() {
    // Its model comes first of all, then a current optimizer; then both of it; then its optimizer after a current model.
    for arguments in [
        &["--plugin=older-bigram", "--optim=adamw"][..],
        &["--plugin=older-bigram", "--optim=older-descent"],
        &["--optim=older-descent"],
    ] {
        run("older", arguments).succeeded();
    }
}

#[test]
fn plugins_of_all_minors_open_in_any_order() {
    // The only test of this file that opens libraries in the test's own process: nothing is open before it.
    let (older, newer) = (Sandbox::new(), Sandbox::new());
    let (older, newer) = (older.registry_with("older"), newer.registry_with("newer"));
    let open = |registry: &engine::plugins::Registry, kind, name: &str| {
        let found = registry.find(kind, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.name(), name);
    };
    open(&older, Kind::Optimizer, "older-descent");
    open(&older, Kind::Optimizer, "adamw");
    open(&newer, Kind::Attention, "newer-plain");
    open(&newer, Kind::Attention, "full");
    open(&older, Kind::Model, "transformer");
}

#[test]
fn a_newer_plugin_runs_while_it_asks_for_nothing_new() {
    run("newer", &["--attention=newer-plain"]).succeeded();
}

#[test]
fn what_a_newer_plugin_misses_is_named() {
    let later =
        format!("this host is older than ABI {}.{} and doubles nothing", API_VERSION.0, API_VERSION.1 + 1);
    let sentence = run("newer", &["--attention=newer-method"]).failed();
    says(&sentence, &["layers.0", &later, "newer", "src/lib.rs:"]);
    let sentence = run("newer", &["--attention=newer-op"]).failed();
    says(&sentence, &["layers.0", "op number 60000 is not known to this host", "newer", "src/lib.rs:"]);
}

#[test]
fn another_major_is_refused_with_both_versions() {
    let (major, minor, patch) = API_VERSION;
    for (fixture, component) in [("older", "--optim=older-descent"), ("newer", "--attention=newer-plain")] {
        let sentence = refused(fixture, component, |_, numbers| numbers[0] = major + 1);
        let next = format!("speaks ABI {}.", major + 1);
        says(&sentence, &[&next, &format!("this host {major}.{minor}.{patch}"), "rebuild it"]);
    }
}

#[test]
fn another_magic_is_refused() {
    let sandbox = Sandbox::new();
    let bytes = changed("older", |magic, _| magic[15] = b'2');
    let path = sandbox.write("plugins/libolder.so", bytes).display().to_string();
    for command in ["check", "trust"] {
        let sentence = sandbox.host(&["plugins", command, &path]).failed();
        says(&sentence, &[&path, "has a header that this host does not know", "rebuild it"]);
    }
}

#[test]
fn a_layout_that_is_not_what_the_version_says_is_refused() {
    // It has more than its version can have.
    let sentence = refused("newer", "--attention=newer-plain", |_, numbers| numbers[1] = API_VERSION.1);
    let version = format!("ABI {}.{}", API_VERSION.0, API_VERSION.1);
    says(&sentence, &["has another layout than", &version, "PluginRoot", "rebuild it"]);
}
