// SPDX-License-Identifier: Apache-2.0
//! What the manager says about itself and its endpoints.

use std::net::IpAddr;

use pods_core::{Attachment, Endpoint, EndpointId, Failure, PoolUsage};
use router_types::LinkIndex;

/// What a start found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StartReport {
    /// Endpoints dropped because the machine was rebooted since.
    pub dropped_by_reboot: usize,
    /// ADDs that a crash broke off, taken back.
    pub interrupted: Vec<Attachment>,
    /// Endpoints dropped because a younger one claims the same address or name.
    pub contradicted: Vec<Attachment>,
    /// Octets of an unfinished last record, dropped.
    pub torn_octets: usize,
    /// Unreadable records: what they said is lost. The damaged file was kept beside the journal.
    pub damage: Vec<String>,
    /// What the comparison with the kernel did.
    pub resync: Resync,
}

/// What a comparison with the kernel did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resync {
    /// Endpoints whose devices were there.
    pub adopted: usize,
    /// Endpoints whose devices had to be made again.
    pub recreated: Vec<Attachment>,
    /// Endpoints released: their namespace and device are gone.
    pub reclaimed: Vec<Attachment>,
    /// Devices with our mark that nobody claims, removed.
    pub removed_devices: Vec<String>,
    /// Endpoints the damaged journal had lost, read back from their devices. Their pods' names and
    /// networks are unknown.
    pub recovered: Vec<Attachment>,
    /// Devices with our mark that nobody claims and that do not say enough to be recovered; kept
    /// because the journal was damaged.
    pub kept_devices: Vec<String>,
    /// Endpoints that could not be brought up; the next resync tries again.
    pub failed: Vec<(Attachment, String)>,
}

/// One endpoint, for `causeway pods`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointView {
    /// As it is in the journal.
    pub endpoint: Endpoint,
    /// Index of its device, when that is there.
    pub link: Option<LinkIndex>,
    /// Why it is not as it should be, when it is not.
    pub problem: Option<String>,
}

/// State of the pods part, for `causeway status` and CNI STATUS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodsStatus {
    /// Number of endpoints.
    pub endpoints: usize,
    /// How full each pod CIDR is.
    pub pools: Vec<PoolUsage>,
    /// Addresses held by endpoints though no pod CIDR offers them any more.
    pub stranded: Vec<(IpAddr, EndpointId)>,
    /// MTU the next pod gets, in octets.
    pub mtu: u32,
    /// Why an ADD would fail, if it would: the answer to CNI STATUS.
    pub not_ready: Option<Failure>,
    /// The last comparison with the kernel.
    pub last_resync: Resync,
}
