//! Plugins that take their host down, made by `fixtures/hostile`: `host plugins check` loses a process of its own to
//! those that crash, and a trace that cannot be meant ends in an error, before a run folder is made.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::plugins::{Kind, Registry};
use host_tests::{Outcome, SMALL, Sandbox, fixture, host, library, says};

/// `host` with the search path `plugins` and a wish for what the library does when it is opened.
fn at_load(sandbox: &Sandbox, what: &str, arguments: &[&str]) -> Outcome {
    let mut command = sandbox.command(host());
    command.env("HOST_PLUGIN_PATH", "plugins").env("HOSTILE_AT_LOAD", what).args(arguments);
    Outcome::of(arguments, command.output().expect("the host starts"))
}

/// A small model with an attention of the fixture.
fn run(sandbox: &Sandbox, attention: &str) -> Outcome {
    let sizes = SMALL.iter().copied().filter(|set| !set.contains("heads"));
    let words: Vec<&str> = ["run", "--out=run", "--steps=2", attention].into_iter().chain(sizes).collect();
    sandbox.host_with("hostile", &words)
}

fn refused(attention: &str) -> String {
    let sandbox = Sandbox::new();
    let sentence = run(&sandbox, attention).failed();
    let left: Vec<_> = std::fs::read_dir(sandbox.path(".")).expect("it is there").flatten().collect();
    assert_eq!(left.len(), 1, "a refused run left more than the plugins: {left:?}");
    sentence
}

#[test]
fn a_check_says_what_a_library_holds() {
    let sandbox = Sandbox::new();
    let file = format!("plugins/{}", library("alone"));
    sandbox.lay("alone");
    let said = sandbox.host(&["plugins", "check", &file]).succeeded().stdout;
    says(&said, &["plugin alone 0.", "opens", "attention  alone", "1 options", "is not trusted", &file]);
    says(
        &sandbox.host(&["plugins", "check", "optim-muon"]).succeeded().stdout,
        &["optimizer  muon", "the build's own"],
    );
    // A library that cannot be used says so itself.
    sandbox.lay("faulty");
    says(
        &at_load(&sandbox, "", &["plugins", "check", "faulty"]).failed(),
        &["panics-in-default", "there is no default"],
    );
}

#[test]
fn what_a_library_does_when_it_is_opened_is_named() {
    let sandbox = Sandbox::new();
    let path = sandbox.lay("hostile");
    let file = format!("plugins/{}", library("hostile"));
    for (what, reason) in [
        ("exit", "ended its process with exit code 3 while it was opened"),
        ("leave", "ended its process with exit code 0 while it was opened"),
        ("abort", "crashed (abort, signal 6) while it was opened; it said: [31mthe abort was said aloud"),
        ("null", "crashed (segmentation fault, signal 11) while it was opened"),
    ] {
        says(&at_load(&sandbox, what, &["plugins", "check", &file]).failed(), &[&format!("{file} {reason}")]);
    }
    let start = Instant::now();
    let hangs = at_load(&sandbox, "loop", &["plugins", "check", "--seconds=0.5", &file]).failed();
    says(&hangs, &[&file, "did not come back within 0.5 s while it was opened"]);
    assert!(start.elapsed() < Duration::from_secs(5));
    // Nothing that only reads the file runs any of it.
    at_load(&sandbox, "exit", &["plugins", "list"]).succeeded();
    at_load(&sandbox, "exit", &["plugins", "trust", "hostile"]).succeeded();
    let left: Vec<_> = std::fs::read_dir(sandbox.path(".")).expect("it is there").flatten().collect();
    assert_eq!(left.len(), 1, "a crash left {left:?} beside {}", path.display());
}

#[test]
fn a_trusted_library_that_ends_the_host_leaves_no_run() {
    for what in ["exit", "abort", "null"] {
        let sandbox = Sandbox::new();
        sandbox.lay("hostile");
        sandbox.host(&["plugins", "trust", &format!("plugins/{}", library("hostile"))]).succeeded();
        let words = [&["run", "--attention=panics-in-drop", "--out=run"][..], SMALL].concat();
        let outcome = at_load(&sandbox, what, &words);
        assert_ne!(outcome.code, Some(0), "{outcome:?}");
        assert!(!sandbox.path("run").exists() && !sandbox.path("runs").exists());
    }
}

#[test]
fn a_thousand_mistakes_are_one_sentence() {
    let sentence = refused("--attention=thousand-errors");
    says(
        &sentence,
        &["layers.0.attention", "Add", "f32[1000]", "(1999 more after it", "hostile/src/lib.rs:"],
    );
}

#[test]
fn a_trace_has_a_limit() {
    let start = Instant::now();
    let sentence = refused("--attention=ten-million-ops");
    says(&sentence, &["layers.0.attention", "more than 4194304 calls", "is there a loop without end?"]);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    says(&refused("--attention=deep-scopes"), &["scopes are nested deeper than 4096 letters"]);
    says(&refused("--attention=asks-for-itself"), &["components ask for each other more than 64 deep"]);
}

#[test]
fn a_panic_in_a_drop_stays_in_the_plugin() {
    let sandbox = Sandbox::new();
    run(&sandbox, "--attention=panics-in-drop").succeeded();
    assert!(sandbox.path("run/summary.json").is_file());
}

/// Fifty libraries that differ in their bytes and names.
fn fifty(folder: &Path) -> Vec<String> {
    let (bytes, name) = (fixture("hostile"), b"{\"plugin\":\"hostile\"");
    let at = bytes.windows(name.len()).position(|window| window == name).expect("its metadata names it");
    std::fs::create_dir(folder).expect("the sandbox is writable");
    let copy = |number: usize| {
        let mut bytes = bytes.clone();
        let plugin = format!("copy-{number:02}");
        bytes[at + 11..at + 18].copy_from_slice(plugin.as_bytes());
        std::fs::write(folder.join(library(&plugin)), bytes).expect("the sandbox is writable");
        plugin
    };
    (0..50).map(copy).collect()
}

#[test]
fn fifty_plugins_are_listed_without_running_them_and_opened() {
    let sandbox = Sandbox::new();
    let names = fifty(&sandbox.path("plugins"));
    for _ in 0..3 {
        let start = Instant::now();
        let list = at_load(&sandbox, "exit", &["plugins", "list"]).succeeded().stdout;
        println!("host plugins list: {:?}", start.elapsed());
        assert_eq!(list.lines().filter(|line| line.contains("thousand-errors")).count(), 50);
        assert_eq!(list.lines().filter(|line| line.contains("is not trusted")).count(), 50);
    }
    // The second time, copies are there already.
    for _ in 0..3 {
        let start = Instant::now();
        let registry = Registry::of(vec![sandbox.path("plugins")]);
        let found = start.elapsed();
        for name in &names {
            let component = registry.find(Kind::Attention, &format!("{name}/thousand-errors"));
            component.unwrap_or_else(|error| panic!("{error}"));
        }
        println!("50 plugins found in {found:?}, found and opened in {:?}", start.elapsed());
    }
}
