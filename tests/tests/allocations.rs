//! What a replay asks the heap for: the engine's own launches for nothing, and the `gemm` crate for what it packs.

use std::alloc::System;

use device_cpu::Cpu;
use host_tests::bench::{plans, request};
use host_tests::host;
use plan::{Device, LaunchOp, PlanSet};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

#[test]
fn launches_of_a_step_allocate_nothing_of_ours() {
    let (request, vocab) = request("tiny").expect("it is a bench");
    let registry = engine::plugins::Registry::of(vec![host().with_file_name("plugins")]);
    let resolved = engine::config::resolve(&request, &registry).unwrap_or_else(|error| panic!("{error}"));
    let (states, plans) =
        plans(&resolved, &registry, vocab, Default::default).unwrap_or_else(|error| panic!("{error}"));
    let launches = plans[0].launches.clone();
    let set = PlanSet { states, plans };
    let mut device = Cpu::new(2);
    device.load(set).unwrap_or_else(|error| panic!("{error}"));
    let is_product = |launch: usize| matches!(launches[launch].op, LaunchOp::Gemm(_));
    // What the crate keeps for each thread is allocated when that first takes a product, in whichever replay: the least
    // of some is what each costs.
    let (mut whole, mut products) = (usize::MAX, usize::MAX);
    for _ in 0..5 {
        let before = allocations();
        device.replay(0).unwrap_or_else(|error| panic!("{error}"));
        whole = whole.min(allocations() - before);

        let (mut ours, mut theirs) = (0, 0);
        let mut last = allocations();
        let mut sink = |launch: usize, _: u64| {
            let now = allocations();
            *if is_product(launch) { &mut theirs } else { &mut ours } += now - last;
            last = now;
        };
        device.replay_timed(0, &mut sink).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(ours, 0, "a launch that is no product");
        products = products.min(theirs);
    }
    println!("{} launches: 0 allocations of ours, {products} of the gemm crate", launches.len());
    assert_eq!(whole, products, "between launches nothing is allocated either");
}
