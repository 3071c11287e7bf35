// SPDX-License-Identifier: Apache-2.0
//! What keeps load and memory pressure from delaying packets.

use std::io;

/// Between the kernel's own threads, which use 50 and 99, and everybody else.
const PRIORITY: i32 = 20;

/// Gives the calling thread real-time priority (`SCHED_FIFO`).
///
/// # Errors
/// Without `CAP_SYS_NICE` and `RLIMIT_RTPRIO`.
pub(crate) fn become_fifo() -> io::Result<()> {
    // SAFETY: sched_param is plain data for which zeros are valid.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = PRIORITY;
    // SAFETY: the pointer is to a local that outlives the call; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps all memory of the process in RAM, so that no page is waited for.
///
/// # Errors
/// Without `CAP_IPC_LOCK` and a large `RLIMIT_MEMLOCK`.
pub(crate) fn lock_memory() -> io::Result<()> {
    use nix::sys::mman::{MlockAllFlags, mlockall};
    Ok(mlockall(
        MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE,
    )?)
}
