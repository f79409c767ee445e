//! Whose code runs: the build's, and what the user trusts. Everything else, and everything that is no plugin of this
//! machine, is refused in a sentence that names the file and says what to type.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use host_tests::{Outcome, SMALL, Sandbox, fixture, host, library, says};

/// The host with the folder `plugins` in its search path.
fn with_path(sandbox: &Sandbox, arguments: &[&str]) -> Outcome {
    let output = sandbox.command(host()).env("HOST_PLUGIN_PATH", "plugins").args(arguments).output();
    Outcome::of(arguments, output.expect("the host starts"))
}

/// One step with the attention of the fixture `alone`.
fn step(sandbox: &Sandbox) -> Outcome {
    with_path(sandbox, &[&["run", "--attention=alone", "--steps=1", "--out=run"][..], &small()].concat())
}

fn small() -> Vec<&'static str> {
    SMALL.iter().copied().filter(|set| !set.contains("heads")).collect()
}

#[test]
fn a_strange_plugin_runs_when_it_is_trusted() {
    let sandbox = Sandbox::new();
    let path = sandbox.lay("alone");
    let file = format!("plugins/{}", library("alone"));
    let refused = step(&sandbox).failed();
    says(&refused, &["plugin alone", &file, "is not trusted", &format!("`host plugins trust {file}`")]);
    says(&refused, &[&format!("`host plugins check {file}`")]);
    assert!(!sandbox.path("run").exists());
    says(
        &with_path(&sandbox, &["plugins", "list"]).succeeded().stdout,
        &["not usable: plugin alone", "is not trusted"],
    );
    let doctor = with_path(&sandbox, &["doctor"]);
    assert_eq!(doctor.code, Some(1));
    says(
        &doctor.stdout,
        &["1. plugins (HOST_PLUGIN_PATH)", "2. ", "(the host's own)", "MISS plugin", "is not trusted"],
    );

    let trusted = with_path(&sandbox, &["plugins", "trust", "alone"]).succeeded().stdout;
    says(&trusted, &["trusts plugin alone 0.", &file, "SHA-256 "]);
    let lock =
        std::fs::read_to_string(sandbox.home("config/host/plugins.lock.toml")).expect("it was written");
    says(&lock, &["plugin = \"alone\"", &path.canonicalize().expect("it is there").display().to_string()]);
    step(&sandbox).succeeded();
    std::fs::remove_dir_all(sandbox.path("run")).expect("the run made it");
    says(&with_path(&sandbox, &["doctor"]).succeeded().stdout, &["ok   trust", "1 plugins in "]);

    // Rebuilt, it is another library.
    let mut changed = fixture("alone");
    changed.extend(b"changed");
    std::fs::write(&path, changed).expect("the sandbox is writable");
    let refused = step(&sandbox).failed();
    says(&refused, &["has changed since it was trusted", &format!("`host plugins trust {file}`")]);
    with_path(&sandbox, &["plugins", "trust", &file]).succeeded();
    step(&sandbox).succeeded();
    std::fs::remove_dir_all(sandbox.path("run")).expect("the run made it");

    says(
        &with_path(&sandbox, &["plugins", "untrust", "alne"]).failed(),
        &["\"alne\" is not trusted", "did you mean alone?"],
    );
    says(
        &with_path(&sandbox, &["plugins", "untrust", "alone"]).succeeded().stdout,
        &["trusts plugin alone no more", &file],
    );
    says(&step(&sandbox).failed(), &["is not trusted"]);
    assert!(!sandbox.path("run").exists());
}

#[test]
fn trust_is_for_plugins_and_the_builds_own_need_none() {
    let sandbox = Sandbox::new();
    says(
        &sandbox.host(&["plugins", "trust", "optim-adamw"]).succeeded().stdout,
        &["build's own and needs no trust"],
    );
    says(
        &sandbox.host(&["plugins", "trust", "optim-adamv"]).failed(),
        &["no file \"optim-adamv\"", "did you mean optim-adamw"],
    );
    says(
        &sandbox.host(&["plugins", "untrust", "optim-adamw"]).failed(),
        &["is not trusted; it is one of the build's own"],
    );
    sandbox.write("notes.txt", "not a library");
    says(&sandbox.host(&["plugins", "trust", "notes.txt"]).failed(), &["notes.txt is not a library"]);
    assert!(!sandbox.home("config/host").exists(), "nothing was trusted");
    let outside = sandbox.write("elsewhere/alone.so", fixture("alone"));
    let said = sandbox.host(&["plugins", "trust", &outside.display().to_string()]).succeeded().stdout;
    says(&said, &["trusts plugin alone", "outside the search path", "`host doctor`"]);
}

#[test]
fn another_lock_file_can_be_named_and_a_damaged_one_is_not_an_empty_one() {
    let sandbox = Sandbox::new();
    sandbox.lay("alone");
    let with_lock = |arguments: &[&str]| {
        let mut command = sandbox.command(host());
        command.env("HOST_PLUGIN_PATH", "plugins").env("HOST_PLUGIN_LOCK", "mine.toml").args(arguments);
        Outcome::of(arguments, command.output().expect("the host starts"))
    };
    with_lock(&["plugins", "trust", "alone"]).succeeded();
    assert!(sandbox.path("mine.toml").is_file() && !sandbox.home("config/host").exists());
    with_lock(&["plugins", "info", "alone"]).succeeded();
    says(&with_path(&sandbox, &["plugins", "info", "alone"]).failed(), &["is not trusted"]);

    sandbox.write("mine.toml", "[[library]");
    says(&with_lock(&["plugins", "info", "alone"]).failed(), &["mine.toml", "mend the file"]);
    says(&with_lock(&["plugins", "trust", "alone"]).failed(), &["mine.toml", "mend the file"]);
    assert_eq!(std::fs::read_to_string(sandbox.path("mine.toml")).expect("it is kept"), "[[library]");
}

#[test]
fn two_components_of_one_name_are_told_apart_by_plugin() {
    let sandbox = Sandbox::new();
    sandbox.lay("alone");
    // The same library under another plugin name of the same length.
    let (mut bytes, name) = (fixture("alone"), b"{\"plugin\":\"alone\"");
    let at = bytes.windows(name.len()).position(|window| window == name).expect("its metadata names it");
    bytes[at..at + name.len()].copy_from_slice(b"{\"plugin\":\"clone\"");
    sandbox.write(&format!("plugins/{}", library("clone")), bytes);
    with_path(&sandbox, &["plugins", "trust", "alone"]).succeeded();
    says(
        &with_path(&sandbox, &["plugins", "info", "alone"]).failed(),
        &["two plugins have attention \"alone\"", "say alone/alone or clone/alone"],
    );
    says(&with_path(&sandbox, &["plugins", "info", "alone/alone"]).succeeded().stdout, &["fails_at"]);
    says(
        &with_path(&sandbox, &["plugins", "info", "clone/alone"]).failed(),
        &["plugin clone", "is not trusted"],
    );
    let unknown = &["config", "show", "--attention=clone/alon"];
    says(
        &with_path(&sandbox, unknown).failed(),
        &["no attention \"clone/alon\"", "did you mean", "clone/alone"],
    );
}

#[test]
fn files_that_are_no_plugins_of_this_machine_are_named() {
    let sandbox = Sandbox::new();
    let whole = fixture("alone");
    // The processor of an ELF file stands in bytes 18 and 19; 183 is AArch64, 62 x86-64.
    let mut foreign = whole.clone();
    let other = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    foreign[18..20].copy_from_slice(&u16::to_le_bytes(other));
    let mut version = whole.clone();
    let magic =
        version.windows(16).position(|window| window == b"host plugin abi\n").expect("it has a header");
    version[magic] = b'H';
    let mut cases = vec![
        ("foreign", foreign, "is built for another processor"),
        ("cut", whole[..whole.len() / 2].to_vec(), "is not a library: it begins like one but is cut short"),
        (
            "cutoff",
            whole[..whole.len() - 64].to_vec(),
            "is not a library: it begins like one but is cut short",
        ),
        ("text", b"this is no library".to_vec(), "is not a library"),
        ("empty", Vec::new(), "is not a library"),
        ("header", version, "has a header that this host does not know"),
    ];
    if cfg!(not(target_os = "linux")) {
        cases.retain(|(name, ..)| ["text", "empty"].contains(name));
    }
    for (name, bytes, reason) in cases {
        let file = format!("plugins/{}", library(name));
        let path = sandbox.write(&file, bytes);
        for command in ["trust", "check"] {
            let sentence = sandbox.host(&["plugins", command, &file]).failed();
            says(&sentence, &[&file, reason]);
        }
        let list = with_path(&sandbox, &["plugins", "list"]).succeeded().stdout;
        says(&list, &[&format!("not usable: {file} {reason}")]);
        std::fs::remove_file(path).expect("the sandbox is writable");
    }
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let closed = sandbox.lay("alone");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o0)).expect("the file is ours");
    let list = || with_path(&sandbox, &["plugins", "list"]).succeeded().stdout;
    // The administrator reads everything.
    if std::fs::read(&closed).is_err() {
        says(&list(), &["not usable: plugins/", "cannot be read (permission denied)"]);
    }
    std::fs::create_dir(sandbox.path("plugins/folder.so")).expect("the sandbox is writable");
    std::os::unix::fs::symlink("nowhere", sandbox.path("plugins/link.so")).expect("the sandbox is writable");
    sandbox.command("mkfifo").arg("plugins/pipe.so").status().expect("mkfifo starts");
    let list = list();
    says(&list, &["plugins/folder.so cannot be read (it is not a file)"]);
    says(&list, &["plugins/pipe.so cannot be read (it is not a file)"]);
    says(&list, &["plugins/link.so cannot be read (no such file or directory)"]);
}

/// Starts a run and, when it has done some steps, overwrites the library in place.
fn disturbed(sandbox: &Sandbox, path: &Path) -> Outcome {
    let words = [&["run", "--attention=alone", "--steps=60", "--out=disturbed"][..], &small()].concat();
    let mut command = sandbox.command(host());
    command.env("HOST_PLUGIN_PATH", "plugins").args(&words).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the host starts");
    let metrics = sandbox.path("disturbed/metrics.jsonl");
    let patience = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&metrics).map_or(0, |metadata| metadata.len()) == 0 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        !sandbox.path("disturbed/summary.json").exists(),
        "the run was over before it could be disturbed"
    );
    // Into the same file: what a linker does that does not write beside its target.
    std::fs::write(path, vec![0; fixture("alone").len()]).expect("the sandbox is writable");
    std::fs::write(path, "").expect("the sandbox is writable");
    Outcome::of(&words, child.wait_with_output().expect("the host ends"))
}

#[test]
fn a_rebuild_does_not_disturb_a_run() {
    let sandbox = Sandbox::new();
    let path = sandbox.lay("alone");
    with_path(&sandbox, &["plugins", "trust", "alone"]).succeeded();
    let words = [&["run", "--attention=alone", "--steps=60", "--out=quiet"][..], &small()].concat();
    with_path(&sandbox, &words).succeeded();
    disturbed(&sandbox, &path).succeeded();
    let run = |out: &str| host_tests::Run::at(sandbox.path(out));
    assert_eq!(run("quiet").trace(), run("disturbed").trace());
    // The copies lie in a folder of the user's, named by their bytes.
    let copies: Vec<_> =
        std::fs::read_dir(sandbox.home("cache/host/plugins")).expect("copies are kept").collect();
    assert_eq!(copies.len(), 3, "transformer, adamw and alone: {copies:?}");
}

#[test]
fn without_a_place_for_copies_the_host_makes_do() {
    let sandbox = Sandbox::new();
    // A file where the folder should be.
    std::fs::create_dir_all(sandbox.home("cache")).expect("the sandbox is writable");
    std::fs::write(sandbox.home("cache/host"), "").expect("the sandbox is writable");
    let words = [&["run", "--steps=1", "--out=run"][..], SMALL].concat();
    sandbox.host(&words).succeeded();
}
