// SPDX-License-Identifier: Apache-2.0
//! Errors: what, where, why, and what to do.

use std::{io, net::IpAddr, path::PathBuf};

use crate::{EndpointId, MacAddr, Role};

/// Why [`Datapath::open`](crate::Datapath::open) failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No BPF file system, and none could be mounted.
    #[error(
        "no BPF file system at {path} and mounting one failed ({source}): run `mount -t bpf bpf {path}` as root, or give the daemon CAP_SYS_ADMIN"
    )]
    NoBpfFileSystem {
        /// Where it was looked for.
        path: PathBuf,
        /// Why mounting failed.
        source: io::Error,
    },
    /// A file operation in the pin folder failed.
    #[error("cannot {action} {path}: {source}")]
    PinFolder {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The pins belong to another network namespace with live attachments.
    #[error(
        "the pins in {path} are in use by another network namespace (cookie {owner}, this one is {here}): give this daemon its own pin folder"
    )]
    OwnedElsewhere {
        /// The pin folder.
        path: PathBuf,
        /// Cookie of the owner.
        owner: u64,
        /// Cookie of the caller.
        here: u64,
    },
    /// The kernel refused the programs or maps.
    #[error(
        "the kernel refused the eBPF object: {0}; needs Linux 6.6 or newer with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)"
    )]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object file lacks a part it must have: the build is broken.
    #[error("the embedded eBPF object has no {kind} `{name}`: rebuild bpf-loader")]
    MissingPart {
        /// `map` or `program`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A pinned map has another shape than this program expects.
    #[error(
        "the pinned map {path} has another shape ({found}, expected {expected}): remove its folder and start again, packets pass the kernel meanwhile"
    )]
    MapShape {
        /// The pin.
        path: PathBuf,
        /// Shape of the pinned map.
        found: String,
        /// Shape it must have.
        expected: String,
    },
    /// A system call failed.
    #[error("{call} failed: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Why a program could not be attached to a device.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No device has this index in the caller's network namespace.
    #[error("no device has interface index {ifindex} in this network namespace: it is gone")]
    NoDevice {
        /// The index.
        ifindex: u32,
    },
    /// The device is another one than the caller means.
    #[error(
        "interface index {ifindex} is now {name} with MAC address {found}, not {expected}: the device was replaced, look it up again"
    )]
    OtherDevice {
        /// The index.
        ifindex: u32,
        /// Name of the device that has it.
        name: String,
        /// Its MAC address.
        found: MacAddr,
        /// The MAC address that was meant.
        expected: MacAddr,
    },
    /// The device carries no Ethernet frames.
    #[error(
        "{name} is no Ethernet device (hardware type {hardware_type}): programs attach to Ethernet devices only"
    )]
    NotEthernet {
        /// Name of the device.
        name: String,
        /// `ARPHRD_*` number.
        hardware_type: u16,
    },
    /// The kernel refused.
    #[error("cannot attach {role} to {name} by {hook}: {source}")]
    Kernel {
        /// Which program.
        role: Role,
        /// Name of the device.
        name: String,
        /// `tcx` or `clsact`.
        hook: crate::HookKind,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pin of a link could not be read or written.
    #[error("cannot {action} the pin {path}: {source}")]
    Pin {
        /// What was tried.
        action: &'static str,
        /// Which pin.
        path: PathBuf,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A system call about the device failed.
    #[error("cannot ask for {what} of {name}: {source}")]
    Query {
        /// What was asked.
        what: &'static str,
        /// Name or index of the device.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Why a change of the desired state failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Attaching failed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A mapping of a rule this gateway does not have.
    #[error("rule {0} is not one of this gateway's: a mapping of it cannot be taken over")]
    NoSuchRule(u32),
    /// A mapping of a pod on a node this gateway does not know.
    #[error("{0} is the tunnel address of no node this gateway knows: check the Node objects")]
    NoSuchNode(IpAddr),
    /// A mapping between addresses of two families.
    #[error("a mapping has addresses of two families: {0:?}")]
    MixedFamilies(Box<crate::Mapping>),
    /// Two endpoints want one address.
    #[error(
        "endpoint {wanted_by} wants {address}, which belongs to endpoint {owner}: remove that one first"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who wants it.
        wanted_by: EndpointId,
        /// Who has it.
        owner: EndpointId,
    },
    /// Two endpoints want one device.
    #[error(
        "endpoint {wanted_by} wants device {ifindex}, which belongs to endpoint {owner}: remove that one first"
    )]
    DeviceTaken {
        /// The device.
        ifindex: u32,
        /// Who wants it.
        wanted_by: EndpointId,
        /// Who has it.
        owner: EndpointId,
    },
    /// The node has as many endpoints, or addresses, as the maps hold.
    #[error("the map {map} is full with {max} entries: remove pods from this node")]
    MapFull {
        /// The map.
        map: &'static str,
        /// Its size.
        max: u32,
    },
    /// The kernel refused a map operation.
    #[error("cannot {action} the map {map}: {source}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// The map.
        map: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program is not usable.
    #[error("the program {role} is not usable: {source}")]
    Program {
        /// Which.
        role: Role,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation in the pin folder failed.
    #[error("cannot {action} {path}: {source}")]
    PinFolder {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}
