//! Keeps the heap small: in small pages from before the first allocation, and given back after a wave.
//!
//! A huge page that is touched stays.
//! An idle sidecar uses some seven hundred kilobytes of heap; in huge pages the first allocations
//! alone take four megabytes. mimalloc itself is built to ask for none (`no_thp`); this is for
//! kernels that give them unasked (`transparent_hugepage/enabled` is `always`).

/// Runs before Rust's own start, which allocates, and so before `main`.
#[expect(unsafe_code, reason = "the attribute names a section that the loader calls into")]
// SAFETY: the loader calls what this section points to, once, with the C calling convention;
// `stay_small` has that, takes no arguments that it would read, and neither allocates nor unwinds.
#[unsafe(link_section = ".init_array")]
#[used]
static FIRST: extern "C" fn() = stay_small;

extern "C" fn stay_small() {
    // Where the kernel knows no huge pages there is nothing to switch off.
    let _unknown = rustix::thread::disable_transparent_huge_pages(true);
}

#[expect(unsafe_code, reason = "the allocator's own function has no other name in Rust")]
// SAFETY: it is mimalloc's `void mi_collect(bool)`, which is linked in as the global allocator.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives the pages back that hold nothing of this thread any more.
///
/// mimalloc does that a second after they became free, but only when it is asked for memory then.
pub(crate) fn give_back() {
    mi_collect(true);
}
