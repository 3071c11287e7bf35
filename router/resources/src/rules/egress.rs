// SPDX-License-Identifier: Apache-2.0
//! Rules about the egress policies, upstream's and ours, and about pods.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic::Code;
use crate::kinds::{
    AddressPool, CausewayEgressGateway, CiliumEgressPolicySpec, EgressBgp, EgressGateway,
    EgressPolicySpec, EgressProbe, EgressSelector, MAX_POOL_ADDRESSES, Pod, ProbeProtocol,
};
use crate::path::Path;

use super::Rules;

impl Rules {
    pub(super) fn cilium_egress_policy(&mut self, spec: &CiliumEgressPolicySpec, path: &Path) {
        self.egress_selectors(&spec.selectors, &path.join("selectors"));
        for (field, texts) in [
            ("destinationCIDRs", &spec.destination_cidrs),
            ("excludedCIDRs", &spec.excluded_cidrs),
        ] {
            for (index, text) in texts.iter().enumerate() {
                // Upstream takes prefixes with host bits set for what they cover.
                if text.parse::<IpNet>().is_err() {
                    self.prefix(text, path.join(field).join(index));
                }
            }
        }
        self.egress_gateway(&spec.egress_gateway, &path.join("egressGateway"));
        for (index, gateway) in spec.egress_gateways.iter().enumerate() {
            self.egress_gateway(gateway, &path.join("egressGateways").join(index));
        }
    }

    pub(super) fn egress_policy(&mut self, spec: &EgressPolicySpec, path: &Path) {
        self.egress_selectors(&spec.selectors, &path.join("selectors"));
        for (field, texts) in [
            ("destinationCIDRs", &spec.destination_cidrs),
            ("excludedCIDRs", &spec.excluded_cidrs),
        ] {
            for (index, text) in texts.iter().enumerate() {
                self.prefix(text, path.join(field).join(index));
            }
        }
        if spec.gateways().is_empty() {
            let message = "one of egressGateway and egressGateways is required";
            self.broken(path.clone(), message);
        }
        if let Some(gateway) = &spec.egress_gateway {
            self.causeway_egress_gateway(gateway, &path.join("egressGateway"));
        }
        for (index, gateway) in spec.egress_gateways.iter().enumerate() {
            self.causeway_egress_gateway(gateway, &path.join("egressGateways").join(index));
        }
        if let Some(probe) = spec
            .health
            .as_ref()
            .and_then(|health| health.probe.as_ref())
        {
            self.egress_probe(probe, &path.join("health").join("probe"));
        }
        if let Some(bgp) = &spec.announce.bgp {
            self.egress_bgp(bgp, spec, &path.join("announce").join("bgp"));
        }
        let connections = path.join("connections");
        if !spec.connections.survive && spec.connections.drain_seconds.is_some() {
            let message = "with survive false connections end at once";
            self.broken(connections.join("drainSeconds"), message);
        }
        let ports = spec.connections.source_ports;
        if ports.first > ports.last {
            let message = format!(
                "first {} must not be larger than last {} (absent fields are 1024 and 65535)",
                ports.first, ports.last
            );
            self.broken(connections.join("sourcePorts"), message);
        }
        self.served_ports(spec, &path.join("servedPorts"));
    }

    /// Ports that pods' connections do not get, of addresses that are kept from the node.
    fn served_ports(&mut self, spec: &EgressPolicySpec, path: &Path) {
        if !spec.served_ports.is_empty()
            && !spec.gateways().iter().any(CausewayEgressGateway::holds)
        {
            let message = "servedPorts needs a gateway with egressIPs or addressPool: \
                           what comes for the other addresses is the kernel's anyway";
            self.broken(path.clone(), message);
        }
        let ports = spec.connections.source_ports;
        for (index, served) in spec.served_ports.iter().enumerate() {
            if (ports.first..=ports.last).contains(&served.port) {
                let message = format!(
                    "port {} is one of connections.sourcePorts {} to {}, which pods' connections get \
                     (absent fields are 1024 and 65535)",
                    served.port, ports.first, ports.last
                );
                self.broken(path.join(index).join("port"), message);
            }
        }
    }

    pub(super) fn pod(&mut self, pod: &Pod) {
        let status = Path::root("status");
        for (index, entry) in pod.status.pod_ips.iter().enumerate() {
            self.plain_address(&entry.ip, status.join("podIPs").join(index).join("ip"));
        }
        if let Some(text) = pod.status.pod_ip.as_ref().filter(|text| !text.is_empty()) {
            self.plain_address(text, status.join("podIP"));
        }
    }

    fn egress_selectors(&mut self, selectors: &[EgressSelector], path: &Path) {
        for (index, entry) in selectors.iter().enumerate() {
            let path = path.join(index);
            self.selector(
                entry.namespace_selector.as_ref(),
                path.join("namespaceSelector"),
            );
            self.selector(entry.pod_selector.as_ref(), path.join("podSelector"));
            self.selector(entry.node_selector.as_ref(), path.join("nodeSelector"));
            let has_pods = entry.pod_selector.is_some();
            if !has_pods && entry.namespace_selector.is_none() {
                let message = "one of podSelector and namespaceSelector is required";
                let help = "an empty one, {}, selects everything";
                self.report(path, Code::BrokenRule, message.into(), Some(help.into()));
            } else if !has_pods && entry.node_selector.is_some() {
                let message = "nodeSelector needs podSelector";
                let help = "an empty one, {}, selects all pods";
                let path = path.join("nodeSelector");
                self.report(path, Code::BrokenRule, message.into(), Some(help.into()));
            }
        }
    }

    fn egress_gateway(&mut self, gateway: &EgressGateway, path: &Path) {
        self.selector(Some(&gateway.node_selector), path.join("nodeSelector"));
        if !gateway.egress_ip.is_empty() {
            self.plain_address(&gateway.egress_ip, path.join("egressIP"));
            if gateway.device().is_some() {
                let message = "interface and egressIP are not allowed together; write one of them";
                self.broken(path.join("egressIP"), message);
            }
        }
        if let Some(name) = gateway.device()
            && (name.len() > 15 || name.contains(|c: char| c == '/' || c.is_whitespace()))
        {
            let help = "allowed: 1 to 15 characters without '/' and spaces";
            let message = format!("'{name}' is not the name of a device");
            self.invalid(path.join("interface"), message, help);
        }
    }

    fn causeway_egress_gateway(&mut self, gateway: &CausewayEgressGateway, path: &Path) {
        self.egress_gateway(&gateway.upstream, path);
        let ways = [
            ("egressIP", !gateway.upstream.egress_ip.is_empty()),
            ("egressIPs", !gateway.egress_ips.is_empty()),
            ("addressPool", gateway.address_pool.is_some()),
        ];
        let written: Vec<&str> = ways.iter().filter(|w| w.1).map(|w| w.0).collect();
        if let [first, .., last] = written.as_slice() {
            let message = format!("{first} and {last} are not allowed together; write one of them");
            self.broken(path.join(*last), message);
        }
        let mut seen: Vec<IpAddr> = Vec::new();
        for (index, text) in gateway.egress_ips.iter().enumerate() {
            let path = path.join("egressIPs").join(index);
            let Some(address) = self.plain_address(text, path.clone()) else {
                continue;
            };
            if let Some(first) = seen.iter().position(|other| *other == address) {
                self.broken(path, format!("the address is the same as in entry {first}"));
            }
            seen.push(address);
        }
        if let Some(pool) = &gateway.address_pool {
            self.address_pool(pool, &path.join("addressPool"));
        }
    }

    fn address_pool(&mut self, pool: &AddressPool, path: &Path) {
        let mut seen: Vec<(usize, IpNet)> = Vec::new();
        for (index, text) in pool.cidrs.iter().enumerate() {
            let path = path.join("cidrs").join(index);
            let Some(prefix) = self.prefix(text, path.clone()) else {
                continue;
            };
            let overlaps = |other: &IpNet| other.contains(&prefix) || prefix.contains(other);
            if !is_usable(prefix.addr()) {
                self.unusable(text, path);
            } else if let Some((first, other)) = seen.iter().find(|(_, other)| overlaps(other)) {
                let message = format!("{prefix} and {other} of entry {first} overlap");
                self.broken(path, message);
            }
            seen.push((index, prefix));
        }
        if pool.size() > MAX_POOL_ADDRESSES {
            let message = format!(
                "the prefixes have {} addresses together, more than {MAX_POOL_ADDRESSES}",
                pool.size()
            );
            let help = "the holder has each of them on a device; write longer prefixes, such as an IPv4 /24 or an IPv6 /120";
            self.invalid(path.join("cidrs"), message, help);
        }
    }

    fn egress_probe(&mut self, probe: &EgressProbe, path: &Path) {
        self.plain_address(&probe.target, path.join("target"));
        match (probe.protocol, probe.port) {
            (ProbeProtocol::Tcp, None) => {
                self.broken(path.clone(), "port is required with protocol TCP");
            }
            (ProbeProtocol::Icmp, Some(_)) => {
                self.broken(path.join("port"), "port is allowed with protocol TCP only");
            }
            (ProbeProtocol::Tcp, Some(_)) | (ProbeProtocol::Icmp, None) => {}
        }
        if probe.timeout_seconds > probe.interval_seconds {
            let message = format!(
                "timeoutSeconds {} must not be larger than intervalSeconds {} \
                 (absent fields are 2 and 5)",
                probe.timeout_seconds, probe.interval_seconds
            );
            self.broken(path.join("timeoutSeconds"), message);
        }
    }

    fn egress_bgp(&mut self, bgp: &EgressBgp, spec: &EgressPolicySpec, path: &Path) {
        if !spec.gateways().iter().any(CausewayEgressGateway::holds) {
            let message = "bgp needs a gateway with egressIPs or addressPool: \
                           the other addresses are not Causeway's to announce";
            self.broken(path.clone(), message);
        }
        if let Some(standby) = bgp.standby_med
            && standby <= bgp.med.unwrap_or(0)
        {
            let message = format!(
                "standbyMED {standby} must be larger than med {} (0 where it is absent)",
                bgp.med.unwrap_or(0)
            );
            self.broken(path.join("standbyMED"), message);
        }
    }

    /// An address a node can have, without a zone.
    fn plain_address(&mut self, text: &str, path: Path) -> Option<IpAddr> {
        let Ok(address) = text.parse::<IpAddr>() else {
            let help = "allowed: an IPv4 or IPv6 address such as 192.0.2.1 or 2001:db8::1";
            self.invalid(path, format!("'{text}' is not an IP address"), help);
            return None;
        };
        if !is_usable(address) {
            self.unusable(text, path);
            return None;
        }
        Some(address)
    }

    fn unusable(&mut self, text: &str, path: Path) {
        let message = format!("'{text}' is not an address of a node or pod");
        let help = "unspecified, loopback, multicast, IPv6 link-local and IPv4-mapped ones are not";
        self.invalid(path, message, help);
    }
}

fn is_usable(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(is_special || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}
