// SPDX-License-Identifier: Apache-2.0
//! The pin folder: `<root>/<layout hash>/` with a pin per map and per attachment.
//!
//! An attachment's pin is named `<hook>_<role>_<interface index>`. A TCX pin *is* the attachment:
//! removing the file detaches the program. A `clsact` filter has no descriptor, so its pin is the
//! program, and stands as the note that the filter is ours.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use router_types::LinkIndex;

use crate::{HookKind, Role};

/// The pin of one attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AttachmentPin {
    pub(crate) role: Role,
    pub(crate) link: LinkIndex,
    pub(crate) hook: HookKind,
    /// Folder of its layout.
    pub(crate) folder: PathBuf,
}

impl AttachmentPin {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder
            .join(format!("{}_{}_{}", self.hook, self.role, self.link.0))
    }

    fn parse(folder: &Path, name: &str) -> Option<Self> {
        let (hook, rest) = name.split_once('_')?;
        let hook = HookKind::ALL
            .into_iter()
            .find(|kind| kind.to_string() == hook)?;
        let (role, index) = rest.rsplit_once('_')?;
        let role = Role::ALL
            .into_iter()
            .find(|kind| kind.program_name() == role)?;
        let link = LinkIndex(index.parse().ok()?);
        Some(Self {
            role,
            link,
            hook,
            folder: folder.to_owned(),
        })
    }
}

/// Folder of a layout's pins.
pub(crate) fn own_folder(root: &Path, layout_hash: u64) -> PathBuf {
    root.join(format!("{layout_hash:016x}"))
}

/// Folders of every layout under a root, this one's included.
pub(crate) fn layout_folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let is_layout = |name: &str| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let mut folders = Vec::new();
    for name in names(root)? {
        if is_layout(&name) {
            folders.push(root.join(name));
        }
    }
    folders.sort();
    Ok(folders)
}

/// The attachment pins of one layout's folder, in order.
pub(crate) fn attachments(folder: &Path) -> io::Result<Vec<AttachmentPin>> {
    let mut pins: Vec<_> = names(folder)?
        .into_iter()
        .filter_map(|name| AttachmentPin::parse(folder, &name))
        .collect();
    pins.sort();
    Ok(pins)
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a folder with its pins; one that is gone already is fine.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    for name in names(folder)? {
        remove_file(&folder.join(name))?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names in a folder; none if there is no folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachment_names_are_written_and_read_the_same() {
        let folder = Path::new("/pins/0123456789abcdef");
        for role in Role::ALL {
            for hook in HookKind::ALL {
                let pin = AttachmentPin {
                    role,
                    link: LinkIndex(42),
                    hook,
                    folder: folder.to_owned(),
                };
                let path = pin.path();
                let name = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .expect("plain name");
                assert!(
                    !name.contains('.'),
                    "a BPF file system refuses dots: {name}"
                );
                assert_eq!(AttachmentPin::parse(folder, name), Some(pin));
            }
        }
        for other in [
            "COUNTERS",
            "tcx_from_pod",
            "tcx_from_pod_x",
            "xdp_from_pod_3",
            "OWNER",
            "",
        ] {
            assert_eq!(AttachmentPin::parse(folder, other), None, "{other}");
        }
    }
}
