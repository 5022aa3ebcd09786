//! Whatever objects a tenant writes: what is kept is bounded, and all that is done grows with what there is
//! to read and no faster. Work is counted by what it allocates, which the clock knows nothing of. One test
//! in a process of its own, since the count is that of the process.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::alloc::System;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proxier::builders::{ip, settings};
use proxier::dataplane::{Limits, Settings};
use proxier::memory::Memory;
use proxier::reconcile::{Event, Reconciler, Resolver};
use proxier_tests::daemon::Scratch;
use proxier_tests::load::memory::TIMING;
use proxier_tests::simulated::cases;
use proxier_tests::worst::{Random, Shape, documents};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The memory that the process may have, of which a quarter is for what is programmed.
const MEMORY: u64 = 16 << 20;

/// What a manifest has cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Bytes of the manifest.
    text: usize,
    /// Allocations, and bytes of them.
    allocations: usize,
    allocated: usize,
    /// Bytes that are kept at the end, with the kernel in memory.
    kept: usize,
    virtual_servers: usize,
}

/// Reads and programs a manifest.
fn program(text: &str, limits: Limits) -> Cost {
    let scratch = Scratch::create().unwrap();
    let file = scratch.replace("objects.json", text).unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let region = Region::new(ALLOCATOR);
        let resolver = Resolver::new(move |_, _| Settings { limits, ..settings() });
        let (mut reconciler, _status) = Reconciler::new(Memory::new(), resolver, TIMING);
        reconciler.take(Event::HostAddresses(vec![ip("192.0.2.1")]));
        let loaded = proxier::source::files::load(&[file], "node-a").unwrap();
        reconciler.take(Event::from(loaded.changes));
        reconciler.step().await;
        reconciler.dataplane().done = Vec::new();
        let stats = region.change();
        Cost {
            text: text.len(),
            allocations: stats.allocations + stats.reallocations,
            allocated: stats.bytes_allocated,
            kept: stats.bytes_allocated.saturating_sub(stats.bytes_deallocated),
            virtual_servers: reconciler.desired().state().virtual_servers.len(),
        }
    })
}

fn objects(shape: &str) -> String {
    documents(&shape.parse().unwrap(), 0)
}

/// Twice as much costs twice as much: from size to size the difference doubles, and no more.
fn doublings() {
    let unlimited = Limits::of_memory(4 << 30);
    for (name, rest) in [
        ("services", "ports=1"),
        ("services", "ports=1 external=1 contested=1"),
        ("ports", "services=1 slices=1 slice-ports=1 endpoints=3"),
        ("external", "services=1 ports=2"),
        ("external", "services=2 ports=2 contested=1"),
        ("vips", "services=1 ports=2 ranges=2"),
        ("ranges", "services=1 ports=1 vips=2"),
        ("slices", "services=1 ports=1 slice-ports=1 endpoints=1"),
        ("slice-ports", "services=1 ports=1 slices=1 endpoints=1"),
        ("endpoints", "services=1 ports=1 slices=1 slice-ports=1 hints=2 distinct=1 name=20"),
        ("endpoints", "services=1 ports=1 slices=4 slice-ports=1 same=1"),
        ("orphans", "slice-ports=1 endpoints=2"),
    ] {
        let cost =
            |size: u32| program(&objects(&format!("{name}={size} mebibytes=64 {rest}")), unlimited);
        let [small, middle, large] = [200, 400, 800].map(cost);
        for (what, of) in [
            ("allocations", (|cost: &Cost| cost.allocations) as fn(&Cost) -> usize),
            ("bytes", |cost| cost.allocated),
        ] {
            let (first, second) =
                (of(&middle).abs_diff(of(&small)), of(&large).abs_diff(of(&middle)));
            // A table that grows in one of the two steps and not in the other is no square.
            assert!(second <= 3 * first, "{name} {rest}: {what} {small:?} {middle:?} {large:?}");
        }
    }
}

#[test]
fn whatever_a_tenant_writes_costs_so_much_and_no_more() {
    doublings();
    let limits = Limits::of_memory(MEMORY);
    let mut runner = TestRunner::new(cases(48));
    let checked = runner.run(&any::<u64>(), |seed| {
        let mut random = Random::new(seed);
        let shape = Shape::random(&mut random).smaller();
        let cost = program(&documents(&shape, 0), limits);
        // What is programmed is bounded, whatever there is; the rest is the objects themselves.
        let kept = MEMORY as usize + 8 * cost.text;
        prop_assert!(cost.kept <= kept, "{shape}: {cost:?}");
        prop_assert!(cost.virtual_servers as u64 <= limits.namespace / 1024, "{shape}: {cost:?}");
        let allocated = 8 * MEMORY as usize + 64 * cost.text;
        prop_assert!(cost.allocated <= allocated, "{shape}: {cost:?}");
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}
