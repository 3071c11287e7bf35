// SPDX-License-Identifier: Apache-2.0
//! What the kernel starts with: busybox, the modules its root is mounted by, and two scripts.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{cpio::Archive, kernel::Files, tools::Tools};

/// Modules the root takes: the host's files, and the layer over them.
const MODULES: [&str; 3] = ["9pnet_virtio", "9p", "overlay"];

/// The archive for a kernel, about 4 MB.
///
/// # Errors
/// When a file of the kernel or of the tools cannot be read.
pub(crate) fn build(kernel: &Files, tools: &Tools) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "mod", "proc", "sys", "dev", "newroot", "lower", "rw"] {
        archive.folder(folder);
    }
    let busybox = tools.busybox();
    archive.file("bin/busybox", &read(&busybox)?);
    archive.file("init", include_bytes!("guest/init.sh"));
    archive.file("run.sh", include_bytes!("guest/run.sh"));
    archive.file("modprobe", tools.modprobe().as_bytes());
    let folder = kernel.modules.join(&kernel.version);
    let index = String::from_utf8(read(&folder.join("modules.dep"))?)?;
    for (place, module) in load_order(&index, &MODULES)?.into_iter().enumerate() {
        let content = unpacked(&folder.join(&module), &busybox)?;
        // In the order of their names.
        archive.file(&format!("mod/{place:03}-{}", stem(&module)), &content);
    }
    Ok(archive.finish())
}

/// The files of modules and of all they need, each behind what it needs. Modules that the index does
/// not have are built into the kernel.
fn load_order(index: &str, modules: &[&str]) -> Result<Vec<String>> {
    let lines = index.lines().filter_map(|line| line.split_once(':'));
    let needs: BTreeMap<&str, (&str, &str)> = lines
        .map(|(file, needs)| (stem(file), (file, needs)))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for module in modules {
        let Some((file, needed)) = needs.get(module) else {
            continue;
        };
        // depmod writes what is needed first last.
        for file in needed.split_whitespace().rev().chain([*file]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    ensure!(!order.is_empty(), "modules.dep names none of {modules:?}");
    Ok(order)
}

/// The name of a module's file without folders and endings.
fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split_once(".ko").map_or(name, |(stem, _)| stem)
}

fn unpacked(module: &Path, busybox: &Path) -> Result<Vec<u8>> {
    if module.extension().is_none_or(|extension| extension != "xz") {
        return read(module);
    }
    let output = Command::new(busybox)
        .args(["xz", "-dc"])
        .arg(module)
        .output()
        .with_context(|| format!("cannot run {}", busybox.display()))?;
    ensure!(
        output.status.success(),
        "cannot decompress {}: {}",
        module.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_behind_what_they_need() {
        let index = "kernel/fs/9p/9p.ko.xz: kernel/fs/netfs/netfs.ko.xz kernel/net/9p/9pnet.ko.xz\n\
                     kernel/net/9p/9pnet.ko.xz:\n\
                     kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n\
                     kernel/fs/netfs/netfs.ko.xz:\n";
        let order = load_order(index, &["9pnet_virtio", "9p", "built_in"]).unwrap();
        let names: Vec<&str> = order.iter().map(|file| stem(file)).collect();
        assert_eq!(names, ["9pnet", "9pnet_virtio", "netfs", "9p"]);
        assert!(load_order(index, &["built_in"]).is_err());
    }
}
