// SPDX-License-Identifier: Apache-2.0
//! From the embedded object to loaded programs and pinned maps.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapInfo},
    programs::{ProgramError, SchedClassifier},
};
use bpf_abi::{
    GATEWAY_LAYOUT_HASH, GATEWAY_MAPS, LAYOUT_HASH, MAPS, MapKind, MapLayout, map_names,
};

use crate::{
    OpenError, Role, attach, device, kernel,
    pins::{self, AttachmentPin},
};

/// A file of programs and maps that are loaded together.
pub(crate) struct Object {
    bytes: &'static [u8],
    /// Its maps.
    pub(crate) maps: &'static [MapLayout],
    /// Names its folder of pins.
    pub(crate) layout_hash: u64,
    /// Its programs.
    pub(crate) roles: &'static [Role],
    /// Maps whose size is chosen when they are made, and kept by whoever adopts them.
    sized: &'static [&'static str],
}

/// The programs every node has.
pub(crate) static NODE: Object = Object {
    bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/causeway.o")),
    maps: MAPS,
    layout_hash: LAYOUT_HASH,
    roles: &[Role::FromPod, Role::ToPod, Role::FromFabric],
    sized: &[],
};

/// The programs of an egress gateway.
pub(crate) static GATEWAY: Object = Object {
    bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/causeway-gateway.o")),
    maps: GATEWAY_MAPS,
    layout_hash: GATEWAY_LAYOUT_HASH,
    roles: &[Role::EgressOut, Role::EgressBack],
    sized: &[map_names::NAT_V4, map_names::NAT_V6],
};

/// Makes sure there is a BPF file system where this folder of pins will be.
pub(crate) fn prepare_file_system(pin_root: &Path) -> Result<(), OpenError> {
    if !kernel::is_on_bpf_file_system(pin_root) {
        let at = pin_root.parent().unwrap_or(pin_root);
        tracing::info!(path = %at.display(), "mounting a BPF file system");
        kernel::mount_bpf_file_system(at).map_err(|source| OpenError::NoBpfFileSystem {
            path: at.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Makes sure the folder of an object's pins is there and ours. Returns the one of this layout and
/// whether it has maps already.
pub(crate) fn prepare_folder(root: &Path, object: &Object) -> Result<(PathBuf, bool), OpenError> {
    let here = device::netns_cookie().map_err(|source| OpenError::System {
        call: "getsockopt(SO_NETNS_COOKIE)",
        source,
    })?;
    let list = |source| folder_failed("read", root, source);
    for folder in pins::layout_folders(root).map_err(list)? {
        evict_other_owner(&folder, here)?;
    }
    let folder = pins::own_folder(root, object.layout_hash);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|source| folder_failed("create", &folder, source))?;
    let adopted = folder.join(map_names::OWNER).exists();
    Ok((folder, adopted))
}

/// Loads an object: maps from their pins where there are any, programs always new. `sizes` are
/// the entries of maps whose size is chosen, and `constants` what programs are told in variables.
pub(crate) fn load(
    folder: &Path,
    object: &Object,
    sizes: &[(&'static str, u32)],
    constants: &[(&'static str, u16)],
) -> Result<Ebpf, OpenError> {
    let mut loader = EbpfLoader::new();
    for (name, value) in constants {
        loader.override_global(name, value, true);
    }
    for map in object.maps {
        let path = folder.join(map.name);
        let chosen = sizes.iter().find(|(name, _)| *name == map.name);
        if path.exists() {
            let pinned = MapInfo::from_pin(&path).map_err(refused)?.max_entries();
            let is_sized = object.sized.contains(&map.name);
            let expected = MapLayout {
                max_entries: if is_sized { pinned } else { map.max_entries },
                ..*map
            };
            check_shape(&path, &expected)?;
            if let Some((_, wanted)) = chosen.filter(|(_, wanted)| *wanted != pinned) {
                tracing::warn!(
                    map = map.name,
                    pinned,
                    wanted,
                    "a map keeps the size it was made with until its pin is removed"
                );
            }
            loader.map_max_entries(map.name, expected.max_entries);
        } else if let Some((_, wanted)) = chosen {
            loader.map_max_entries(map.name, *wanted);
        }
        loader.map_pin_path(map.name, path);
    }
    let mut ebpf = loader.load(object.bytes).map_err(refused)?;
    for role in object.roles.iter().copied() {
        load_program(program(&mut ebpf, role)?)?;
    }
    Ok(ebpf)
}

/// Gives a program to the kernel. The verifier gives up with `EAGAIN` when a signal waits for the
/// thread, such as the end of a child process, and wants to be asked again.
fn load_program(program: &mut SchedClassifier) -> Result<(), OpenError> {
    /// What libbpf does, and more than signals ever came in a row.
    const ATTEMPTS: u32 = 5;
    let mut attempt = 1;
    loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            result => return result.map_err(refused),
        }
    }
}

/// One program of the loaded object.
pub(crate) fn program(ebpf: &mut Ebpf, role: Role) -> Result<&mut SchedClassifier, OpenError> {
    let missing = OpenError::MissingPart {
        kind: "program",
        name: role.program_name(),
    };
    match ebpf.program_mut(role.program_name()) {
        Some(program) => program.try_into().map_err(refused),
        None => Err(missing),
    }
}

/// Interface indexes mean something in one namespace only. Pins of a namespace that has nothing
/// attached any more are removed; pins in use are left alone and refused.
fn evict_other_owner(folder: &Path, here: u64) -> Result<(), OpenError> {
    let pin = folder.join(map_names::OWNER);
    if !pin.exists() {
        return Ok(());
    }
    let owner = MapData::from_pin(&pin)
        .and_then(|data| aya::maps::Array::<_, u64>::try_from(aya::maps::Map::Array(data)))
        .and_then(|owner| owner.get(&0, 0))
        .map_err(refused)?;
    if owner == 0 || owner == here {
        return Ok(());
    }
    let attachments =
        pins::attachments(folder).map_err(|source| folder_failed("read", folder, source))?;
    let in_use = |pin: &AttachmentPin| {
        kernel::pinned_link_info(&pin.path()).is_ok_and(|info| info.link.is_some())
    };
    if attachments.iter().any(in_use) {
        return Err(OpenError::OwnedElsewhere {
            path: folder.to_owned(),
            owner,
            here,
        });
    }
    tracing::info!(path = %folder.display(), "removing the pins of a network namespace that is gone");
    pins::remove_folder(folder).map_err(|source| folder_failed("remove", folder, source))
}

/// Compares a pinned map with what this program expects: neither kernel nor aya does.
fn check_shape(path: &Path, expected: &MapLayout) -> Result<(), OpenError> {
    let found = MapInfo::from_pin(path).map_err(refused)?;
    let shape = |kind: &str, key, value, max| {
        format!("{kind}, keys of {key} bytes, values of {value} bytes, {max} entries")
    };
    let kind = found
        .map_type()
        .map_or_else(|_| "unknown".to_owned(), |kind| format!("{kind:?}"));
    let found = shape(
        &kind,
        found.key_size(),
        found.value_size(),
        found.max_entries(),
    );
    let expected_kind = match expected.kind {
        MapKind::Hash => "Hash",
        MapKind::Array => "Array",
        MapKind::PerCpuArray => "PerCpuArray",
        MapKind::PerCpuHash => "PerCpuHash",
        MapKind::LruHash => "LruHash",
        MapKind::LpmTrie => "LpmTrie",
        MapKind::RingBuf => "RingBuf",
        MapKind::GrowingHash => "Hash",
    };
    let expected = shape(
        expected_kind,
        expected.key_bytes,
        expected.value_bytes,
        expected.max_entries,
    );
    if found == expected {
        return Ok(());
    }
    Err(OpenError::MapShape {
        path: path.to_owned(),
        found,
        expected,
    })
}

/// Puts this process' programs behind every pin of this layout.
pub(crate) fn adopt_attachments(ebpf: &mut Ebpf, folder: &Path) -> Result<(), OpenError> {
    let attachments =
        pins::attachments(folder).map_err(|source| folder_failed("read", folder, source))?;
    for pin in attachments {
        let program = program(ebpf, pin.role)?;
        if let Err(error) = attach::adopt(program, &pin) {
            // The old program goes on; the next sync tries again and reports.
            tracing::warn!(pin = %pin.path().display(), %error, "could not replace a program");
        }
    }
    Ok(())
}

pub(crate) fn folder_failed(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::PinFolder {
        action,
        path: path.to_owned(),
        source,
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Load(Box::new(error))
}
