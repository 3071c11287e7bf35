// SPDX-License-Identifier: Apache-2.0
//! An allocator that counts: for `cargo xtask profile bgp`, never for the product.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator with counters. Bins tell sizes apart by powers of two from 16 octets on.
#[derive(Debug)]
pub struct Counting {
    calls: [AtomicU64; BINS],
    bytes: [AtomicU64; BINS],
    grown: AtomicU64,
}

/// The last one takes everything from 512 KiB on.
const BINS: usize = 16;

impl Counting {
    /// Nothing counted yet.
    pub const fn new() -> Counting {
        Counting {
            calls: [const { AtomicU64::new(0) }; BINS],
            bytes: [const { AtomicU64::new(0) }; BINS],
            grown: AtomicU64::new(0),
        }
    }

    fn count(&self, size: usize) {
        let bits = usize::BITS - size.saturating_sub(1).leading_zeros();
        let bin = (bits.saturating_sub(4) as usize).min(BINS - 1);
        self.calls[bin].fetch_add(1, Ordering::Relaxed);
        self.bytes[bin].fetch_add(size as u64, Ordering::Relaxed);
    }

    /// What was counted, a line for each size.
    pub fn report(&self) -> String {
        let sum = |of: &[AtomicU64]| of.iter().map(|n| n.load(Ordering::Relaxed)).sum::<u64>();
        let mut text = format!(
            "allocations: {} of {} KiB in all; {} grew or shrank\n",
            sum(&self.calls),
            sum(&self.bytes) >> 10,
            self.grown.load(Ordering::Relaxed)
        );
        for (bin, (calls, bytes)) in self.calls.iter().zip(&self.bytes).enumerate() {
            let (calls, bytes) = (calls.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
            if calls > 0 {
                let most = 16_u64 << bin;
                text += &format!("  to {most:7} octets: {calls:9} of {:9} KiB\n", bytes >> 10);
            }
        }
        text
    }
}

impl Default for Counting {
    fn default() -> Counting {
        Counting::new()
    }
}

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.grown.fetch_add(1, Ordering::Relaxed);
        self.count(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_apart() {
        let counting = Counting::new();
        for size in [1, 16, 17, 4096, 1 << 30] {
            counting.count(size);
        }
        let text = counting.report();
        assert!(text.starts_with("allocations: 5 of"), "{text}");
        assert!(text.contains("to      16 octets:         2"), "{text}");
        assert!(text.contains("to      32 octets:         1"), "{text}");
        assert!(text.contains("to    4096 octets:         1"), "{text}");
    }
}
