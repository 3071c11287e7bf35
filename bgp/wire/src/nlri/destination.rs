// SPDX-License-Identifier: Apache-2.0
//! What a route of any family reaches.

use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

use super::{Nlri, RouteTargetPrefix, VpnPrefix};

/// What a route reaches, whatever its family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Destination {
    /// A prefix.
    Ip(IpNet),
    /// A prefix of a VPN.
    Vpn(VpnPrefix),
    /// Those who want routes of VPNs.
    RouteTarget(RouteTargetPrefix),
}

impl Destination {
    /// The prefix, without what else tells it apart; `None` where there is none.
    pub const fn prefix(&self) -> Option<IpNet> {
        match self {
            Destination::Ip(prefix) => Some(*prefix),
            Destination::Vpn(vpn) => Some(vpn.prefix),
            Destination::RouteTarget(_) => None,
        }
    }

    /// Whether its prefix contains an address.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.prefix().is_some_and(|prefix| prefix.contains(address))
    }
}

impl Nlri<'_> {
    /// The destinations of any family with their path identifiers.
    pub fn destinations(&self) -> impl Iterator<Item = (Option<u32>, Destination)> + '_ {
        let plain = self.iter().map(|e| (e.path_id, Destination::Ip(e.prefix)));
        let vpn = self.vpn();
        let vpn = vpn.map(|e| (e.path_id, Destination::Vpn(e.destination)));
        let targets = self.route_targets();
        let targets = targets.map(|e| (e.path_id, Destination::RouteTarget(e.target)));
        plain.chain(vpn).chain(targets)
    }
}

impl From<IpNet> for Destination {
    fn from(prefix: IpNet) -> Self {
        Destination::Ip(prefix)
    }
}

impl PartialEq<IpNet> for Destination {
    fn eq(&self, other: &IpNet) -> bool {
        matches!(self, Destination::Ip(prefix) if prefix == other)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Ip(prefix) => prefix.fmt(f),
            Destination::Vpn(vpn) => vpn.fmt(f),
            Destination::RouteTarget(target) => target.fmt(f),
        }
    }
}
