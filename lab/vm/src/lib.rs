// SPDX-License-Identifier: Apache-2.0
//! Runs a command on the kernel of a distribution, in a virtual machine, with this machine's files.
//!
//! What a kernel without the module in question cannot show is shown on one that has it: the guest
//! boots a stock Debian [`Kernel`], sees the host's root read-only (9p) below a layer of its own in
//! memory, and is root there. So a test's program runs in it at the same path, with the same
//! libraries, and nothing it does is left on the host. Kernel, QEMU and two tools come by apt from
//! this machine's mirror into the cache of the lab's root file system; nothing is installed.
//!
//! The processor is emulated, as a machine that is a virtual one itself rarely lends its own:
//! computing takes ten to fifty times as long, starting a program a tenth of a second. Timers run at
//! the usual speed. So this is for what works and not for how fast.
//!
//! ```no_run
//! use lab_vm::{Kernel, Vm};
//! # fn main() -> anyhow::Result<()> {
//! let output = Vm::default().run(Kernel::Debian13, "modprobe geneve && uname -r")?;
//! assert_eq!(output.code, 0, "{output}");
//! # Ok(())
//! # }
//! ```

mod cpio;
mod initramfs;
mod kernel;
mod packages;
mod tools;
mod vm;

pub use kernel::Kernel;
pub use vm::{GUEST, Output, Vm, is_guest};
