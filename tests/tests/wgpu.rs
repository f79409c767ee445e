//! Runs on a graphics device against runs on the CPU: losses, checkpoints that change device, and what happens to a run
//! whose device goes away.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use engine::config::Request;
use engine::plugins::Registry;
use engine::run::{Event, prepare, train};
use host_tests::{Run, SMALL, Sandbox, devices, host, says};

/// Whether there is an adapter; the notice says why a test shows nothing without one.
fn there() -> bool {
    let is_there = devices::wgpu().is_some();
    if !is_there {
        println!("skipped: no adapter; on Debian mesa-vulkan-drivers gives a software one");
    }
    is_there
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn losses_follow_the_cpu() {
    if !there() {
        return;
    }
    let sandbox = Sandbox::new();
    for (name, chosen, bar) in [
        ("transformer", &["--set=dropout=0.1"][..], 2e-5),
        ("hope", &["--plugin=hope", "--optim=muon"], 1e-4),
    ] {
        let losses = |device: &str| {
            let (out, flag) = (format!("{name}-{}", &device[..3]), format!("--device={device}"));
            let run = sandbox.train(&out, &[chosen, &["--steps=10", &flag]].concat());
            (run.losses(), run.json("summary.json")["device"].to_string())
        };
        let ((cpu, _), (gpu, device)) = (losses("cpu"), losses("wgpu:0"));
        assert!(device.contains("wgpu: "), "{device}");
        let worst = worst(&cpu, &gpu);
        println!("{name}: losses differ by {worst:e} at most");
        assert!(worst <= bar, "{name}: losses differ by {worst:e}: {cpu:?} and {gpu:?}");
    }
}

#[test]
fn equal_runs_have_equal_bits_and_checkpoints_change_device() {
    if !there() {
        return;
    }
    let sandbox = Sandbox::new();
    let on_wgpu = ["--steps=6", "--device=wgpu:0"];
    let whole = sandbox.train("whole", &on_wgpu);
    assert_eq!(whole.trace(), sandbox.train("again", &on_wgpu).trace());
    sandbox.train("parts", &["--steps=3", "--device=cpu"]);
    sandbox.host(&["run", "--resume=parts", "--steps=6", "--device=wgpu:0"]).succeeded();
    sandbox.train("back", &["--steps=3", "--device=wgpu:0"]);
    sandbox.host(&["run", "--resume=back", "--steps=6", "--device=cpu"]).succeeded();
    for name in ["parts", "back"] {
        let losses = Run::at(sandbox.path(name)).losses();
        let worst = worst(&whole.losses(), &losses);
        assert!(worst <= 2e-5, "{name}: losses differ by {worst:e}");
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let refused = sandbox.refused(&["--device=wgpu:7"]);
    says(&refused, &["--device wgpu:7", "no wgpu:7"]);
    if there() && device_wgpu::adapters().iter().all(|adapter| adapter.is_software) {
        let refused = sandbox.refused(&["--device=wgpu"]);
        says(&refused, &["no hardware adapter", "software is used only when named", "wgpu:0 is "]);
    }
    says(&sandbox.host(&["doctor"]).stdout, &["wgpu"]);
}

/// Losses are read while the next step runs. Saving waits for what came before: with or without, the record is the same.
#[test]
fn every_loss_is_on_record_in_its_order() {
    if !there() {
        return;
    }
    let sandbox = Sandbox::new();
    let common = ["--steps=7", "--device=wgpu:0", "--set=accumulate=2"];
    let ahead = sandbox.train("ahead", &common);
    let waits = sandbox.train("waits", &[&common[..], &["--set=save_every=1"]].concat());
    let steps: Vec<Option<u64>> = ahead.metrics().iter().map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, (1..=7).map(Some).collect::<Vec<_>>());
    assert_eq!(ahead.trace(), waits.trace());
    assert_eq!(ahead.json("summary.json")["init_loss"], ahead.metrics()[0]["loss"]);
}

#[test]
fn steps_that_are_not_finite_are_told_with_their_numbers() {
    if !there() {
        return;
    }
    let sandbox = Sandbox::new();
    // The first step is finite and throws every parameter beyond what f32 can square.
    let arguments = ["--steps=20", "--set=train.lr=1e38", "--set=warmup=0", "--out=run", "--device=wgpu:0"];
    let sentence = sandbox.host(&[&["run"][..], SMALL, &arguments].concat()).failed();
    says(&sentence, &["not finite in 5 steps in a row (2 to 6)", "none of which was applied"]);
    let lines = Run::at(sandbox.path("run")).metrics();
    let skipped: Vec<bool> = lines.iter().map(|line| line["skipped"] == true).collect();
    assert_eq!(skipped, [false, true, true, true, true, true]);
}

/// The card is pulled out in mid-run: the error says so, and the CPU goes on from the last checkpoint.
#[test]
fn a_run_survives_the_loss_of_its_device() {
    let Some(adapter) = device_wgpu::adapters().into_iter().next() else { return };
    let sandbox = Sandbox::new();
    let registry = Registry::of(vec![host().with_file_name("plugins")]);
    let set = |flag: &&str| flag.trim_start_matches("--set=").to_string();
    let request = Request {
        device: Some("wgpu:0".into()),
        steps: Some(12),
        sets: SMALL.iter().chain(&["save_every=4"]).map(set).collect(),
        ..Request::default()
    };
    let prepared = prepare(&request, &registry).expect("the run is as small as others");
    let mut lose = |event: Event| {
        if matches!(event, Event::Step(step) if step.step == 6) {
            adapter.lose();
        }
    };
    let out = sandbox.path("run");
    let ended = train(prepared, Some(&out), &AtomicBool::new(false), Instant::now(), &mut lose);
    let sentence = ended.err().expect("there is no device to go on with").to_string();
    println!("{sentence}");
    says(&sentence, &["wgpu: ", "was lost", "checkpoints are kept", "--resume", "--device cpu"]);
    let run = Run::at(out);
    assert_eq!(run.checkpoints(), ["step-00000004"]);
    sandbox.host(&["run", "--resume=run", "--device=cpu"]).succeeded();
    let steps: Vec<Option<u64>> = run.metrics().iter().map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, (1..=12).map(Some).collect::<Vec<_>>());

    // Whoever comes next opens the adapter again.
    sandbox.train("next", &["--steps=2", "--device=wgpu:0"]);
}

/// Launches are timed by the adapter's clock where it has one; either way there is a time for each.
#[test]
fn a_profile_has_a_time_for_every_launch() {
    if !there() {
        return;
    }
    let words = [&["profile", "--json", "--replays=1", "--device=wgpu:0"][..], SMALL].concat();
    let text = Sandbox::new().host(&words).succeeded().stdout;
    let profile: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let rows = profile["launches"].as_array().expect("rows");
    let times: Vec<f64> = rows.iter().filter_map(|row| row["seconds"].as_f64()).collect();
    assert!(times.len() > 50 && times.iter().all(|time| *time > 0.0 && *time < 10.0), "{times:?}");
    let replay = profile["replay_seconds"].as_f64().expect("a number");
    println!(
        "{} launches take {:.1} ms of {:.1}",
        times.len(),
        times.iter().sum::<f64>() * 1e3,
        replay * 1e3
    );
}
