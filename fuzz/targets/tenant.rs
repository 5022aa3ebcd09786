#![no_main]

//! Counts what is allocated: whatever the objects, no more is held at once than the budgets allow for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts bytes.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        ALLOCATED.fetch_add(layout.size(), Relaxed);
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The memory that [`proxier::fuzz::tenant`] gives the process.
const MEMORY: usize = 16 << 20;
/// Bytes allocated for each byte that is read, again and again.
const EACH: usize = 4096;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    ALLOCATED.store(0, Relaxed);
    proxier::fuzz::tenant(bytes);
    let most = MOST.load(Relaxed) - before;
    assert!(most <= MEMORY, "{most} bytes held for {}", bytes.len());
    // All that is done in a step takes memory: time grows with it.
    let allocated = ALLOCATED.load(Relaxed);
    let allowed = 4 * MEMORY + EACH * bytes.len();
    assert!(allocated <= allowed, "{allocated} bytes allocated for {}", bytes.len());
});
