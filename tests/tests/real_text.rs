//! A short run on Shakespeare, where the shared data is there: the whole program learns what it should.

use host_tests::{Run, Sandbox, root};

#[test]
fn sixty_steps_of_shakespeare() {
    let data = root().join("../shared/data/tinyshakespeare.txt");
    if !data.is_file() {
        println!("skipped: {} is not there", data.display());
        return;
    }
    let sandbox = Sandbox::new();
    let data = data.to_str().expect("the workspace has a UTF-8 path");
    let arguments = ["--plugin=transformer", "--optim=adamw", "--preset=tiny", "--data", data];
    let short = ["--steps=60", "--set=eval_windows=64", "--out=run"];
    sandbox.host(&[&["run"][..], &arguments, &short].concat()).succeeded();
    let summary = Run::at(sandbox.path("run")).json("summary.json");
    let number = |key: &str| summary[key].as_f64().unwrap_or(f64::NAN);
    assert!(number("val_bits_per_byte") < 4.0, "{summary}");
    assert!(number("val_bits_per_byte") < number("unigram_bits_per_byte"), "{summary}");
}
