// SPDX-License-Identifier: Apache-2.0
//! Loads the eBPF programs, keeps their maps equal to what the daemon wants, and attaches them.
//! The only caller of aya.
//!
//! # What it does
//!
//! [`Datapath::open`] loads the programs or **adopts** what an earlier process left: maps are
//! reused with their contents and counters, and every attached program is replaced by this one's
//! in one atomic step, so that no packet meets a moment without a program. After that
//! [`Datapath::sync_endpoints`] and [`Datapath::sync_fabric`] take the whole desired state and make
//! the kernel equal to it, as often as one likes: they add, change and prune, and a restart is just
//! another call. [`Datapath::set_endpoint`] and [`Datapath::remove_endpoint`] are the same for one
//! endpoint, for a CNI ADD or DEL. [`Datapath::reap`] removes pins nobody needs: of devices that
//! are gone, and of layouts older daemons used.
//!
//! Dropping a [`Datapath`] detaches nothing: maps, programs and links are pinned, and packets keep
//! flowing without a daemon. Only [`Datapath::uninstall`] takes everything away.
//!
//! # Where packets meet the programs
//!
//! | Program | Hook | Does |
//! |---|---|---|
//! | `from_pod` | ingress of a pod's host-side device | antispoof, then to another local pod, to the fabric by the kernel's routing table, or to the kernel |
//! | `to_pod` | egress of the same device | counts what the kernel itself delivers |
//! | `from_fabric` | ingress of fabric devices | to a local pod, or to the kernel |
//!
//! The hook is TCX where the kernel has it (Linux 6.6) and a `clsact` filter where not.
//!
//! # What it leaves to the caller
//!
//! Devices, addresses, routes and permanent neighbours (the pods group makes them); the clock, the
//! decision what is wanted, and telling [`Datapath::routes_changed`] when routes changed. The calls
//! act on the network namespace of the **calling thread**, and one pin folder belongs to one
//! network namespace, since interface indexes repeat between them.
//!
//! All calls are synchronous and take microseconds to milliseconds, `open` up to a second (the
//! verifier). Call them from `spawn_blocking` or a thread of your own.

mod attach;
pub mod clock;
mod config;
mod datapath;
mod device;
mod egress;
mod endpoint;
mod error;
mod gateway;
mod kernel;
mod load;
mod native;
mod pins;
#[cfg(test)]
mod program_tests;
mod registry;
mod status;
mod tables;

pub use bpf_abi::{DropReason, MAX_ENDPOINTS};
pub use config::{Config, DEFAULT_PIN_ROOT, HookChoice};
pub use datapath::Datapath;
pub use egress::{EgressEnd, EgressFlows, EgressTables, EgressWay, NotedFlow};
pub use endpoint::{Endpoint, EndpointId, MacAddr, MacAddrParseError};
pub use error::{AttachError, Error, OpenError};
pub use gateway::{
    Cursor, Gateway, GatewayConfig, GatewayRule, Mapping, Phase, PodNode, RuleState, RuleTraffic,
    Said, Service, Sweep, Swept, Timeouts,
};
pub use native::{EgressNeighbour, NativeTables, RemoteSource};
pub use router_types::LinkIndex;
pub use status::{
    AttachedProgram, DropCount, EndpointState, EndpointTraffic, HookKind, MapFill, ReapReport,
    Role, Status, SyncReport,
};
