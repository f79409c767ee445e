//! The text of every kernel that presets and plugins bring to a graphics device, checked without one, and how many kernels
//! a step is made of.

use std::collections::{BTreeSet, HashSet};

use compiler::{Apart, Options};
use device_wgpu::{Tiles, Wgpu, sources};
use engine::plugins::{Kind, Registry};
use host_tests::presets::{Configured, layout, plans};

const fn preset(preset: &'static str) -> Configured {
    Configured { preset, sets: &[] }
}

const fn tiny(sets: &'static [&'static str]) -> Configured {
    Configured { preset: "tiny", sets }
}

const fn hope(sets: &'static [&'static str]) -> Configured {
    Configured { preset: "hope-tiny", sets }
}

/// Presets as they are, and every option that changes which kernels there are. Layers repeat each other's kernels.
const CASES: &[Configured] = &[
    preset("tiny"),
    preset("craft-1m"),
    preset("recall"),
    preset("hope-tiny"),
    Configured { preset: "pilot", sets: &["model.transformer.layers=2"] },
    Configured { preset: "reference/pilot-smoke", sets: &["model.hope.layers=1"] },
    tiny(&[
        "layers=2",
        "norm=post",
        "model.transformer.bias=true",
        "activation=relu",
        "positions=learned",
        "tied=false",
        "dropout=0.1",
        "attention.full.bias=true",
        "kv_heads=2",
        "sliding_window=16",
        "optimizer.name=muon",
        "scale_rule=original",
    ]),
    tiny(&[
        "layers=2",
        "norm=post",
        "mlp_norm=pre",
        "norm_bias=true",
        "activation=silu",
        "positions=none",
        "embed_scale=true",
        "accumulate=2",
        "clip=0",
    ]),
    tiny(&["layers=2", "optimizer.name=muon", "nesterov=false", "accumulate=2"]),
    tiny(&["layers=2", "attention.name=linear", "stream=2"]),
    tiny(&["layers=2", "attention.name=linear", "attention.linear.decay=learned", "positions=none"]),
    hope(&["layers=1", "form=dense", "optimizer.name=adamw"]),
    hope(&["layers=1", "form=factored", "stream=2"]),
    hope(&["layers=1", "form=factored", "write_grad=chunk", "learn_memory_lr=true", "teach_norm=chunk"]),
    hope(&["layers=1", "form=dense", "write_grad=none", "retain=0.9", "kv_grad=detach", "teach_clip=1.0"]),
    hope(&["layers=1", "gate=chunk", "gate_metric=loss", "teach_warmup=4", "teach_norm=batch"]),
    hope(&["layers=1", "gate=token", "gate_metric=entropy", "gate_relative=false", "form=dense"]),
    hope(&["layers=1", "gate=token", "gate_metric=l2", "form=factored", "teach=block", "rope=false"]),
    hope(&["layers=1", "online_chunk=16", "periods=[16,64]", "write_grad=none", "sliding_window=32"]),
    hope(&["layers=1", "attention.name=linear"]),
    hope(&["layers=1", "writes=false"]),
];

/// A text that WebGPU's baseline takes, or what is wrong with it.
fn check(text: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let (flags, baseline) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
    let valid = naga::valid::Validator::new(flags, baseline).validate(&module);
    valid.map(|_| ()).map_err(|error| error.emit_to_string(text))
}

#[test]
fn every_kernel_of_every_preset_and_plugin_is_valid() {
    let registry = Registry::of(vec![host_tests::host().with_file_name("plugins")]);
    let mut checked = HashSet::new();
    for case in CASES {
        let name = case.name();
        let (mut own, mut most) = (HashSet::new(), 0);
        let sets: Vec<_> =
            case.graphs(&registry, true).iter().map(|list| plans(list, &Wgpu::caps())).collect();
        for set in &sets {
            for tiles in [Tiles::Direct, Tiles::Shared] {
                let sources = sources(set, tiles).unwrap_or_else(|error| panic!("{name}: {error}"));
                for source in sources {
                    most = most.max(source.storage_buffers);
                    if tiles == Tiles::Direct {
                        own.insert(source.text.clone());
                    }
                    if checked.contains(&source.text) {
                        continue;
                    }
                    if let Err(error) = check(&source.text) {
                        panic!("{name}, {}: {error}\n{}", source.label, source.text);
                    }
                    checked.insert(source.text);
                }
            }
        }
        let launches = sets[0].plans[0].launches.len();
        println!("{name}: {launches} launches a step, {} kernels, {most} storage buffers at most", own.len());
        assert!(most <= 8, "{name}: {most} storage buffers");
    }
    println!("{} texts checked", checked.len());
}

/// A plugin that no case names would go unchecked. Evals ask sessions, which every case has.
#[test]
fn every_plugin_has_a_case() {
    let registry = Registry::of(vec![host_tests::host().with_file_name("plugins")]);
    let configs = host_tests::root().join("configs");
    let preset =
        |case: &Configured| std::fs::read_to_string(configs.join(case.preset).with_extension("toml"));
    let named = |word: &str| {
        let quoted = [format!("name = \"{word}\""), format!("[attention.{word}]")];
        CASES.iter().any(|case| {
            let text = preset(case).unwrap_or_default();
            quoted.iter().any(|line| text.contains(line))
                || case.sets.iter().any(|set| set.ends_with(&format!(".name={word}")))
        })
    };
    for kind in [Kind::Model, Kind::Attention, Kind::Optimizer] {
        let names: BTreeSet<&String> = registry.components(kind).map(|(_, info)| &info.name).collect();
        assert!(!names.is_empty(), "no {} was found", kind.name());
        for name in names {
            assert!(named(name), "{} {name} is in no case", kind.name());
        }
    }
}

/// Every launch costs a graphics device as much as a small kernel computes, so none may be left that another could take in:
/// its producer, or in the transformer one beside it that reads the same tensor. HOPE has some hundred of the latter, which
/// fusion merges by their producers alone.
#[test]
fn no_kernel_of_a_step_could_absorb_another() {
    let registry = Registry::of(vec![host_tests::host().with_file_name("plugins")]);
    for (case, siblings_too) in [(preset("craft-1m"), true), (preset("hope-tiny"), false)] {
        let name = case.name();
        let programs = case.graphs(&registry, false).remove(0);
        let states = layout(programs.iter().map(|program| &program.graph));
        let apart = |disabled: &[&str]| {
            let disabled = disabled.iter().map(ToString::to_string).collect();
            let options = Options { disabled, ..Options::default() };
            let found = compiler::apart(&programs[0].graph, &states, &Wgpu::caps(), options);
            found.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let (producers, siblings): (Vec<Apart>, Vec<Apart>) =
            apart(&[]).into_iter().partition(|pair| pair.is_producer);
        let unfused = apart(&["fuse"]).iter().filter(|pair| pair.is_producer).count();
        println!(
            "{name}: {} producers and {} siblings are left apart, {unfused} producers without fusion",
            producers.len(),
            siblings.len()
        );
        assert!(unfused > 100, "{name}: fusion is off, and {unfused} pairs are found");
        assert!(producers.is_empty(), "{name}: {producers:#?}");
        assert!(!siblings_too || siblings.is_empty(), "{name}: {siblings:#?}");
    }
}
