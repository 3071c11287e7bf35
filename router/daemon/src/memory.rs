// SPDX-License-Identifier: Apache-2.0
//! How the C library hands out memory.

/// Blocks from this size on are mapped by themselves: they grow without being copied, and go back to
/// the kernel when they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 256 << 10;

/// Keeps the sizes from which blocks are mapped where they are. Left alone, the C library raises
/// them to the largest block that was ever freed: then the tables, which grow by doubling, leave
/// their former places behind as holes. With a million routes that was a fifth of the memory.
pub fn tune() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers of the allocator, before there is another thread.
    unsafe {
        // Neither can fail with these numbers; if one did, more memory would be used.
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED_FROM);
    }
}
