//! What cannot run is an error that says where and why.

use std::path::{Path, PathBuf};

use ops::{DType, Op};
use plan::{
    Affine, Binding, Device, DeviceError, Domain, Expr, LaunchOp, Outputs, PlanSet, Slot, Store, Template,
    TileKernel, Value,
};

use super::{any_adapter, run, single};
use crate::{Wgpu, cache, choose};

/// y = -x.
fn negation(count: usize) -> PlanSet {
    let at = Affine::new(0, vec![1]);
    let value = |expr| Value { expr, dtype: DType::F32, domain: Domain::Element };
    let binding = |written| Binding { dtype: DType::F32, written };
    let kernel = TileKernel {
        dims: vec![count],
        template: Template::Map,
        bindings: vec![binding(false), binding(true)],
        values: vec![
            value(Expr::Load { binding: 0, at: at.clone(), gather: None }),
            value(Expr::Apply { op: Op::Neg, args: vec![0] }),
        ],
        stores: vec![Store { binding: 1, at, value: 1 }],
    };
    single(
        vec![kernel],
        |slots: &[Slot]| LaunchOp::Tile { kernel: 0, bindings: slots.to_vec() },
        &[count, count],
    )
}

#[test]
fn small_adapters_refuse_what_is_too_large() {
    let Some(adapter) = any_adapter() else { return };
    let operands = [vec![1f32.to_bits(); 4096], vec![0; 4096]];
    let refused = |binding_bytes, buffer_bytes| {
        let small = adapter.clone().limited(binding_bytes, buffer_bytes);
        run(&small, &negation(4096), &operands).expect_err("the adapter is too small").to_string()
    };
    let binding = refused(8192, 1 << 20);
    assert!(binding.contains("layers.0: It") && binding.contains("binds 16384 bytes"), "{binding}");
    let buffer = refused(1 << 16, 1 << 14);
    assert!(buffer.contains("arena") && buffer.contains("32768 bytes"), "{buffer}");
    let fits = run(&adapter.limited(1 << 16, 1 << 16), &negation(4096), &operands).unwrap();
    assert!(fits[1].iter().all(|word| *word == (-1f32).to_bits()));
}

/// Outputs that are still to be fetched are those of their own replay, whatever was replayed since.
#[test]
fn outputs_wait_for_whoever_fetches_them() {
    let Some(adapter) = any_adapter() else { return };
    let mut device = Wgpu::new(adapter);
    device.load(negation(64)).unwrap();
    let mut coming = Vec::new();
    let bytes = |x: f32| [x; 64].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    for x in [1.0, 2.0, 3.0] {
        device.upload(0, 0, &bytes(x)).unwrap();
        device.replay(0).unwrap();
        let outputs = device.outputs(0, 2).unwrap();
        assert!(matches!(outputs, Outputs::Coming(_)));
        coming.push((x, outputs));
    }
    assert_eq!(device.download(0, 1).unwrap(), bytes(-3.0), "what was handed out is there as well");
    coming.swap(0, 1);
    for (x, outputs) in coming {
        assert_eq!(device.fetch(outputs).unwrap(), [bytes(x), bytes(-x)]);
    }
    device.upload(0, 0, &bytes(4.0)).unwrap();
    device.replay(0).unwrap();
    assert_eq!(device.download(0, 1).unwrap(), bytes(-4.0));
    assert_eq!(device.download(0, 0).unwrap(), bytes(4.0));
    assert!(device.fetch(Outputs::Coming(1)).is_err(), "it was fetched");

    device.upload(0, 0, &bytes(5.0)).unwrap();
    let mut times = Vec::new();
    device.replay_timed(0, &mut |launch, nanoseconds| times.push((launch, nanoseconds))).unwrap();
    assert!(matches!(times[..], [(0, 1..)]), "{times:?}");
    assert_eq!(device.outputs(0, 2).unwrap(), Outputs::Here(vec![bytes(5.0), bytes(-5.0)]));
}

#[test]
fn a_device_that_is_gone_says_so() {
    let Some(adapter) = any_adapter() else { return };
    // One that nobody else has open.
    let adapter = adapter.limited(1 << 20, 1 << 20);
    let mut device = Wgpu::new(adapter.clone());
    device.load(negation(64)).unwrap();
    device.replay(0).unwrap();
    let outputs = device.outputs(0, 2).unwrap();
    adapter.lose();
    let lost = |error: DeviceError| assert!(matches!(error, DeviceError::Lost { .. }), "{error}");
    // A submission returns before anything has run.
    let _ = device.replay(0).map_err(lost);
    device.fetch(outputs).map_err(lost).unwrap_err();
    device.download(0, 1).map_err(lost).unwrap_err();
    device.load(negation(64)).unwrap();
    device.replay(0).unwrap();
}

/// Whatever lies where compiled kernels are kept, the plan runs, and what is whole lies there afterwards.
#[test]
fn kept_kernels_that_are_no_good_cost_only_time() {
    let Some(adapter) = any_adapter() else { return };
    let folder = std::env::temp_dir().join(format!("host-kept-kernels-{}", std::process::id()));
    let kept = || std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = |folder: &Path| {
        // One that nobody else has open.
        let adapter = adapter.clone().limited(1 << 20, 1 << 20).with_cache(Some(folder.to_path_buf()));
        let got = run(&adapter, &negation(64), &[vec![1f32.to_bits(); 64], vec![0; 64]]).unwrap();
        assert!(got[1].iter().all(|word| *word == (-1f32).to_bits()));
    };
    runs(&folder);
    let files: Vec<PathBuf> = kept().collect();
    // Metal and DX12 keep theirs themselves.
    if let [file] = &files[..] {
        let whole = std::fs::read(file).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"what another program left there"] {
            std::fs::write(file, damaged).unwrap();
            runs(&folder);
            assert_eq!(std::fs::read(file).unwrap(), whole);
        }
        cache::write(file, b"whole, and of another driver").unwrap();
        runs(&folder);
        assert_eq!(std::fs::read(file).unwrap(), whole);
        assert_eq!(kept().count(), 1, "no drafts are left");
    }
    // It is there only where something was kept.
    let _ = std::fs::remove_dir_all(&folder);
    runs(Path::new("/proc/nowhere"));
}

/// More groups than one dimension holds.
#[test]
fn long_maps_use_more_dimensions() {
    let Some(adapter) = any_adapter() else { return };
    let count = 65_535 * 64 + 100;
    let words: Vec<u32> = (0..count as u32).map(|i| (i as f32).to_bits()).collect();
    let got = run(&adapter, &negation(count), &[words, vec![0; count]]).unwrap();
    assert!(got[1].iter().enumerate().all(|(i, word)| f32::from_bits(*word) == -(i as f32)));
}

#[test]
fn adapters_are_chosen_by_number() {
    let missing = choose(Some(99)).err().expect("there are not that many");
    assert!(missing.contains("no wgpu:99"), "{missing}");
}
