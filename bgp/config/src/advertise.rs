// SPDX-License-Identifier: Apache-2.0
//! Advertisements: which prefixes a peer is told about, with which attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_core::config::{ExportAttributes, LocalRoutes, PeerName};
use bgp_core::policy::RouteOrigin;
use ipnet::IpNet;
use router_resources::kinds::{
    Advertisement, AdvertisementSpec, AdvertisementType, Attributes, InterfaceOptions,
};
use router_resources::{Entry, LabelSelector, ObjectKey, Snapshot, Statement};
use router_types::Family;

use crate::facts::NodeFacts;
use crate::statements::{Statements, condition_type};

/// The advertisement objects, and who selects them.
pub(crate) struct Advertisements<'a> {
    snapshot: &'a Snapshot,
    facts: &'a NodeFacts,
    users: BTreeMap<ObjectKey, BTreeSet<String>>,
}

impl<'a> Advertisements<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, facts: &'a NodeFacts) -> Self {
        Advertisements {
            snapshot,
            facts,
            users: BTreeMap::new(),
        }
    }

    /// Adds to `routes` what a peer is told in one family. `user` is `instance/peer`,
    /// `peer_config` the object the selector stands in.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another noun; a struct would only name them twice"
    )]
    pub(crate) fn advertise(
        &mut self,
        family: Family,
        selector: Option<&LabelSelector>,
        peer: &PeerName,
        user: &str,
        peer_config: Option<&ObjectKey>,
        routes: &mut LocalRoutes,
        statements: &mut Statements,
    ) {
        for held in &self.facts.held_addresses {
            let prefix = host_prefix(held.address);
            if is_of_family(&prefix, family) {
                let attributes = ExportAttributes {
                    // It is on a device of the node's, or may be at any moment.
                    source: RouteOrigin::Interface,
                    med: held.med,
                    ..export_attributes(Some(&held.attributes))
                };
                routes.add(prefix, peer.clone(), attributes);
            }
        }
        let Some(selector) = selector else { return };
        let mut is_any_selected = false;
        for entry in self.snapshot.advertisements() {
            if !selector.matches(&entry.metadata.labels) {
                continue;
            }
            is_any_selected = true;
            self.users
                .entry(entry.key())
                .or_default()
                .insert(format!("{user} ({family})"));
            for advertisement in &entry.spec.advertisements {
                let attributes = ExportAttributes {
                    source: source(advertisement.advertisement_type),
                    ..export_attributes(advertisement.attributes.as_ref())
                };
                for prefix in self.prefixes(&entry, advertisement, statements) {
                    if is_of_family(&prefix, family) {
                        routes.add(prefix, peer.clone(), attributes.clone());
                    }
                }
            }
        }
        if let (false, Some(key)) = (is_any_selected, peer_config) {
            let message = format!(
                "the advertisements selector of family {family} matches the labels of no \
                 CiliumBGPAdvertisement"
            );
            statements.problem(key, condition_type::NOT_ADVERTISED, "NoMatch", message);
        }
    }

    /// Says of each advertisement whether it is used.
    pub(crate) fn conclude(&self, statements: &mut Statements) {
        for entry in self.snapshot.advertisements() {
            let key = entry.key();
            let statement = match self.users.get(&key) {
                Some(users) => {
                    let users: Vec<&str> = users.iter().map(String::as_str).collect();
                    let message = format!("selected by {}", users.join(", "));
                    Statement::is_true(condition_type::IN_USE, "Selected", message)
                }
                None => {
                    let message = "no peer of this node selects its labels in \
                                   families[].advertisements of its peer configuration";
                    Statement::is_false(condition_type::IN_USE, "NotSelected", message)
                }
            };
            statements.otherwise(&key, statement);
        }
    }

    /// The prefixes of one advertisement, of both families.
    fn prefixes(
        &self,
        entry: &Entry<'_, AdvertisementSpec>,
        advertisement: &Advertisement,
        statements: &mut Statements,
    ) -> Vec<IpNet> {
        let kind = advertisement.advertisement_type;
        match kind {
            AdvertisementType::PodCidr => {
                if self.facts.pod_cidrs.is_empty() {
                    let message = format!(
                        "PodCIDR: node {} has no pod prefix, neither in its settings nor in \
                         spec.podCIDRs of its Node object",
                        self.facts.name
                    );
                    let kind = condition_type::NOT_ADVERTISED;
                    statements.problem(&entry.key(), kind, "NoPodCIDR", message);
                }
                self.facts.pod_cidrs.clone()
            }
            AdvertisementType::Interface => match &advertisement.interface {
                Some(options) => self.interface(entry, options, statements),
                None => Vec::new(),
            },
            AdvertisementType::Service | AdvertisementType::CiliumPodIpPool => {
                if advertisement.selector.is_none() {
                    let message = format!(
                        "{}: an absent selector selects nothing; 'selector: {{}}' selects all",
                        kind.as_str()
                    );
                    let kind = condition_type::NOT_ADVERTISED;
                    statements.problem(&entry.key(), kind, "NoSelector", message);
                }
                let message = format!("{}: nothing provides these prefixes yet", kind.as_str());
                let kind = condition_type::NOT_PROVIDED;
                statements.problem(&entry.key(), kind, "AdvertisementType", message);
                Vec::new()
            }
        }
    }

    /// Host routes for the usable addresses of an interface that is up.
    fn interface(
        &self,
        entry: &Entry<'_, AdvertisementSpec>,
        options: &InterfaceOptions,
        statements: &mut Statements,
    ) -> Vec<IpNet> {
        let name = &options.name;
        let (reason, why) = match self.facts.interfaces.get(name) {
            None => ("NoInterface", "does not exist on this node"),
            Some(interface) if !interface.is_up() => ("InterfaceDown", "is down"),
            Some(interface) => {
                let hosts: Vec<IpNet> = interface.usable_addresses().map(host_prefix).collect();
                if !hosts.is_empty() {
                    return hosts;
                }
                ("NoAddress", "has no usable address")
            }
        };
        let kind = condition_type::NOT_ADVERTISED;
        statements.problem(
            &entry.key(),
            kind,
            reason,
            format!("Interface: {name} {why}"),
        );
        Vec::new()
    }
}

fn host_prefix(address: IpAddr) -> IpNet {
    address.into()
}

fn is_of_family(prefix: &IpNet, family: Family) -> bool {
    match prefix {
        IpNet::V4(_) => family == Family::IPV4_UNICAST,
        IpNet::V6(_) => family == Family::IPV6_UNICAST,
    }
}

/// Attributes as the speaker takes them. The texts were checked when they were read; one that
/// does not parse here is left out.
fn export_attributes(attributes: Option<&Attributes>) -> ExportAttributes {
    let Some(attributes) = attributes else {
        return ExportAttributes::default();
    };
    let communities = attributes.communities.as_ref();
    let standard = communities.iter().flat_map(|c| &c.standard);
    let well_known = communities.iter().flat_map(|c| &c.well_known);
    let large = communities.iter().flat_map(|c| &c.large);
    ExportAttributes {
        communities: standard
            .filter_map(|text| standard_community(text))
            .chain(well_known.map(|name| name.value()))
            .collect(),
        large_communities: large.filter_map(|text| large_community(text)).collect(),
        local_pref: attributes
            .local_preference
            .and_then(|value| u32::try_from(value).ok()),
        ..ExportAttributes::default()
    }
}

/// What policies call the routes of an advertisement.
fn source(kind: AdvertisementType) -> RouteOrigin {
    match kind {
        AdvertisementType::PodCidr => RouteOrigin::PodCidr,
        AdvertisementType::CiliumPodIpPool => RouteOrigin::PodIpPool,
        AdvertisementType::Service => RouteOrigin::Service,
        AdvertisementType::Interface => RouteOrigin::Interface,
    }
}

fn standard_community(text: &str) -> Option<u32> {
    match text.split_once(':') {
        None => text.parse().ok(),
        Some((high, low)) => {
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Some(u32::from(high) << 16 | u32::from(low))
        }
    }
}

fn large_community(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.splitn(3, ':').map(str::parse::<u32>);
    Some((
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    ))
}
