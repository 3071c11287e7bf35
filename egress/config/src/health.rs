// SPDX-License-Identifier: Apache-2.0
//! How the gateways of a policy are watched.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use router_resources::kinds::{EgressHealth, EgressProbe, ProbeProtocol};

/// How the gateways of a policy are watched; at least one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The name of the BFDProfile of the sessions with them; it exists.
    pub bfd_profile: Option<String>,
    /// What each of them has to reach.
    pub probe: Option<Probe>,
}

/// A question each gateway asks something outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub target: ProbeTarget,
    /// How often; 1 s to 1 h.
    pub interval: Duration,
    /// How long an answer may take; not longer than the interval.
    pub timeout: Duration,
    /// Questions without an answer in a row that mean dead; 1 to 100.
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeTarget {
    /// Whether a TCP connection is accepted.
    Tcp(SocketAddr),
    /// Whether an ICMP echo request is answered.
    Icmp(IpAddr),
}

impl Probe {
    /// `None` for a probe the rules of the resources refuse.
    pub(crate) fn of(spec: &EgressProbe) -> Option<Probe> {
        let address: IpAddr = spec.target.parse().ok()?;
        let target = match spec.protocol {
            ProbeProtocol::Tcp => {
                ProbeTarget::Tcp(SocketAddr::new(address, u16::try_from(spec.port?).ok()?))
            }
            ProbeProtocol::Icmp => ProbeTarget::Icmp(address),
        };
        Some(Probe {
            target,
            interval: seconds(spec.interval_seconds),
            timeout: seconds(spec.timeout_seconds),
            failure_threshold: spec.failure_threshold.unsigned_abs(),
        })
    }
}

impl Health {
    /// What is written, with the BFDProfile only where `is_profile` says that there is one. `None`:
    /// nothing is left.
    pub(crate) fn of(spec: &EgressHealth, is_profile: impl Fn(&str) -> bool) -> Option<Health> {
        let named = spec.bfd_profile_ref.as_ref().map(|r| r.name.clone());
        let health = Health {
            bfd_profile: named.filter(|name| is_profile(name)),
            probe: spec.probe.as_ref().and_then(Probe::of),
        };
        (health.bfd_profile.is_some() || health.probe.is_some()).then_some(health)
    }
}

/// Seconds of a field whose schema lets nothing below 0 through.
pub(crate) fn seconds(value: i32) -> Duration {
    Duration::from_secs(u64::from(value.unsigned_abs()))
}
