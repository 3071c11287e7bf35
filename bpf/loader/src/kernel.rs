// SPDX-License-Identifier: Apache-2.0
//! The few calls aya has no wrapper for: which device a pinned link is attached to, whether the
//! kernel has TCX, and the BPF file system.

use std::{
    ffi::CString,
    fs, io,
    mem::{self, MaybeUninit},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bpf_abi::Plain;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use router_types::LinkIndex;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_TCX_INGRESS: u32 = 46;

/// What the kernel says about a pinned TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PinnedLinkInfo {
    /// The device, or `None` when it is gone: the kernel detaches the link then.
    pub(crate) link: Option<LinkIndex>,
    /// The program on it.
    pub(crate) program_id: u32,
}

/// `union bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct ObjectGet {
    path_name: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, with its union as a TCX link has it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// `union bpf_attr` of `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// `union bpf_attr` of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `union bpf_attr` of `BPF_MAP_*_BATCH`.
#[repr(C)]
#[derive(Default)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a walk through a hash is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position(Option<u32>);

/// Reads the next entries of a hash, whole buckets at a time, appending to `entries`; `None` at the
/// end. An entry that stays is seen once; what comes or goes meanwhile may or may not be seen.
pub(crate) fn lookup_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    position: Position,
    count: usize,
    entries: &mut Vec<(K, V)>,
) -> io::Result<Option<Position>> {
    let mut count = count;
    loop {
        let mut keys: Vec<MaybeUninit<K>> = Vec::with_capacity(count);
        let mut values: Vec<MaybeUninit<V>> = Vec::with_capacity(count);
        let mut before = position.0.unwrap_or_default();
        let mut after = 0_u32;
        let mut batch = MapBatch {
            in_batch: if position.0.is_some() {
                (&raw mut before) as u64
            } else {
                0
            },
            out_batch: (&raw mut after) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: count as u32,
            map_fd: map.as_raw_fd() as u32,
            ..MapBatch::default()
        };
        let outcome = bpf(BPF_MAP_LOOKUP_BATCH, &mut batch);
        let is_last = match outcome {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One bucket has more entries than were asked for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && count < 1 << 20 => {
                count *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel filled `batch.count` keys and values, at most as many as there is room
        // for, and any bytes are a value of a plain type.
        unsafe {
            keys.set_len(batch.count as usize);
            values.set_len(batch.count as usize);
            let pairs = keys.into_iter().zip(values);
            entries.extend(pairs.map(|(key, value)| (key.assume_init(), value.assume_init())));
        }
        return Ok((!is_last).then_some(Position(Some(after))));
    }
}

/// Reads a pinned link.
pub(crate) fn pinned_link_info(path: &Path) -> io::Result<PinnedLinkInfo> {
    let fd = open_pin(path)?;
    let mut info = LinkInfo::default();
    let mut by_fd = InfoByFd {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: mem::size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut by_fd)?;
    Ok(PinnedLinkInfo {
        link: (info.ifindex != 0).then_some(LinkIndex(info.ifindex)),
        program_id: info.prog_id,
    })
}

/// Detaches a pinned link from its device, now: removing its pin alone leaves that to a worker of
/// the kernel, and until then the device refuses the same program as a duplicate. A device that is
/// gone took its links along.
pub(crate) fn detach_pinned_link(path: &Path) -> io::Result<()> {
    let fd = open_pin(path)?;
    let mut detach = LinkDetach {
        link_fd: fd.as_raw_fd() as u32,
    };
    match bpf(BPF_LINK_DETACH, &mut detach) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Whether the kernel has TCX. Asks for the programs of the loopback device, which every namespace
/// has; a kernel without TCX does not know the question.
pub(crate) fn has_tcx() -> bool {
    const LOOPBACK: u32 = 1;
    let mut query = ProgQuery {
        target_ifindex: LOOPBACK,
        attach_type: BPF_TCX_INGRESS,
        ..Default::default()
    };
    match bpf(BPF_PROG_QUERY, &mut query) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}

/// Whether a path, or the nearest folder above it that exists, is on a BPF file system.
pub(crate) fn is_on_bpf_file_system(path: &Path) -> bool {
    path.ancestors()
        .find(|folder| folder.exists())
        .and_then(|folder| statfs(folder).ok())
        .is_some_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts a BPF file system.
pub(crate) fn mount_bpf_file_system(at: &Path) -> io::Result<()> {
    fs::create_dir_all(at)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), at, Some("bpf"), flags, Some("mode=0700")).map_err(io::Error::from)
}

fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjectGet {
        path_name: path.as_ptr() as u64,
        ..Default::default()
    };
    let fd = bpf(BPF_OBJ_GET, &mut get)?;
    // SAFETY: a descriptor this call made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: pointer and size describe a live value that has the shape the command expects, and
    // every pointer inside it is live for the call.
    let code = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attributes,
            mem::size_of::<T>(),
        )
    };
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(code)
    }
}
