//! The command line as people and scripts know it: its flags are frozen here, its other commands answer.

use host_tests::{SMALL, Sandbox, host, says};

/// A flag that is added, renamed or removed changes this list, and then docs/ too.
const RUN_FLAGS: [&str; 17] = [
    "--plugin <NAME>",
    "--optim <NAME>",
    "--attention <NAME>",
    "--preset <NAME>",
    "--config <FILE>",
    "--set <KEY=VALUE>",
    "--data <PATH>",
    "--steps <N>",
    "--seed <N>",
    "--device <DEVICE>",
    "--threads <N>",
    "--memory-budget <SIZE>",
    "--out <DIR>",
    "--resume <DIR>",
    "--quiet",
    "-h, --help",
    "-V, --version",
];

/// Flags of a command's help, as it prints them.
fn flags(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
    lines.map(|line| line.split("  ").next().unwrap_or(line).to_string()).collect()
}

#[test]
fn the_flags_are_frozen() {
    let sandbox = Sandbox::new();
    let help = |arguments: &[&str]| flags(&sandbox.host(arguments).succeeded().stdout);
    assert_eq!(help(&["run", "--help"]), RUN_FLAGS[..16]);
    assert_eq!(help(&["config", "show", "--help"]), [&RUN_FLAGS[..12], &["-h, --help"]].concat());
    assert_eq!(help(&["--help"]), RUN_FLAGS[15..]);
    for command in ["list", "info", "trust", "untrust"] {
        assert_eq!(help(&["plugins", command, "--help"]), ["-h, --help"], "{command:?}");
    }
    assert_eq!(help(&["plugins", "--help"]), ["-h, --help"]);
    assert_eq!(help(&["plugins", "check", "--help"]), ["--seconds <X>", "-h, --help"]);
    let commands = sandbox.host(&["plugins", "--help"]).stdout;
    says(&commands, &["  list ", "  info ", "  check ", "  trust ", "  untrust "]);
    assert!(!commands.contains("inspect"), "it is no command for people: {commands}");
    assert_eq!(help(&["plugins", "new", "--help"]), ["--path <DIR>", "-h, --help"]);
    assert_eq!(help(&["config", "check", "--help"]), help(&["config", "show", "--help"]));
    assert_eq!(help(&["dev", "--help"]), ["--once", "-h, --help"]);
    assert_eq!(help(&["bisect", "--help"]), ["--tolerance <X>", "-h, --help"]);
    let profile = ["--replays <N>", "--top <N>", "--json", "-h, --help"];
    assert_eq!(help(&["profile", "--help"]), [&RUN_FLAGS[..12], &profile].concat());
    let commands = sandbox.host(&["--help"]).stdout;
    let all =
        ["  run ", "  plugins ", "  config ", "  bisect ", "  eval ", "  dev ", "  profile ", "  doctor "];
    says(&commands, &all);
    says(&sandbox.host(&["--version"]).succeeded().stdout, &["host 0."]);
}

#[test]
fn no_arguments_show_what_there_is() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.host(&[]);
    assert_eq!(outcome.code, Some(2));
    says(&outcome.stderr, &["Usage: host <COMMAND>", "run ", "doctor "]);
}

#[test]
fn plugins_are_listed_without_running_them() {
    let sandbox = Sandbox::new();
    sandbox.write("mine/libtext.so", "this is no library");
    let library = format!("{}attention_full{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let bytes = std::fs::read(host().with_file_name("plugins").join(library)).expect("it is staged");
    sandbox.write("mine/libcut.so", &bytes[..bytes.len() / 2]);
    sandbox.write("mine/libempty.so", "");
    let with_path = |arguments: &[&str]| {
        let output = sandbox.command(host()).env("HOST_PLUGIN_PATH", "mine").args(arguments).output();
        host_tests::Outcome::of(arguments, output.expect("the host starts"))
    };
    let list = with_path(&["plugins", "list"]).succeeded().stdout;
    let line = |start: &str| {
        list.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {list}"))
    };
    says(line("model      transformer"), &["transformer", "model-transformer 0.", "Decoder-only"]);
    says(line("attention "), &["full", "attention-full 0."]);
    says(line("optimizer "), &["adamw", "optim-adamw 0."]);
    says(&list, &["muon", "optim-muon 0."]);
    for file in ["libtext.so", "libcut.so", "libempty.so"] {
        says(line(&format!("not usable: mine/{file}")), &["is not a library"]);
    }

    // The doctor calls them missing, and says so to scripts; a run does not mind them.
    let doctor = with_path(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    says(&doctor.stdout, &["MISS plugin", "mine/libcut.so is not a library"]);
    let run = [&["run", "--steps=1", "--out=run"][..], SMALL].concat();
    with_path(&run).succeeded();
}

#[test]
fn a_component_explains_its_options() {
    let sandbox = Sandbox::new();
    let info = sandbox.host(&["plugins", "info", "transformer"]).succeeded().stdout;
    says(&info, &["model transformer (plugin model-transformer)"]);
    let row = |text: &str, key: &str| {
        let found = text.lines().find(|line| line.split_whitespace().next() == Some(key));
        let words = found.unwrap_or_else(|| panic!("{key}: {text}")).split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row(&info, "option"), "option type default range");
    assert_eq!(row(&info, "d_model"), "d_model integer 128 1.. Width D.");
    says(&row(&info, "norm"), &["norm pre | post \"pre\" Where attention"]);
    assert_eq!(row(&info, "tied"), "tied boolean true One matrix for embedding and head.");
    let qualified = sandbox.host(&["plugins", "info", "optim-adamw/adamw"]).succeeded().stdout;
    says(&qualified, &["optimizer adamw (plugin optim-adamw)"]);
    assert_eq!(row(&qualified, "beta1"), "beta1 number 0.9 0.0..0.999999 Decay of m.");
}

#[test]
fn a_configuration_is_checked_without_a_run() {
    let sandbox = Sandbox::new();
    let check = |words: &[&str]| sandbox.host(&[&["config", "check"][..], SMALL, words].concat());
    let text = check(&["--attention=linear"]).succeeded().stdout;
    says(&text, &["fit to run: transformer with linear attention, adamw, ", " parameters, "]);
    says(
        &check(&["--set=heads=3"]).failed(),
        &["attention.full.heads", "3 heads do not divide d_model = 32"],
    );
    says(&check(&["--set=heads=0"]).failed(), &["0 is below 1, the smallest allowed"]);
    assert!(!sandbox.path("runs").exists());
}

#[test]
fn every_value_has_its_origin() {
    let sandbox = Sandbox::new();
    sandbox.write("my.toml", "# mine\n\n[train]\nlr = 1e-3\n\n[attention.full]\nheads = 8\n");
    let arguments =
        ["config", "show", "--config=my.toml", "--set=window=64", "--set", "optimizer.adamw.beta2=0.99"];
    let text = sandbox.host(&[&arguments[..], &["--steps=7", "--data=text.txt"]].concat()).succeeded().stdout;
    let line = |key: &str| {
        let found = text.lines().find(|line| line.split_whitespace().next() == Some(key));
        found.unwrap_or_else(|| panic!("{key}: {text}"))
    };
    for (key, parts) in [
        ("seed", ["1", "built in"]),
        ("train.lr", ["0.001", "my.toml line 4"]),
        ("attention.full.heads", ["8", "my.toml line 7"]),
        ("train.window", ["64", "--set train.window"]),
        ("optimizer.adamw.beta2", ["0.99", "--set optimizer.adamw.beta2"]),
        ("optimizer.adamw.beta1", ["0.9", "plugin default"]),
        ("train.steps", ["7", "--steps"]),
        ("data.path", ["\"text.txt\"", "--data"]),
    ] {
        says(line(key), &parts);
    }
    // The line in the preset is the one that holds the key.
    let (path, number) =
        line("model.transformer.d_model").rsplit_once(" line ").expect("it comes from a file");
    let path = path.split_whitespace().last().expect("a path");
    assert!(path.ends_with("configs/tiny.toml"), "{path}");
    let preset = std::fs::read_to_string(path).expect("the preset is staged");
    let number: usize = number.trim().parse().expect("a number");
    says(preset.lines().nth(number - 1).unwrap_or_default(), &["d_model", "128"]);
}

#[test]
fn the_doctor_is_content_here() {
    let sandbox = Sandbox::new();
    let text = sandbox.host(&["doctor"]).succeeded().stdout;
    says(
        &text,
        &["ok   host", "ok   cpu", "ok   plugins", "components in", "ok   presets", "tiny", "ok   runs"],
    );
    assert!(!text.contains("MISS"), "{text}");
}

#[test]
fn a_reader_may_leave_early() {
    let sandbox = Sandbox::new();
    for command in ["config show", "plugins list", "plugins info transformer", "doctor", "run --help"] {
        // `exec` closes the pipe's end before the host writes to it.
        let script = format!("{{ sleep 0.1; \"$0\" {command}; echo \"code $?\" >&2; }} | exec true");
        let output = sandbox.command("sh").args(["-c", &script]).arg(host()).output().expect("sh starts");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "code 0\n", "{command}");
    }
    let run = [&["run", "--steps=3", "--out=run"][..], SMALL].concat().join(" ");
    let script = format!("{{ sleep 0.1; \"$0\" {run}; echo \"code $?\" >&2; }} | exec true");
    let output = sandbox.command("sh").args(["-c", &script]).arg(host()).output().expect("sh starts");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "code 0\n");
    assert!(sandbox.path("run/summary.json").is_file(), "training goes on when nobody watches");
}

#[test]
fn a_run_without_out_is_numbered() {
    let sandbox = Sandbox::new();
    for number in ["001", "002"] {
        let text = sandbox.host(&[&["run", "--steps=1"][..], SMALL].concat()).succeeded().stdout;
        let folder = format!("runs/transformer-adamw-{number}");
        says(
            &text,
            &[
                &format!("run folder  {folder}"),
                &format!("host run --resume {folder}"),
                "validation bits/byte",
            ],
        );
        says(&text, &["floor", "unigram", "bigram", "tok/s", "arena", "peak memory", "sample"]);
        assert!(sandbox.path(&folder).join("summary.json").is_file());
    }
}
