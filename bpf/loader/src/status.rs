// SPDX-License-Identifier: Apache-2.0
//! What the data plane says about itself.

use std::{fmt, path::PathBuf};

use bpf_abi::DropReason;
use router_types::LinkIndex;

use crate::{Endpoint, Error};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// A TCX link, pinned.
    Tcx,
    /// A filter of the `clsact` queueing discipline.
    Clsact,
}

impl HookKind {
    /// Every kind.
    pub const ALL: [HookKind; 2] = [HookKind::Tcx, HookKind::Clsact];
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HookKind::Tcx => "tcx",
            HookKind::Clsact => "clsact",
        })
    }
}

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Ingress of a pod's host-side device.
    FromPod,
    /// Egress of a pod's host-side device.
    ToPod,
    /// Ingress of a fabric device.
    FromFabric,
    /// Ingress of a gateway's tunnel device.
    EgressOut,
    /// Ingress of a gateway's fabric device.
    EgressBack,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::FromPod,
        Role::ToPod,
        Role::FromFabric,
        Role::EgressOut,
        Role::EgressBack,
    ];

    /// The program's name in the object file and in pins.
    #[must_use]
    pub const fn program_name(self) -> &'static str {
        match self {
            Role::FromPod => bpf_abi::program_names::FROM_POD,
            Role::ToPod => bpf_abi::program_names::TO_POD,
            Role::FromFabric => bpf_abi::program_names::FROM_FABRIC,
            Role::EgressOut => bpf_abi::program_names::EGRESS_OUT,
            Role::EgressBack => bpf_abi::program_names::EGRESS_BACK,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program_name())
    }
}

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Device.
    pub link: LinkIndex,
    /// What the program does there.
    pub role: Role,
    /// Hook.
    pub hook: HookKind,
    /// The kernel's number of the program.
    pub program_id: u32,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Name.
    pub name: &'static str,
    /// The kernel's number of the map.
    pub map_id: u32,
    /// Entries in it; `None` of arrays, which are always full, and of what packets fill.
    pub entries: Option<u32>,
    /// Entries it can hold.
    pub max_entries: u32,
}

/// The whole state, for `causeway datapath`.
#[derive(Clone, Debug)]
pub struct Status {
    /// Hook new attachments get.
    pub hook: HookKind,
    /// Folder of this layout's pins.
    pub pin_path: PathBuf,
    /// Whether [`Datapath::open`](crate::Datapath::open) found maps of an earlier process.
    pub adopted: bool,
    /// The kernel's numbers of this process' programs.
    pub program_ids: Vec<(Role, u32)>,
    /// Every attachment.
    pub attached: Vec<AttachedProgram>,
    /// Every map.
    pub maps: Vec<MapFill>,
}

/// An endpoint as it is in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointState {
    /// As it was given.
    pub endpoint: Endpoint,
    /// Whether both programs are attached to its device.
    pub attached: bool,
    /// Traffic so far.
    pub traffic: EndpointTraffic,
}

/// Traffic of an endpoint as the pod sees it: `tx` left the pod, `rx` went into it. Frames count
/// with their Ethernet header, a GSO frame once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointTraffic {
    /// Accepted frames from the pod.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames given to the pod.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Of `tx_packets`, those left to the kernel.
    pub tx_kernel_packets: u64,
    /// Refused frames of the pod, by reason; only reasons that occurred.
    pub drops: Vec<DropCount>,
}

/// Refused frames of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// The reason.
    pub reason: DropReason,
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a sync changed, and what it could not do.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// Endpoints or devices that were new.
    pub added: u32,
    /// Those that existed and changed.
    pub changed: u32,
    /// Those that were right already.
    pub unchanged: u32,
    /// Those that were removed since nobody wants them.
    pub pruned: u32,
    /// What failed, for which device; the others were done all the same. Calling
    /// again tries again.
    pub failed: Vec<(LinkIndex, Error)>,
}

/// What [`Datapath::reap`](crate::Datapath::reap) removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReapReport {
    /// Devices that are gone.
    pub vanished_devices: Vec<LinkIndex>,
    /// Folders of other layouts that were removed.
    pub old_layouts: Vec<PathBuf>,
    /// Folders of other layouts that stay, since they are attached to a device this process has
    /// not taken over.
    pub kept_layouts: Vec<PathBuf>,
}
