//! Golden values, where they lie beside the repository; and that the comparison itself misses nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use engine::plugins::Registry;
use host_tests::golden::{Device, Report, Verdict, run};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// Written past the test harness, which shows only what failing tests print.
fn tell(text: &str) {
    // Nobody may be listening; the test then says it by its result alone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn compare(folder: &Path) -> Report {
    let plugins = Registry::of(vec![host_tests::host().with_file_name("plugins")]);
    run(folder, &Device::available(), &plugins, |_| {})
}

/// Optimizers that have no plugin yet.
const MISSING_OPTIMIZERS: [&str; 7] =
    ["adafactor", "lion", "normuon", "schedule_free", "sgd", "shampoo", "soap"];

/// Base cases of anything else.
const BASE_CASES: usize = 60;

#[test]
fn golden_values_of_the_project_are_met() {
    let folder = host_tests::root().with_file_name("shared").join("golden");
    if !folder.is_dir() {
        return tell(&format!("golden values skipped: there is no {}", folder.display()));
    }
    let report = compare(&folder);
    tell(&format!("{report}\n{}", report.reasons().join("\n")));
    let failures: Vec<String> = report.failures().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    let is_missing = |case: &str| MISSING_OPTIMIZERS.iter().any(|optimizer| case.starts_with(optimizer));
    let base: BTreeSet<&str> = report.lines.iter().map(|line| line.case.as_str()).collect();
    let base = base.into_iter().filter(|case| !case.starts_with("nested-") && !is_missing(case));
    let base: Vec<&str> = base.collect();
    assert!(base.len() >= BASE_CASES, "only {} base cases: {base:?}", base.len());
    for device in Device::available() {
        let runs = |case: &&str| {
            let mut lines = report.lines.iter().filter(|line| line.case == **case);
            lines.any(|l| l.device == Some(device) && !matches!(l.verdict, Verdict::Unsupported(_)))
        };
        let left_out: Vec<&str> = base.iter().copied().filter(|case| !runs(case)).collect();
        assert!(left_out.is_empty(), "not run on {}: {left_out:?}", device.name());
    }
}

/// Writes a case: (name, role, extents, elements) of each tensor.
fn case(folder: &Path, name: &str, scalars: &str, tensors: &[(&str, &str, &[usize], &[f64])]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., data)| data.iter().flat_map(|number| number.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, _, dims, _), bytes)| {
        (*name, TensorView::new(Dtype::F64, dims.to_vec(), bytes).expect("extents and elements agree"))
    });
    let file = folder.join(format!("{name}.safetensors"));
    serialize_to_file(views, None, &file).expect("the folder is writable");
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, role, dims, _)| {
            format!(r#""{name}": {{"role": "{role}", "dtype": "f64", "shape": {dims:?}}}"#)
        })
        .collect();
    let entries = entries.join(", ");
    let json = format!(
        r#"{{"scalars": {scalars}, "tolerance": {{"f64": 1e-10, "f32": 1e-5}}, "tensors": {{{entries}}}}}"#
    );
    std::fs::write(folder.join(format!("{name}.json")), json).expect("the folder is writable");
}

/// y = sigmoid(x) at 0, where the value is 1/2 and the derivative 1/4, with these as its values.
fn sigmoid(folder: &Path, name: &str, y: f64, grad_x: f64) {
    let tensors: [(&str, &str, &[usize], &[f64]); 4] = [
        ("x", "input", &[1, 1], &[0.0]),
        ("ct_y", "cotangent", &[1, 1], &[1.0]),
        ("y", "output", &[1, 1], &[y]),
        ("grad_x", "gradient", &[1, 1], &[grad_x]),
    ];
    case(folder, name, "{}", &tensors);
}

#[test]
fn a_wrong_value_is_found_and_named() {
    let folder = tempfile::tempdir().expect("the system's folder for temporary files is writable");
    let folder = folder.path();
    sigmoid(folder, "sigmoid_right", 0.5, 0.25);
    sigmoid(folder, "sigmoid_wrong", 0.5, 0.250001);
    sigmoid(folder, "sigmoid_worse", f64::NAN, 0.25);
    sigmoid(folder, "unheard_of", 0.5, 0.25);
    std::fs::write(folder.join("half.json"), "{}").expect("the folder is writable");
    std::fs::write(folder.join("README.md"), "no case").expect("the folder is writable");
    let report = compare(folder);
    let lines: Vec<String> = report.lines.iter().map(ToString::to_string).collect();
    let ends = |case: &str, device: &str, parts: &[&str]| {
        let line = lines.iter().find(|line| line.starts_with(case) && line.contains(device));
        host_tests::says(line.map_or("", String::as_str), parts);
    };
    ends("half", " - ", &["fail: ", "half.safetensors"]);
    ends("sigmoid_right", "interpreter", &["pass"]);
    ends("sigmoid_right", "cpu", &["pass"]);
    ends("sigmoid_wrong", "interpreter", &["fail: grad_x[0, 0] is 2.5e-1, should be 2.50001e-1", "1.0e-10"]);
    ends("sigmoid_wrong", "cpu", &["pass"]);
    ends("sigmoid_worse", "cpu", &["fail: y[0, 0]", "inf"]);
    ends("unheard_of", " - ", &["unsupported (no runner for this family)"]);
    // A second device in f32 adds the verdicts of the first.
    let (of_wgpu, more) = match Device::available().contains(&Device::Wgpu) {
        true => (" wgpu 2 passed, 1 failed;", 1),
        false => ("", 0),
    };
    let counts = (lines.len(), report.passed(), report.failed(), report.unsupported());
    assert_eq!(counts, (8 + 3 * more, 3 + 2 * more, 4 + more, 1));
    assert_eq!(
        report.to_string(),
        format!(
            "golden values: interpreter 1 passed, 2 failed; cpu 2 passed, 1 failed;{of_wgpu} 1 could not be read; 1 not supported"
        )
    );
    assert_eq!(report.reasons(), ["   1 no runner for this family: unheard_of"]);
}

#[test]
fn a_folder_without_cases_is_a_failure() {
    let folder = tempfile::tempdir().expect("the system's folder for temporary files is writable");
    assert_eq!(compare(folder.path()).failed(), 1);
    assert_eq!(compare(&folder.path().join("missing")).failed(), 1);
}

#[test]
fn an_optimizer_takes_its_steps_through_its_plugin() {
    let folder = tempfile::tempdir().expect("the system's folder for temporary files is writable");
    // The first step of Adam is the sign of the gradient, whatever its size.
    let written = |name: &str, after: [f64; 2], m: [f64; 2]| {
        let scalars = r#"{"lr": 0.1, "beta1": 0.75, "beta2": 0.5, "eps": 1e-16, "weight_decay": 0.5}"#;
        let tensors: [(&str, &str, &[usize], &[f64]); 5] = [
            ("w_param_init", "input", &[2], &[1.0, -2.0]),
            ("w_grads", "input", &[1, 2], &[4.0, -0.5]),
            ("w_params", "output", &[1, 2], &after),
            ("w_m", "output", &[1, 2], &m),
            ("w_unknown", "output", &[1, 2], &[0.0, 0.0]),
        ];
        case(folder.path(), name, scalars, &tensors);
    };
    written("adamw_right", [0.85, -1.8], [1.0, -0.125]);
    written("adamw_wrong", [0.85, -1.8], [1.0, -0.25]);
    let lines = on_interpreter_and_cpu(folder.path());
    assert_eq!(lines.len(), 4, "{lines:?}");
    lines[..2].iter().for_each(|line| host_tests::says(line, &["adamw_right", "pass (without w_unknown)"]));
    lines[2..]
        .iter()
        .for_each(|line| host_tests::says(line, &["adamw_wrong", "fail: w_m[0, 1] is -1.25e-1"]));
}

/// The lines of a comparison, without those of graphics devices, which not every machine has.
fn on_interpreter_and_cpu(folder: &Path) -> Vec<String> {
    let lines = compare(folder).lines;
    lines.iter().map(ToString::to_string).filter(|line| !line.contains(" wgpu ")).collect()
}

#[test]
fn a_filter_of_three_axes_is_updated_as_a_matrix() {
    let folder = tempfile::tempdir().expect("the system's folder for temporary files is writable");
    // One step of the iteration takes a row of norm 1 to itself times a + b + c = 0.701; the scale of a row is 1.
    let scalars = r#"{"lr": 0.1, "momentum": 0.5, "nesterov": false, "ns_steps": 1, "weight_decay": 0.5,
                      "scale_rule": "original"}"#;
    let after = |p: f64, g: f64| p * 0.95 - 0.1 * 0.701 * g;
    let wanted = [after(1.0, 0.6), after(-2.0, 0.8), after(0.5, 0.0), after(4.0, 0.0)];
    let tensors: [(&str, &str, &[usize], &[f64]); 6] = [
        ("filter_param_init", "input", &[1, 2, 2], &[1.0, -2.0, 0.5, 4.0]),
        ("filter_grads", "input", &[1, 1, 2, 2], &[3.0, 4.0, 0.0, 0.0]),
        ("filter_params", "output", &[1, 1, 2, 2], &wanted),
        ("row_param_init", "input", &[1, 4], &[1.0, -2.0, 0.5, 4.0]),
        ("row_grads", "input", &[1, 1, 4], &[3.0, 4.0, 0.0, 0.0]),
        ("row_params", "output", &[1, 1, 4], &wanted),
    ];
    case(folder.path(), "muon_filter", scalars, &tensors);
    let lines = on_interpreter_and_cpu(folder.path());
    assert_eq!(lines.len(), 2, "{lines:?}");
    lines.iter().for_each(|line| host_tests::says(line, &["muon_filter", "pass"]));
}
