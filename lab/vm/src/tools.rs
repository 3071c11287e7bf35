// SPDX-License-Identifier: Apache-2.0
//! QEMU, and what prepares and runs a guest besides: run from where they were unpacked, by their own
//! loader and with their own libraries, whatever this machine's are.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::packages;

/// Where they come from: a QEMU that is younger than the fault in emulated breakpoints that older
/// ones have.
const SUITE: &str = "trixie";

/// kmod loads modules that are compressed and depend on each other; busybox mounts and unpacks
/// before there is a root.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "busybox-static", "kmod"];

/// Raised when what is done with the packages changes.
const RECIPE: u32 = 1;

const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const QEMU: &str = "usr/bin/qemu-system-x86_64";
const BUSYBOX: &str = "usr/bin/busybox";
const KMOD: &str = "usr/bin/kmod";

/// The folder they are in.
#[derive(Debug)]
pub(crate) struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Fetches them unless they are there (39 MB, 170 MB unpacked).
    ///
    /// # Errors
    /// When this machine is another than the packages are for, or apt fails.
    pub(crate) fn ready() -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "virtual machines are for x86-64 hosts: QEMU and the kernels are fetched for those"
        );
        let name = format!("vm-tools-{SUITE}-{RECIPE}");
        let root = packages::cached(&name, SUITE, |fetch| {
            fetch.with_needs(&PACKAGES)?;
            for file in [LOADER, QEMU, BUSYBOX, KMOD] {
                let is_there = fetch.target().join(file).is_file();
                ensure!(is_there, "the packages brought no {file}");
            }
            Ok(())
        })?;
        Ok(Self { root })
    }

    /// QEMU, to be given arguments.
    pub(crate) fn qemu(&self) -> Command {
        let mut qemu = self.by_loader(QEMU, None);
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(self.root.join(folder));
        }
        qemu.env("QEMU_MODULE_DIR", self.root.join(LIBRARIES).join("qemu"));
        qemu
    }

    /// depmod, to be given arguments.
    pub(crate) fn depmod(&self) -> Command {
        self.by_loader(KMOD, Some("depmod"))
    }

    /// The statically linked busybox.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.root.join(BUSYBOX)
    }

    /// The text of a program for the guest that is `modprobe` there: the host may have none.
    pub(crate) fn modprobe(&self) -> String {
        let [loader, libraries, kmod] =
            [LOADER, LIBRARIES, KMOD].map(|file| quoted(&self.root.join(file)));
        format!(
            "#!/run/guest/busybox sh\n\
             exec {loader} --argv0 modprobe --library-path {libraries} {kmod} \"$@\"\n"
        )
    }

    fn by_loader(&self, program: &str, name: Option<&str>) -> Command {
        let mut command = Command::new(self.root.join(LOADER));
        command
            .args(name.into_iter().flat_map(|name| ["--argv0", name]))
            .arg("--library-path")
            .arg(self.root.join(LIBRARIES))
            .arg(self.root.join(program));
        command
    }
}

/// For a shell.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
