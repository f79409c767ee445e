//! Mistakes in a configuration: each is refused by one sentence that says what is wrong, where it was said and what to
//! do, before anything is written.

use host_tests::{SMALL, Sandbox, says};

#[test]
fn an_unknown_component_names_the_nearest() {
    let sandbox = Sandbox::new();
    for (flag, typo, kind, nearest) in [
        ("--plugin", "transfomer", "model", "transformer"),
        ("--optim", "adam", "optimizer", "adamw"),
        ("--attention", "ful", "attention", "full"),
    ] {
        let sentence = sandbox.refused(&[flag, typo]);
        says(&sentence, &[kind, typo, &format!("did you mean {nearest}?"), "looked in ", "release/plugins"]);
    }
    says(&sandbox.refused(&["--plugin=zzz"]), &["there is no model \"zzz\"", "known: hope, transformer"]);
    // A name of another kind is no name of this one.
    says(
        &sandbox.refused(&["--optim=transformer"]),
        &["there is no optimizer \"transformer\"", "known: adamw"],
    );
}

#[test]
fn an_unknown_preset_names_the_nearest() {
    let sandbox = Sandbox::new();
    says(&sandbox.refused(&["--preset=tinny"]), &["there is no preset \"tinny\"", "did you mean tiny?"]);
    says(
        &sandbox.refused(&["--preset=zzz"]),
        &["known: craft-1m, hope-tiny, pilot, recall, reference/pilot-smoke, tiny"],
    );
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let sandbox = Sandbox::new();
    says(
        &sandbox.refused(&["--set=d_modle=64"]),
        &["--set", "\"d_modle\" is no known key", "did you mean d_model?"],
    );
    says(&sandbox.refused(&["--set=train.lrr=1"]), &["\"train.lrr\"", "did you mean train.lr"]);
    says(
        &sandbox.refused(&["--set=data.story.peple=3"]),
        &["\"data.story.peple\"", "did you mean", "people"],
    );
    says(&sandbox.refused(&["--set=zzz=1"]), &["\"zzz\"", "`host config show` lists all keys"]);
    says(
        &sandbox.refused(&["--set=bias=true"]),
        &["\"bias\" could mean model.transformer.bias or attention.full.bias", "write one of them"],
    );
}

#[test]
fn a_value_of_the_wrong_type_or_range_names_key_and_flag() {
    let sandbox = Sandbox::new();
    for (flag, parts) in [
        ("--set=lr=high", ["train.lr", "\"high\" is not a number", "--set train.lr"]),
        (
            "--set=layers=2.5",
            ["model.transformer.layers", "2.5 is not a whole number", "--set model.transformer"],
        ),
        ("--set=tied=1", ["model.transformer.tied", "1 is not true or false", "--set"]),
        ("--set=train.batch=0", ["train.batch", "0 is below 1, the smallest allowed", "--set train.batch"]),
        ("--set=batch=-1", ["train.batch", "-1 is below 1", "--set train.batch"]),
        ("--set=window=1000000000000", ["train.window", "above 1000000, the largest", "--set train.window"]),
        (
            "--set=eval_windows=1000000000000",
            ["train.eval_windows", "above 1000000", "--set train.eval_windows"],
        ),
        ("--set=final_lr=2", ["train.final_lr", "2 is above 1, the largest allowed", "--set train.final_lr"]),
        ("--set=schedule=cosin", ["train.schedule", "did you mean cosine?", "--set train.schedule"]),
        ("--set=people=11", ["data.story.people", "11 is above 10, the largest", "--set data.story.people"]),
        ("--set=d_model=", ["model.transformer.d_model", "\"\" is not a whole number", "--set"]),
        ("--set=model.name=3", ["model.name", "no name in quotes", "--set model.name"]),
        ("--device=gpu", ["device", "\"gpu\" is not one of", "--device"]),
        ("--steps=0", ["train.steps", "0 is below 1", "--steps"]),
        ("--threads=1000", ["threads", "1000 is above 256", "--threads"]),
    ] {
        says(&sandbox.refused(&[flag]), &parts);
    }
}

#[test]
fn a_mistake_in_a_file_names_file_and_line() {
    let sandbox = Sandbox::new();
    for (text, parts) in [
        ("[train]\nsteps = 3\nlr = \"high\"\n", ["train.lr", "not a number", "my.toml line 3"]),
        (
            "\n[model.transformer]\nlayerz = 3\n",
            ["model.transformer.layerz", "did you mean layers?", "my.toml line 3"],
        ),
        ("[train]\nsteps = -1\n", ["train.steps", "below 1", "my.toml line 2"]),
        ("[trian]\nsteps = 1\n", ["trian", "did you mean train?", "my.toml line 1"]),
        ("train = 3\n", ["train", "3 is not a table", "my.toml line 1"]),
        ("[model]\nnam = \"transformer\"\n", ["model.nam", "did you mean name?", "my.toml line 2"]),
        ("[model]\nname = 3\n", ["model.name", "no name in quotes", "my.toml line 2"]),
        ("model = \"transformer\"\n", ["is not a table", "set model.name", "my.toml line 1"]),
        ("[optimizer.adam]\nbeta1 = 0.8\n", ["optimizer.adam", "did you mean adamw?", "my.toml line 1"]),
        ("[optimizer.adamw]\nbeta1 = 1.5\n", ["optimizer.adamw.beta1", "above 0.999999", "my.toml line 2"]),
    ] {
        sandbox.write("my.toml", text);
        // Without flags, which would lie over the mistake.
        says(&sandbox.host(&["run", "--config=my.toml"]).failed(), &parts);
    }
}

#[test]
fn a_flag_is_judged_after_the_file_it_overrides() {
    let sandbox = Sandbox::new();
    sandbox.write("my.toml", "[train]\nlr = \"high\"\n");
    sandbox.train("run", &["--config=my.toml", "--set=lr=0.001", "--steps=1"]);
}

#[test]
fn toml_that_does_not_parse_names_its_line() {
    let sandbox = Sandbox::new();
    sandbox.write("my.toml", "[train]\nsteps = 3\nlr = \n");
    says(&sandbox.refused(&["--config=my.toml"]), &["my.toml, line 3"]);
    sandbox.write("my.toml", "[train]\nsteps = 3\nsteps = 4\n");
    says(&sandbox.refused(&["--config=my.toml"]), &["my.toml, line 3", "duplicate key"]);
    says(&sandbox.refused(&["--config=nowhere.toml"]), &["nowhere.toml", "no such file", "check the path"]);
    says(&sandbox.refused(&["--config=."]), &[".: is a directory", "check the path"]);
}

#[test]
fn a_section_that_is_no_table_is_not_covered_up_by_a_flag() {
    let sandbox = Sandbox::new();
    sandbox.write("mine.toml", "seed = 2\ntrain = 3\n");
    let sentence = sandbox.refused(&["--config=mine.toml", "--set=train.lr=0.1"]);
    says(&sentence, &["mine.toml line 2", "train: 3 is not a table", "[train]"]);
}

#[test]
fn every_mistake_has_its_line() {
    let sandbox = Sandbox::new();
    sandbox.write("my.toml", "[train]\nlr = \"high\"\nstepz = 3\n");
    let outcome = sandbox.host(&["run", "--config=my.toml"]);
    assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    says(&outcome.stderr, &["my.toml line 2", "my.toml line 3"]);
}

#[test]
fn heads_divide_the_width() {
    let sandbox = Sandbox::new();
    says(
        &sandbox.refused(&["--set=heads=3"]),
        &["attention.full.heads", "3 heads do not divide d_model = 32", "--set attention.full.heads"],
    );
    sandbox.write("my.toml", "[attention.full]\nkv_heads = 3\n");
    says(
        &sandbox.refused(&["--config=my.toml"]),
        &["attention.full.kv_heads", "3 does not divide 2", "my.toml line 2"],
    );
    // What only the trace can tell names the layer, the tensor and the line in the plugin.
    says(
        &sandbox.refused(&["--set=d_model=33", "--set=heads=1"]),
        &[
            "layers.0.attention",
            "Rope",
            "f32[4, 1, 48, 33]",
            "an even D",
            "plugins/attention-full/src/lib.rs:",
        ],
    );
}

#[test]
fn a_bad_command_line_is_one_sentence_too() {
    let sandbox = Sandbox::new();
    for (arguments, parts) in [
        (&["run", "--set", "d_model"][..], &["--set \"d_model\" has no `=`", "key=value"][..]),
        (&["run", "--set", "=3"], &["--set", "\"\" is no known key"]),
        (&["run", "--steps", "many"], &["--steps", "'many'", "not a whole number"]),
        (&["run", "--seed", "-1"], &["--seed", "'-1'", "not a whole number"]),
        (&["run", "--seed"], &["--seed", "a value is required"]),
        (&["run", "--stepz", "3"], &["'--stepz'", "'--steps'", "`--help`"]),
        (&["run", "--resume", "a", "--out", "b"], &["--resume", "--out"]),
        (&["rum"], &["'rum'", "'run'"]),
        (&["plugins", "info", "ful"], &["there is no component \"ful\"", "did you mean full?"]),
        (&["config", "show", "--preset", "tinny"], &["there is no preset \"tinny\"", "did you mean tiny?"]),
    ] {
        says(&sandbox.host(arguments).failed(), parts);
    }
    assert!(!sandbox.path("runs").exists());
}

#[test]
fn a_prompt_that_cannot_be_read_is_refused_before_training() {
    let sandbox = Sandbox::new();
    let sentence = sandbox.refused(&["--set=data.tokenizer=char", "--set=sample.prompt=na\u{ef}ve"]);
    says(&sentence, &["sample.prompt", "'\u{ef}'", "vocabulary"]);
}

#[test]
fn no_mistake_shows_a_backtrace_or_prints_before_it_fails() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.host(&[&["run"][..], SMALL, &["--set=heads=3"]].concat());
    assert_eq!(outcome.stdout, "");
    outcome.failed();
}
