// SPDX-License-Identifier: Apache-2.0
//! What the API and the metrics ask the egress part: its decision, and what its data plane counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_config::{HeldAddress, NodeFacts};
use bpf_loader::{DropCount, Mapping, RuleTraffic, Service};
use egress_config::Facts;
use egress_core::{Claims, Desired, End, Interface, PolicyId, RuleNumber, Transport, Way, World};
use egress_io::holdings::{Announcement, Holdings};
use egress_io::node::{Node, PeerView};
use pods_io::Manager;
use router_netlink::{Link, Netlink};
use router_resources::kinds::{EgressAnnounce, ServedPort, ServedProtocol};
use router_resources::settings::EgressTransport;

pub mod recent;
pub mod watch;

/// Whoever does the egress of this node. Both calls may block for as long as the kernel takes.
pub trait EgressSource: Send + Sync {
    /// What is decided, and what it came to.
    ///
    /// # Errors
    /// When the data plane cannot be read.
    fn view(&self) -> anyhow::Result<EgressView>;

    /// Calls `visit` with every mapping of connections this node is the gateway of, in no order.
    ///
    /// # Errors
    /// When the data plane cannot be read.
    fn each_mapping(&self, visit: &mut dyn FnMut(&Mapping)) -> anyhow::Result<()>;
}

/// Egress at one moment. World, claims and decision belong together.
#[derive(Clone, Debug, Default)]
pub struct EgressView {
    /// What the decision was made of.
    pub world: Arc<World>,
    /// Who holds which rules.
    pub claims: Arc<Claims>,
    /// The decision.
    pub desired: Arc<Desired>,
    /// The rules this node stands by for that it could take over with all their connections.
    pub ready: BTreeSet<RuleNumber>,
    /// What came of the rules this node is the gateway of, or stands by for, as far as the data
    /// plane has them.
    pub rules: BTreeMap<RuleNumber, RuleReport>,
    /// Refused packets of the whole gateway; reasons that never occurred may be there or not.
    pub refusals: Vec<DropCount>,
    /// How many ports of an address have connections at the moment, by address and protocol
    /// number. What is not known is not there.
    pub ports_used: BTreeMap<(IpAddr, u8), u64>,
    /// How often this node saw another node become the gateway of a policy's rule.
    pub failovers: BTreeMap<PolicyId, u64>,
    /// The other gateways.
    pub peers: Vec<PeerView>,
    /// Why the tunnel is not as it should be; fine where it is, and where none is needed.
    pub tunnel_problem: Option<String>,
}

/// What came of a rule at its gateway.
#[derive(Clone, Debug, Default)]
pub struct RuleReport {
    /// Mappings at the last look.
    pub connections: u64,
    /// Traffic so far.
    pub traffic: RuleTraffic,
    /// Refused packets by reason; only reasons that occurred.
    pub refusals: Vec<DropCount>,
}

impl EgressSource for Node {
    fn view(&self) -> anyhow::Result<EgressView> {
        let view = Node::view(self)?;
        let rules = view.rules.into_iter().filter_map(|state| {
            let report = RuleReport {
                connections: view.connections.get(&state.number).copied().unwrap_or(0),
                traffic: state.traffic,
                refusals: state.refusals,
            };
            Some((RuleNumber::new(state.number)?, report))
        });
        Ok(EgressView {
            rules: rules.collect(),
            ready: view.ready,
            world: view.world,
            claims: view.claims,
            desired: view.desired,
            refusals: view.refusals,
            ports_used: view.ports_used,
            failovers: view.failovers,
            peers: view.peers,
            tunnel_problem: view.tunnel_problem,
        })
    }

    fn each_mapping(&self, visit: &mut dyn FnMut(&Mapping)) -> anyhow::Result<()> {
        Ok(Node::each_mapping(self, visit)?)
    }
}

impl EgressView {
    /// How many ports connections may get of each address of this gateway. Rules may share an
    /// address, each with a range of its own: what is in two of them counts once.
    pub fn ports(&self) -> BTreeMap<IpAddr, u64> {
        let mut ranges: BTreeMap<IpAddr, BTreeSet<(u16, u16)>> = BTreeMap::new();
        for rule in self.desired.gateway.values() {
            for address in rule.addresses() {
                let range = (rule.ports.first, rule.ports.last);
                ranges.entry(address).or_default().insert(range);
            }
        }
        let counts = ranges.into_iter();
        counts
            .map(|(address, ranges)| (address, count(&ranges)))
            .collect()
    }

    /// Addresses of pods of this node that have a destination to which everything is dropped.
    pub fn refused_sources(&self) -> BTreeSet<IpAddr> {
        let is_dropped = |way: &Way| match way {
            Way::Excluded => false,
            Way::Refused(_) => true,
            Way::Through(rule) => {
                let end = self.desired.ends.get(rule);
                end.is_none_or(|end| end.end == End::Refused)
            }
        };
        let sources = self.desired.sources.iter().filter(|(_, source)| {
            let ways = self.desired.sets.get(&source.set);
            ways.is_some_and(|ways| ways.values().any(is_dropped))
        });
        sources.map(|(address, _)| *address).collect()
    }
}

/// How many ports lie in some ranges, which are in order of their first one.
fn count(ranges: &BTreeSet<(u16, u16)>) -> u64 {
    let (mut sum, mut next) = (0, 0);
    for (first, last) in ranges {
        let first = u64::from(*first).max(next);
        let end = u64::from(*last) + 1;
        sum += end.saturating_sub(first);
        next = next.max(end);
    }
    sum
}

/// The addresses this node tells its BGP peers of: of those it holds, and of those it is ready to
/// hold. None is both.
pub fn announced(
    holdings: &Holdings,
    announce: &BTreeMap<PolicyId, EgressAnnounce>,
) -> Vec<HeldAddress> {
    let bgp = |policy| announce.get(policy)?.bgp.as_ref();
    let held = holdings.held.iter();
    let held = held.filter_map(|(address, policy)| Some((address, bgp(policy)?.clone())));
    let ready = holdings.ready.iter();
    let ready = ready.filter(|(address, _)| !holdings.held.contains_key(address));
    let ready = ready.filter_map(|(address, policy)| Some((address, bgp(policy)?.standby()?)));
    let announced = held.chain(ready).map(|(address, bgp)| HeldAddress {
        address: *address,
        attributes: bgp.attributes,
        med: bgp.med.and_then(|med| u32::try_from(med).ok()),
    });
    announced.collect()
}

/// The same for those who tell neighbours and the kernel.
pub fn announcements(
    announce: &BTreeMap<PolicyId, EgressAnnounce>,
) -> BTreeMap<PolicyId, Announcement> {
    let announcement = |announce: &EgressAnnounce| Announcement {
        is_on_segments: announce.arp,
        is_by_bgp: announce.bgp.is_some(),
    };
    let announce = announce.iter();
    announce
        .map(|(policy, announce)| (policy.clone(), announcement(announce)))
        .collect()
}

/// What else is served at addresses that are held.
pub fn services(
    served: &BTreeMap<PolicyId, Vec<ServedPort>>,
) -> BTreeMap<PolicyId, BTreeSet<Service>> {
    let service = |served: &ServedPort| {
        let protocol = match served.protocol {
            ServedProtocol::Tcp => libc::IPPROTO_TCP,
            ServedProtocol::Udp => libc::IPPROTO_UDP,
        };
        Some(Service {
            protocol: u8::try_from(protocol).ok()?,
            port: u16::try_from(served.port).ok()?,
        })
    };
    let services = |ports: &Vec<ServedPort>| ports.iter().filter_map(service).collect();
    let served = served.iter();
    served
        .map(|(policy, ports)| (policy.clone(), services(ports)))
        .collect()
}

/// What a node is, for egress: devices with all their addresses, and its pods.
pub async fn facts(
    node: &NodeFacts,
    links: &[Link],
    pods: Option<&Manager>,
    transport: EgressTransport,
    netlink: &mut Netlink,
) -> anyhow::Result<(Facts, Vec<IpAddr>)> {
    let way_out = |netlink: &mut Netlink, nowhere: IpAddr| {
        // No route at all is an answer too.
        let route = netlink.lookup_route(nowhere).ok()?;
        route.next_hops.first().and_then(|hop| hop.next_hop.link)
    };
    // Addresses nothing has but a default route: the dummy address (RFC 7600) and the discard
    // prefix (RFC 6666).
    let v4 = way_out(netlink, IpAddr::from([192, 0, 0, 8]));
    let v6 = way_out(netlink, IpAddr::from([0x100, 0, 0, 0, 0, 0, 0, 1]));
    let interfaces = links.iter().filter_map(|link| {
        let known = node.interfaces.get(&link.name)?;
        let interface = Interface {
            index: link.index.0,
            is_up: known.is_up(),
            addresses: known.addresses.clone(),
            has_default_route_v4: v4 == Some(link.index),
            has_default_route_v6: v6 == Some(link.index),
        };
        Some((link.name.clone(), interface))
    });
    let interfaces = interfaces.collect();
    let mut strangers = Vec::new();
    let mut endpoints = Vec::new();
    let listed = match pods {
        Some(pods) => pods
            .list()
            .await
            .map_err(|failure| anyhow::anyhow!("{failure}"))?,
        None => Vec::new(),
    };
    for view in listed {
        let endpoint = view.endpoint;
        match endpoint.pod {
            Some(pod) => endpoints.push(egress_config::Endpoint {
                namespace: pod.namespace,
                name: pod.name,
                uid: pod.uid,
                addresses: endpoint.addresses,
                labels: pod.labels,
            }),
            None => strangers.extend(endpoint.addresses),
        }
    }
    let facts = Facts {
        node: node.name.clone(),
        addresses: node.addresses.clone(),
        interfaces,
        pod_cidrs: node.pod_cidrs.clone(),
        transport: match transport {
            EgressTransport::Tunnel => Transport::Tunnel,
            EgressTransport::Either => Transport::Either,
            EgressTransport::Native => Transport::Native,
        },
        endpoints,
    };
    Ok((facts, strangers))
}

#[cfg(test)]
pub mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_stands_by_announces_what_the_policy_says_of_it() {
        let policy = |name: &str| testing::id(name);
        let bgp = |text: &str| EgressAnnounce {
            bgp: Some(serde_json::from_str(text).unwrap()),
            arp: false,
        };
        let announce = [
            (policy("alone"), bgp(r#"{"med": 5}"#)),
            (
                policy("med"),
                bgp(r#"{"communities": {"standard": ["65000:7"]}, "med": 10, "standbyMED": 200}"#),
            ),
            (
                policy("marked"),
                bgp(r#"{"communities": {"standard": ["65000:7"]}, "med": 10,
                    "standbyCommunities": {"standard": ["65000:8"]}}"#),
            ),
            (policy("silent"), EgressAnnounce::default()),
        ];
        let of = |first: &str| -> BTreeMap<IpAddr, PolicyId> {
            let names = ["alone", "med", "marked", "silent", "gone"].into_iter();
            let addresses = (0..).map(|last| testing::ip(&format!("{first}.{last}")));
            addresses.zip(names.map(policy)).collect()
        };
        let mut holdings = Holdings {
            held: of("192.0.2"),
            ready: of("198.51.100"),
        };
        // Held by one rule and ready for another: it is here.
        let both = testing::ip("192.0.2.1");
        holdings.ready.insert(both, policy("med"));
        let told = announced(&holdings, &announce.into());
        let told = told.iter().map(|one| {
            let communities = one.attributes.communities.as_ref();
            let communities = communities.map_or(String::new(), |c| c.standard.join(","));
            format!("{} {:?} {communities}", one.address, one.med)
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                "192.0.2.0 Some(5) ",
                "192.0.2.1 Some(10) 65000:7",
                "192.0.2.2 Some(10) 65000:7",
                "198.51.100.1 Some(200) 65000:7",
                "198.51.100.2 Some(10) 65000:8",
            ]
        );
    }

    #[test]
    fn overlapping_ranges_are_counted_once() {
        assert_eq!(count(&[(1024, 65535)].into()), 64512);
        assert_eq!(count(&[(1, 10), (2, 3), (8, 20), (30, 30)].into()), 21);
        assert_eq!(count(&[].into()), 0);
    }

    #[test]
    fn addresses_of_pods_that_are_dropped_are_known() {
        let refused = testing::view().refused_sources();
        assert_eq!(
            refused,
            [testing::ip("10.1.0.3"), testing::ip("10.1.0.4")].into()
        );
    }
}
