//! Evals: plugins that measure a trained run, with the numbers of the run's own evaluation where they measure the same.

use host_tests::{Run, Sandbox, host, says};
use serde_json::Value;

const SMALL: [&str; 9] = [
    "--set=window=64",
    "--set=batch=2",
    "--set=warmup=1",
    "--set=eval_windows=9",
    "--set=sample.tokens=0",
    "--set=d_model=16",
    "--set=layers=1",
    "--set=attention.full.heads=2",
    "--set=train.lr=0.02",
];

fn metric<'m>(outcomes: &'m Value, task: usize, name: &str) -> &'m Value {
    let metrics = outcomes[task]["metrics"].as_array().unwrap();
    metrics.iter().find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("no {name} in {outcomes}"))
}

#[test]
fn an_eval_tells_what_the_run_told() {
    let sandbox = Sandbox::new();
    let hope = ["--set=periods=[16,32]", "--set=online_chunk=16", "--set=memory_lr=0.1"];
    for (plugin, own) in [("hope", &hope[..]), ("transformer", &[])] {
        let plugin_flag = format!("--plugin={plugin}");
        let flags = [&[plugin_flag.as_str(), "--optim=adamw", "--steps=12"][..], &SMALL, own].concat();
        let run = sandbox.train(plugin, &flags);
        let summary = run.json("summary.json");
        let told = sandbox.host(&["eval", plugin, "--task=perplexity,recall", "--json"]).succeeded();
        let outcomes: Value = serde_json::from_str(&told.stdout).unwrap();
        let bits = metric(&outcomes, 0, "bits_per_byte");
        let (value, wanted) =
            (bits["value"].as_f64().unwrap(), summary["val_bits_per_byte"].as_f64().unwrap());
        assert!((value - wanted).abs() < 1e-4, "{plugin}: {value} bits/byte, the run says {wanted}");
        assert!(bits["low"].as_f64().unwrap() < value && value < bits["high"].as_f64().unwrap());
        assert_eq!(bits["n"], 9);
        let right = metric(&outcomes, 1, "accuracy");
        let (value, wanted) = (right["value"].as_f64().unwrap(), &summary["answers"][0]);
        assert!((value - 100.0 * wanted["accuracy"].as_f64().unwrap()).abs() < 1e-9, "{plugin}");
        assert_eq!(right["n"], wanted["count"], "{plugin}");
        assert_eq!(run.json("evals/recall.json")["metrics"], outcomes[1]["metrics"]);
        if plugin == "hope" {
            let still = ["eval", plugin, "--task=perplexity", "--set=perplexity.learn=false", "--json"];
            let still: Value = serde_json::from_str(&sandbox.host(&still).succeeded().stdout).unwrap();
            let other = metric(&still, 0, "bits_per_byte")["value"].as_f64().unwrap();
            assert!(
                (other - bits["value"].as_f64().unwrap()).abs() > 1e-4,
                "memories that do not learn cost the same"
            );
        }
        let table = sandbox.host(&["eval", plugin, "--task=recall", "--limit=3"]).succeeded().stdout;
        says(&table, &["task", "accuracy", "chance", "bits/byte"]);
    }
}

#[test]
fn a_mistaken_eval_is_a_sentence() {
    let sandbox = Sandbox::new();
    let flags = [&["--plugin=transformer", "--optim=adamw", "--steps=1"][..], &SMALL].concat();
    sandbox.train("run", &flags);
    let refused = |arguments: &[&str]| sandbox.host(&[&["eval"], arguments].concat()).failed();
    says(&refused(&["run", "--task=recal"]), &["recal", "did you mean recall?"]);
    says(&refused(&["run", "--task=hope"]), &["hope"]);
    says(&refused(&["nowhere", "--task=recall"]), &["nowhere", "no run folder"]);
    says(&refused(&["run", "--task=recall", "--set=recall.lern=false"]), &["recall", "lern"]);
    says(&refused(&["run", "--task=recall", "--set=texts=3"]), &["TASK.KEY=VALUE"]);
    says(
        &refused(&["run", "--task=recall", "--set=perplexity.texts=3"]),
        &["perplexity is none of the tasks"],
    );
}

#[test]
fn recall_needs_the_stories() {
    let sandbox = Sandbox::new();
    let text = sandbox.write("text.txt", "A line of text that says nothing new.\n".repeat(200));
    let data = format!("--data={}", text.display());
    let flags = [&["--plugin=transformer", "--optim=adamw", "--steps=1", &data][..], &SMALL].concat();
    sandbox.train("run", &flags);
    says(&sandbox.host(&["eval", "run", "--task=recall"]).failed(), &["recall", "no questions"]);
    says(&sandbox.host(&["eval", "run", "--task=perplexity"]).succeeded().stdout, &["bits_per_byte"]);
}

#[test]
fn a_run_is_measured_at_its_end() {
    let sandbox = Sandbox::new();
    let evals = "evals = [\"perplexity\", \"recall\"]";
    sandbox.write("my.toml", format!("[train]\n{evals}\n\n[eval.recall]\ntexts = 4\n"));
    let flags = ["run", "--steps=3", "--config=my.toml", "--set=learn=false", "--out=run"];
    // Both have an option of this name.
    says(
        &sandbox.host(&[&flags[..], &SMALL].concat()).failed(),
        &["\"learn\" could mean eval.perplexity.learn or eval.recall.learn"],
    );
    let flags = ["run", "--steps=3", "--config=my.toml", "--set=perplexity.learn=false", "--out=run"];
    let report = sandbox.host(&[&flags[..], &SMALL].concat()).succeeded().stdout;
    says(&report, &["task", "95 %", "perplexity", "bits_per_byte", "recall", "accuracy", "chance"]);
    let run = Run::at(sandbox.path("run"));
    let summary = run.json("summary.json");
    let [perplexity, recall] = [0, 1].map(|task| &summary["evals"][task]);
    assert_eq!(
        (perplexity["step"].as_u64(), perplexity["options"]["learn"].as_bool()),
        (Some(3), Some(false))
    );
    assert_eq!(recall["options"]["texts"], 4);
    let (bits, wanted) = (metric(&summary["evals"], 0, "bits_per_byte"), &summary["val_bits_per_byte"]);
    assert!((bits["value"].as_f64().unwrap() - wanted.as_f64().unwrap()).abs() < 1e-4, "{summary}");
    for task in ["perplexity", "recall"] {
        let written = run.json(&format!("evals/{task}.json"));
        assert!(summary["evals"].as_array().unwrap().contains(&written), "{task}");
    }

    // No plan of training is compiled for it.
    let mut eval = sandbox.command(host());
    eval.env("HOST_DUMP", "plans").args(["eval", "run", "--task=perplexity"]);
    assert!(eval.output().expect("the host starts").status.success());
    assert!(sandbox.path("plans/read").is_dir() && !sandbox.path("plans/eval").exists());

    // Later by hand, with the run's options, and again at the end of a longer run.
    let told = sandbox.host(&["eval", "run", "--task=recall", "--json"]).succeeded().stdout;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told[0]["metrics"], &told[0]["options"]), (&recall["metrics"], &recall["options"]));
    sandbox.host(&["run", "--resume=run", "--steps=4"]).succeeded();
    assert_eq!(run.json("evals/perplexity.json")["step"], 4);
    assert_eq!(run.json("summary.json")["evals"][1]["step"], 4);
}

#[test]
fn evals_of_a_run_are_checked_before_its_first_step() {
    let sandbox = Sandbox::new();
    let refused = |sets: &[&str]| sandbox.refused(sets);
    says(
        &refused(&["--set=evals=[\"recal\"]"]),
        &["train.evals", "recal", "did you mean recall?", "(from --set train.evals)"],
    );
    says(&refused(&["--set=evals=recall"]), &["train.evals", "\"recall\" is not a list"]);
    says(&refused(&["--set=evals=[\"hope\"]"]), &["train.evals", "there is no eval \"hope\""]);
    says(
        &refused(&["--set=evals=[\"recall\", \"eval-recall/recall\"]"]),
        &["train.evals", "recall is named twice"],
    );
    let one = "--set=evals=[\"recall\"]";
    says(&refused(&[one, "--set=recall.lern=false"]), &["\"recall.lern\" is no known key"]);
    says(&refused(&[one, "--set=recall.texts=-1"]), &["eval.recall.texts", "-1"]);
    sandbox.write("my.toml", "[eval.recal]\ntexts = 3\n");
    says(
        &refused(&["--config=my.toml"]),
        &["eval.recal", "names no eval that is installed", "did you mean recall?", "my.toml line 1"],
    );
    sandbox.write("my.toml", "[eval]\nrecall = 3\n");
    says(&refused(&["--config=my.toml"]), &["eval.recall", "is no known key", "my.toml line 2"]);
    // Options of an eval that does not run are none of the run's.
    sandbox.write("my.toml", "[eval.recall]\ntexts = 3\n");
    let run = sandbox.train("run", &["--config=my.toml", "--steps=1"]);
    assert!(!run.file("config.toml").contains("[eval"), "{}", run.file("config.toml"));
    assert_eq!(run.json("summary.json")["evals"].as_array().map(Vec::len), Some(0));
}
