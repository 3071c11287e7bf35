// SPDX-License-Identifier: Apache-2.0
//! What an instance is like, before it has peers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use bgp_core::config::{Aggregate, AsnRange, InstanceConfig, InstanceName, Listen, Transit};
use ipnet::IpNet;
use router_resources::kinds::{self, CausewayInstance};
use router_types::Asn;

/// What every instance has, the node's override applied.
pub(crate) struct Basics<'a> {
    pub(crate) name: &'a str,
    pub(crate) local_asn: Option<i64>,
    pub(crate) local_port: Option<i32>,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) is_cordoned: bool,
}

/// Makes an instance, and says where it would listen.
///
/// # Errors
/// Why it cannot be run, in words.
pub(crate) fn make(
    basics: &Basics<'_>,
    ours: &CausewayInstance,
) -> Result<(InstanceConfig, Option<Listen>), String> {
    if let Some(vrf) = &ours.vrf {
        return Err(format!(
            "it is in VRF '{vrf}', and VRFs are not provided yet"
        ));
    }
    let asn = basics
        .local_asn
        .ok_or("localASN is not set, neither here nor in the node's CiliumBGPNodeConfigOverride")?;
    let asn = u32::try_from(asn).map_err(|_| format!("localASN {asn} is not an AS number"))?;
    let name = InstanceName(basics.name.to_owned());
    let mut config =
        InstanceConfig::new(name, Asn(asn), basics.router_id).map_err(|error| error.to_string())?;
    config.transit = match ours.transit {
        Some(true) => Transit::Allowed,
        None | Some(false) => Transit::Never,
    };
    config.install_routes = ours.install_routes.unwrap_or(true);
    config.as_path_relax = ours.as_path_relax.unwrap_or(true);
    config.weigh_by_link_bandwidth = ours.weigh_by_link_bandwidth.unwrap_or(true);
    config.ebgp_requires_policy = ours.ebgp_requires_policy.unwrap_or(false);
    let on_cordon = ours.graceful_shutdown_on_cordon.unwrap_or(false);
    config.graceful_shutdown =
        ours.graceful_shutdown.unwrap_or(false) || on_cordon && basics.is_cordoned;
    config.keep_rejected = ours.keep_rejected.unwrap_or(false);
    if let Some(most) = ours.max_paths.and_then(|most| u16::try_from(most).ok()) {
        config.max_paths = most;
    }
    if let Some(text) = &ours.cluster_id {
        let id = text.parse::<Ipv4Addr>();
        let id = id.map_err(|_| format!("clusterID '{text}' is not of the form 192.0.2.1"))?;
        config.cluster_id = Some(id);
    }
    if let Some(targets) = &ours.route_targets {
        config.route_targets = Some(BTreeSet::new());
        for target in targets {
            config.ask_for(target).map_err(|error| error.to_string())?;
        }
    }
    for aggregate in &ours.aggregates {
        config.aggregates.push(Aggregate {
            prefix: prefix(&aggregate.prefix)?,
            summary_only: aggregate.summary_only,
        });
    }
    let addresses: Vec<IpAddr> = ours
        .listen_addresses
        .iter()
        .flatten()
        .map(|text| {
            text.parse()
                .map_err(|_| format!("'{text}' is not an IP address"))
        })
        .collect::<Result<_, _>>()?;
    let port = basics.local_port.and_then(|port| u16::try_from(port).ok());
    let listen = port.map(|port| Listen {
        port,
        addresses,
        device: None,
    });
    Ok((config, listen))
}

/// A prefix as written.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not a prefix"))
}

/// AS numbers as written. Those that are none were refused when they were read.
pub(crate) fn asn_ranges<'a>(written: impl Iterator<Item = &'a kinds::AsnRange>) -> Vec<AsnRange> {
    written
        .filter_map(kinds::AsnRange::bounds)
        .map(|(first, last)| AsnRange::new(first..=last))
        .collect()
}
