//! What cannot run is an error that says where and why.

use ops::{DType, Op};
use plan::{Affine, Binding, Domain, Expr, LaunchOp, PlanSet, Slot, Store, Template, TileKernel, Value};

use super::{any_adapter, run, single};
use crate::choose;

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
