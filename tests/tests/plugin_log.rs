//! The log of a plugin is the host's: level, target, fields and spans arrive, and the host's filter decides.

use host_tests::{Sandbox, host, says};

/// What a short run with the fixture's attention says on standard error under a filter.
fn said(filter: Option<&str>) -> String {
    let sandbox = Sandbox::new();
    let path = sandbox.lay("faulty");
    sandbox.host(&["plugins", "trust", &path.display().to_string()]).succeeded();
    let words = ["run", "--attention=talks", "--steps=1", "--out=run", "--set=sample.tokens=0"];
    let small = ["--set=d_model=16", "--set=layers=1", "--set=window=32", "--set=batch=2"];
    let few = ["--set=eval_windows=2", "--set=warmup=1"];
    let mut command = sandbox.command(host());
    command.env("HOST_PLUGIN_PATH", "plugins").args([&words[..], &small, &few].concat());
    if let Some(filter) = filter {
        command.env("HOST_LOG", filter);
    }
    let output = command.output().expect("the host starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// Lines of the fixture.
fn lines(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains("plugin::faulty")).collect()
}

#[test]
fn warnings_are_seen_without_asking() {
    let said = said(None);
    let lines = lines(&said);
    assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("WARN")), "{said}");
    // The span around it is of level info, which nobody asked for.
    says(lines[0], &["plugin::faulty: mix{heads=2 depth=1}: wide enough for 2 heads ratio=8"]);
}

#[test]
fn the_filter_of_the_host_decides() {
    let debug = said(Some("plugin=debug"));
    let of_level = |said: &str, level: &str| lines(said).iter().filter(|line| line.contains(level)).count();
    assert!(of_level(&debug, "DEBUG") > 0 && of_level(&debug, "WARN") > 0, "{debug}");
    assert_eq!(of_level(&debug, "TRACE"), 0, "{debug}");
    says(
        &debug,
        &["DEBUG plugin::faulty: layer{width=16}: one field=\"text\"", "layer{width=16}:mix{heads=2 "],
    );
    let named = said(Some("plugin::faulty=info"));
    assert!(of_level(&named, "DEBUG") == 0 && of_level(&named, "WARN") > 0, "{named}");
    assert!(lines(&said(Some("off"))).is_empty());
    assert!(lines(&said(Some("error,plugin::other=trace"))).is_empty());
}
