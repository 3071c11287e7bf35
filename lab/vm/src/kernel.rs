// SPDX-License-Identifier: Apache-2.0
//! Kernels of distributions.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    packages::{self, Fetch},
    tools::Tools,
};

/// A kernel of a distribution, at the version that is current when it is fetched: old ones vanish
/// from mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// 6.12: Geneve, WireGuard, VRF, IPsec, netkit, tcx, SRv6; BTF; no TCP-AO.
    Debian13,
}

/// Raised when what is done with the packages changes.
const RECIPE: u32 = 1;

/// The package that needs the current one. The generic flavour: that for clouds has no 9p.
const META: &str = "linux-image-amd64";

/// A kernel in the cache.
#[derive(Debug)]
pub(crate) struct Files {
    /// What is booted.
    pub(crate) image: PathBuf,
    /// The folder `/lib/modules` of the guest.
    pub(crate) modules: PathBuf,
    /// As `uname -r` says.
    pub(crate) version: String,
}

impl Kernel {
    fn suite(self) -> &'static str {
        match self {
            Kernel::Debian13 => "trixie",
        }
    }

    /// Fetches it unless it is there (108 MB, 120 MB unpacked).
    ///
    /// # Errors
    /// When apt fails, or the package is laid out otherwise than expected.
    pub(crate) fn ready(self, tools: &Tools) -> Result<Files> {
        let suite = self.suite();
        let name = format!("vm-kernel-{suite}-{RECIPE}");
        let root = packages::cached(&name, suite, |fetch| unpack(fetch, tools))?;
        let modules = root.join("lib/modules");
        let version = only_entry(&modules)?;
        let image = root.join("boot").join(format!("vmlinuz-{version}"));
        ensure!(image.is_file(), "{} is not there", image.display());
        Ok(Files {
            image,
            modules,
            version,
        })
    }
}

fn unpack(fetch: &Fetch, tools: &Tools) -> Result<()> {
    let mut current = fetch.needed_by(META)?;
    current.retain(|name| name.starts_with("linux-image-"));
    ensure!(!current.is_empty(), "{META} needs no kernel");
    fetch.alone(&current)?;
    // Where the system's folders are merged the package has its modules below `usr`.
    let root = fetch.target();
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let version = only_entry(&root.join("lib/modules"))?;
    packages::output(tools.depmod().arg("-b").arg(root).arg(&version)).map(drop)
}

fn only_entry(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    let [name] = names.as_slice() else {
        anyhow::bail!("{} has {names:?}, not one kernel", folder.display());
    };
    Ok(name.to_string_lossy().into_owned())
}
