//! Runs on a graphics device against runs on the CPU: losses, and checkpoints that change device.

use host_tests::{Sandbox, devices, says};

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
        let losses = host_tests::Run::at(sandbox.path(name)).losses();
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
