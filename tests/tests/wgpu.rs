//! Runs on a graphics device against runs on the CPU: losses, checkpoints that change device, and the text of every
//! kernel of every preset, which needs no device.

use compiler::Options;
use device_wgpu::{Tiles, Wgpu, sources};
use engine::config::{Request, resolve};
use engine::plugins::Registry;
use engine::trace::{Programs, Shape};
use graph::DType;
use host_tests::{Sandbox, devices, says};
use plan::{PlanSet, Region, Slot, StateLayout, StateSlot};

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

/// The plans of a preset's training run, as they are for a graphics device.
fn plans(registry: &Registry, preset: &str, model: Option<&str>, optimizer: Option<&str>) -> PlanSet {
    let request = Request {
        files: vec![host_tests::root().join("configs").join(preset).with_extension("toml")],
        no_preset: true,
        model: model.map(String::from),
        optimizer: optimizer.map(String::from),
        no_evals: true,
        ..Request::default()
    };
    let resolved = resolve(&request, registry).unwrap_or_else(|error| panic!("{preset}: {error}"));
    let train = &resolved.settings.train;
    let shape = Shape {
        batch: train.batch,
        window: train.window,
        vocab: 256,
        accumulate: train.accumulate,
        clip: train.clip,
        stream: train.stream,
    };
    let programs =
        Programs::trace(&resolved, registry, shape).unwrap_or_else(|error| panic!("{preset}: {error}"));
    let mut set = PlanSet { states: StateLayout::default(), plans: Vec::new() };
    for decl in engine::machine::states(programs.list.iter().map(|program| &program.graph)) {
        let bytes = decl.ty.elements() * DType::BYTES;
        let slot = Slot { region: Region::State, offset: set.states.bytes, bytes };
        set.states.slots.push(StateSlot { name: decl.name, dtype: decl.ty.dtype, dims: decl.ty.dims, slot });
        set.states.bytes += bytes.next_multiple_of(256);
    }
    for program in &programs.list {
        let plan =
            compiler::compile(program.name, &program.graph, &set.states, &Wgpu::caps(), Options::default());
        set.plans.push(plan.unwrap_or_else(|error| panic!("{preset}: {error}")));
    }
    set
}

#[test]
fn every_kernel_of_every_preset_is_valid() {
    let registry = Registry::of(vec![host_tests::host().with_file_name("plugins")]);
    for (preset, model, optimizer) in [
        ("tiny", None, None),
        ("craft-1m", None, None),
        ("recall", None, None),
        ("hope-tiny", Some("hope"), Some("muon")),
    ] {
        let set = plans(&registry, preset, model, optimizer);
        let mut most = 0;
        for tiles in [Tiles::Direct, Tiles::Shared] {
            let sources = sources(&set, tiles).unwrap_or_else(|error| panic!("{preset}: {error}"));
            for source in &sources {
                let failed = |error: String| panic!("{preset}, {}: {error}\n{}", source.label, source.text);
                let module = naga::front::wgsl::parse_str(&source.text)
                    .unwrap_or_else(|error| failed(error.emit_to_string(&source.text)));
                let (flags, baseline) =
                    (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
                let valid = naga::valid::Validator::new(flags, baseline).validate(&module);
                if let Err(error) = valid {
                    failed(error.emit_to_string(&source.text));
                }
                most = most.max(source.storage_buffers);
            }
            if tiles == Tiles::Direct {
                let launches = set.plans[0].launches.len();
                println!(
                    "{preset}: {launches} launches a step, {} kernels, {most} storage buffers at most",
                    sources.len()
                );
            }
        }
        assert!(most <= 8, "{preset}: {most} storage buffers");
    }
}
