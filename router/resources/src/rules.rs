// SPDX-License-Identifier: Apache-2.0
//! Rules a schema cannot say: between fields, and what texts must parse as.
//!
//! Where the upstream resource has a CEL rule, the same rule is here and in the schema beside the
//! struct. The others keep the subsystems' configurations valid by construction.

mod causeway;
mod egress;
mod policy;

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::base64;
use crate::diagnostic::Code;
use crate::kinds::{
    Advertisement, AdvertisementType, Afi, AutoDiscovery, AutoDiscoveryMode, ClusterConfigSpec,
    Import, ImportMode, Node, NodeConfigOverrideSpec, NodeConfigSpec, PeerConfigSpec, Secret,
};
use crate::object::{Body, Object};
use crate::parse::MAX_FINDINGS;
use crate::path::Path;
use crate::schema::Finding;
use crate::selector::{self, LabelSelector, Operator};

pub(crate) use policy::unreachable;

/// Checks an object that fits its schema.
pub(crate) fn check(object: &Object) -> Vec<Finding> {
    let mut rules = Rules::default();
    rules.metadata(object);
    let spec = Path::root("spec");
    match &object.body {
        Body::ClusterConfig(body) | Body::CausewayClusterConfig(body) => {
            rules.cluster_config(body, &spec)
        }
        Body::PeerConfig(body) | Body::CausewayPeerConfig(body) => rules.peer_config(body, &spec),
        Body::Advertisement(body) => {
            for (index, advertisement) in body.advertisements.iter().enumerate() {
                rules.advertisement(advertisement, &spec.join("advertisements").join(index));
            }
        }
        Body::NodeConfigOverride(body) => rules.node_config_override(body, &spec),
        Body::NodeConfig(body) => rules.node_config(body, &spec),
        Body::Policy(body) => rules.bgp_policy(body, &spec),
        // Its schema says it all.
        Body::BfdProfile(_) => {}
        Body::CiliumEgressPolicy(body) => rules.cilium_egress_policy(body, &spec),
        Body::EgressPolicy(body) => rules.egress_policy(body, &spec),
        Body::Node(body) => rules.node(body),
        // Only its labels are read.
        Body::Namespace(_) => {}
        Body::Pod(body) => rules.pod(body),
        Body::Secret(body) => rules.secret(body),
    }
    rules.findings
}

/// Reads an IP address with the zone a link-local one may have.
pub fn parse_address(text: &str) -> Option<(IpAddr, Option<&str>)> {
    match text.split_once('%') {
        None => Some((text.parse().ok()?, None)),
        Some((address, zone)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            Some((address.into(), Some(zone)))
        }
    }
}

#[derive(Default)]
struct Rules {
    findings: Vec<Finding>,
}

impl Rules {
    fn broken(&mut self, path: Path, message: impl Into<String>) {
        self.report(path, Code::BrokenRule, message.into(), None);
    }

    fn invalid(&mut self, path: Path, message: impl Into<String>, help: &str) {
        self.report(path, Code::InvalidValue, message.into(), Some(help.into()));
    }

    fn report(&mut self, path: Path, code: Code, message: String, help: Option<String>) {
        if self.findings.len() >= MAX_FINDINGS {
            return;
        }
        self.findings.push(Finding {
            path,
            place: None,
            code,
            message,
            help,
        });
    }

    fn metadata(&mut self, object: &Object) {
        let path = Path::root("metadata");
        let name = &object.metadata.name;
        if !selector::is_dns_subdomain(name) {
            let help = "allowed: at most 253 lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit";
            self.invalid(
                path.join("name"),
                format!("'{name}' is not an object name"),
                help,
            );
        }
        if let Some(namespace) = &object.metadata.namespace
            && !object.kind().is_namespaced()
        {
            let message = format!(
                "{} objects have no namespace, found '{namespace}'",
                object.kind().name()
            );
            self.invalid(path.join("namespace"), message, "remove the field");
        }
        for (key, value) in &object.metadata.labels {
            let path = path.join("labels").join(key.as_str());
            if let Err(why) = selector::check_key(key) {
                self.invalid(path.clone(), format!("'{key}' is not a label key"), why);
            }
            if let Err(why) = selector::check_value(value) {
                self.invalid(path, format!("'{value}' is not a label value"), why);
            }
        }
    }

    fn selector(&mut self, selector: Option<&LabelSelector>, path: Path) {
        let Some(selector) = selector else { return };
        for (key, value) in &selector.match_labels {
            let path = path.join("matchLabels").join(key.as_str());
            if let Err(why) = selector::check_key(key) {
                self.invalid(path.clone(), format!("'{key}' is not a label key"), why);
            }
            if let Err(why) = selector::check_value(value) {
                self.invalid(path, format!("'{value}' is not a label value"), why);
            }
        }
        for (index, requirement) in selector.match_expressions.iter().enumerate() {
            let path = path.join("matchExpressions").join(index);
            if let Err(why) = selector::check_key(&requirement.key) {
                let message = format!("'{}' is not a label key", requirement.key);
                self.invalid(path.join("key"), message, why);
            }
            let wants_values = matches!(requirement.operator, Operator::In | Operator::NotIn);
            if wants_values && requirement.values.is_empty() {
                self.broken(
                    path.join("values"),
                    "operators In and NotIn need at least one value",
                );
            } else if !wants_values && !requirement.values.is_empty() {
                self.broken(
                    path.join("values"),
                    "operators Exists and DoesNotExist take no values",
                );
            }
            for (index, value) in requirement.values.iter().enumerate() {
                if let Err(why) = selector::check_value(value) {
                    let path = path.join("values").join(index);
                    self.invalid(path, format!("'{value}' is not a label value"), why);
                }
            }
        }
    }

    fn address(&mut self, text: Option<&String>, path: Path) {
        let Some(text) = text else { return };
        match parse_address(text) {
            None => self.invalid(
                path,
                format!("'{text}' is not an IP address"),
                "allowed: an IPv4 or IPv6 address such as 192.0.2.1, 2001:db8::1 or fe80::1%eth0",
            ),
            Some((IpAddr::V6(address), Some(zone))) if !address.is_unicast_link_local() => self
                .invalid(
                    path,
                    format!("'{text}' has the zone '{zone}' and is not link-local"),
                    "only addresses of fe80::/10 take a zone",
                ),
            Some(_) => {}
        }
    }

    fn auto_discovery(&mut self, discovery: Option<&AutoDiscovery>, path: Path) {
        let Some(discovery) = discovery else { return };
        let missing = match discovery.mode {
            AutoDiscoveryMode::DefaultGateway if discovery.default_gateway.is_none() => {
                "defaultGateway is required with mode DefaultGateway"
            }
            AutoDiscoveryMode::Unnumbered if discovery.unnumbered.is_none() => {
                "unnumbered is required with mode Unnumbered"
            }
            AutoDiscoveryMode::DefaultGateway | AutoDiscoveryMode::Unnumbered => return,
        };
        self.broken(path, missing);
    }

    fn cluster_config(&mut self, spec: &ClusterConfigSpec, path: &Path) {
        self.selector(spec.node_selector.as_ref(), path.join("nodeSelector"));
        for (index, instance) in spec.bgp_instances.iter().enumerate() {
            let path = path.join("bgpInstances").join(index);
            self.causeway_instance(instance, &path);
            for (index, peer) in instance.peers.iter().enumerate() {
                let path = path.join("peers").join(index);
                self.causeway_peer(peer, &path);
                self.address(peer.peer_address.as_ref(), path.join("peerAddress"));
                self.auto_discovery(peer.auto_discovery.as_ref(), path.join("autoDiscovery"));
                if let Some(reference) = &peer.peer_config_ref {
                    self.peer_config_ref(reference, &path.join("peerConfigRef"));
                }
            }
            for (index, server) in instance.bmp_servers.iter().enumerate() {
                let path = path.join("bmpServers").join(index);
                self.address(Some(&server.peer_address), path.join("peerAddress"));
            }
        }
    }

    fn peer_config_ref(&mut self, reference: &crate::kinds::PeerConfigRef, path: &Path) {
        let pair = (reference.group.as_deref(), reference.kind.as_deref());
        let is_known = matches!(
            pair,
            (None | Some("cilium.io"), None | Some("CiliumBGPPeerConfig"))
                | (None | Some("causeway.io"), Some("BGPPeerConfig"))
                | (Some("causeway.io"), None)
        );
        if !is_known {
            let message = format!(
                "no peer configuration kind '{}' in group '{}'",
                pair.1.unwrap_or("(none)"),
                pair.0.unwrap_or("(none)")
            );
            self.invalid(
                path.clone(),
                message,
                "allowed: CiliumBGPPeerConfig of cilium.io, BGPPeerConfig of causeway.io",
            );
        }
    }

    fn peer_config(&mut self, spec: &PeerConfigSpec, path: &Path) {
        if let Some(timers) = &spec.timers
            && timers.keep_alive_time_seconds > timers.hold_time_seconds
        {
            let message = format!(
                "keepAliveTimeSeconds {} must not be larger than holdTimeSeconds {} \
                 (absent fields are 30 and 90)",
                timers.keep_alive_time_seconds, timers.hold_time_seconds
            );
            self.broken(path.join("timers"), message);
        }
        if (spec.ours.passive, spec.ours.active) == (Some(true), Some(true)) {
            let message = "passive waits for the peer and active refuses it; write one of them";
            self.broken(path.join("active"), message);
        }
        let families = spec.families.as_deref().unwrap_or_default();
        for (index, family) in families.iter().enumerate() {
            let path = path.join("families").join(index);
            self.selector(family.advertisements.as_ref(), path.join("advertisements"));
            self.causeway_family(spec, family, &path);
            let is_same =
                |other: &crate::kinds::Family| (other.afi, other.safi) == (family.afi, family.safi);
            if let Some(first) = families[..index].iter().position(is_same) {
                self.broken(path, format!("the family is the same as in entry {first}"));
            }
        }
    }

    fn import(&mut self, import: &Import, afi: Afi, path: &Path) {
        let prefixes = import.prefixes.as_deref();
        match import.mode {
            Some(ImportMode::Prefixes) if prefixes.is_none_or(<[_]>::is_empty) => {
                self.broken(path.clone(), "prefixes is required with mode Prefixes");
            }
            None | Some(ImportMode::DefaultRoute | ImportMode::All | ImportMode::None)
                if import.prefixes.is_some() =>
            {
                self.broken(
                    path.join("prefixes"),
                    "prefixes is allowed with mode Prefixes only",
                );
            }
            _ => {}
        }
        for (index, entry) in prefixes.unwrap_or_default().iter().enumerate() {
            let path = path.join("prefixes").join(index);
            let Some(prefix) = self.prefix(&entry.prefix, path.join("prefix")) else {
                continue;
            };
            let is_of_family = match afi {
                Afi::Ipv4 => prefix.addr().is_ipv4(),
                Afi::Ipv6 => prefix.addr().is_ipv6(),
                Afi::L2vpn | Afi::Ls | Afi::Opaque => true,
            };
            if !is_of_family {
                let message = format!("{prefix} is not of the family it is listed under");
                self.broken(path.join("prefix"), message);
            }
            let own = i32::from(prefix.prefix_len());
            let widest = i32::from(prefix.max_prefix_len());
            let min = entry.min_length.unwrap_or(own);
            let max = entry.max_length.unwrap_or(min);
            if !(own <= min && min <= max && max <= widest) {
                self.broken(
                    path,
                    format!(
                        "minLength {min} and maxLength {max} must be in order between the \
                         prefix's own length {own} and {widest}"
                    ),
                );
            }
        }
    }

    /// A prefix whose host bits are zero.
    fn prefix(&mut self, text: &str, path: Path) -> Option<IpNet> {
        let Ok(prefix) = text.parse::<IpNet>() else {
            self.invalid(
                path,
                format!("'{text}' is not a prefix"),
                "allowed: a prefix such as 192.0.2.0/24 or 2001:db8::/32",
            );
            return None;
        };
        if prefix.trunc() != prefix {
            let help = format!("did you mean '{}'?", prefix.trunc());
            self.invalid(path, format!("'{text}' has host bits set"), &help);
            return None;
        }
        Some(prefix)
    }

    fn advertisement(&mut self, advertisement: &Advertisement, path: &Path) {
        let kind = advertisement.advertisement_type;
        if kind == AdvertisementType::PodCidr && advertisement.selector.is_some() {
            let message = "selector is not allowed for advertisementType PodCIDR";
            self.broken(path.join("selector"), message);
        }
        for (wants, has, field) in [
            (
                AdvertisementType::Service,
                advertisement.service.is_some(),
                "service",
            ),
            (
                AdvertisementType::Interface,
                advertisement.interface.is_some(),
                "interface",
            ),
        ] {
            if kind == wants && !has {
                let message = format!(
                    "{field} is required for advertisementType {}",
                    wants.as_str()
                );
                self.broken(path.clone(), message);
            } else if kind != wants && has {
                let message = format!(
                    "{field} is allowed for advertisementType {} only, found {}",
                    wants.as_str(),
                    kind.as_str()
                );
                self.broken(path.join(field), message);
            }
        }
        self.selector(advertisement.selector.as_ref(), path.join("selector"));
    }

    fn node_config_override(&mut self, spec: &NodeConfigOverrideSpec, path: &Path) {
        for (index, instance) in spec.bgp_instances.iter().enumerate() {
            let path = path.join("bgpInstances").join(index);
            self.router_id(instance.router_id.as_deref(), path.join("routerID"));
            for (index, peer) in instance.peers.iter().enumerate() {
                let path = path.join("peers").join(index);
                self.address(peer.local_address.as_ref(), path.join("localAddress"));
            }
        }
    }

    fn node_config(&mut self, spec: &NodeConfigSpec, path: &Path) {
        for (index, instance) in spec.bgp_instances.iter().enumerate() {
            let path = path.join("bgpInstances").join(index);
            self.router_id(instance.router_id.as_deref(), path.join("routerID"));
            for (index, peer) in instance.peers.iter().enumerate() {
                let path = path.join("peers").join(index);
                self.address(peer.peer_address.as_ref(), path.join("peerAddress"));
                self.auto_discovery(peer.auto_discovery.as_ref(), path.join("autoDiscovery"));
            }
        }
    }

    /// RFC 6286 §2.1: any number but 0.
    fn router_id(&mut self, text: Option<&str>, path: Path) {
        if text == Some("0.0.0.0") {
            self.invalid(
                path,
                "0.0.0.0 is not a router identifier",
                "RFC 6286: it must not be 0",
            );
        }
    }

    fn node(&mut self, node: &Node) {
        let path = Path::root("spec").join("podCIDRs");
        for (index, text) in node.spec.pod_cidrs.iter().enumerate() {
            self.prefix(text, path.join(index));
        }
        if let Some(text) = &node.spec.pod_cidr {
            self.prefix(text, Path::root("spec").join("podCIDR"));
        }
    }

    fn secret(&mut self, secret: &Secret) {
        for (key, text) in &secret.data {
            if let Err(why) = base64::decode(text) {
                self.invalid(
                    Path::root("data").join(key.as_str()),
                    format!("the value is not base64: {why}"),
                    "encode it (`base64`), or put the plain text under stringData",
                );
            }
        }
    }
}
