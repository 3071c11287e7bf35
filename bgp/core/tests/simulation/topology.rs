// SPDX-License-Identifier: Apache-2.0
//! Who is there and who is connected to whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_core::config::PeerName;
use bgp_wire::{Destination, ExtendedCommunity, RouteDistinguisher, VpnPrefix};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_types::Family;

use crate::case::{Case, PREFIXES, Shape};
use crate::random::Random;

/// The AS of the first scripted neighbour, and mostly of the second.
const STRANGER_ASN: u32 = 64_701;

/// The speakers, then the scripted neighbours, and the links between all of them.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) links: Vec<[End; 2]>,
    /// What each link carries.
    pub(crate) plans: Vec<LinkPlan>,
}

/// What both ends of a link have configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkPlan {
    /// Whether routes of VPNs go over it.
    pub(crate) has_vpns: bool,
    /// Whether its ends say which of them they want (RFC 4684).
    pub(crate) has_targets: bool,
    /// Whether its ends take several routes for a destination (RFC 7911).
    pub(crate) takes_several: bool,
    /// Whether routes are kept beyond the restart time (RFC 9494): those of
    /// [`LONG_LIVED`].
    pub(crate) long_lived: bool,
}

/// The families with long-lived graceful restart, where it is configured.
pub(crate) const LONG_LIVED: [Family; 2] = [Family::IPV4_UNICAST, Family::VPNV4];

/// A speaker or a scripted neighbour.
#[derive(Debug)]
pub(crate) struct NodePlan {
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) is_speaker: bool,
}

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    /// Whether the neighbour is a client of this end.
    pub(crate) has_client: bool,
    /// How many routes for a destination it sends (RFC 7911), where the other end takes several.
    pub(crate) sends_several: Option<u8>,
}

impl Topology {
    pub(crate) fn of(case: &Case) -> Topology {
        let mut random = Random::new(case.seed ^ 0x0070_7061);
        let mut topology = Topology {
            nodes: Vec::new(),
            links: Vec::new(),
            plans: Vec::new(),
        };
        let count = case.speakers;
        match case.shape {
            Shape::Ring => {
                for number in 0..count {
                    topology.node(65_000 + number as u32, true);
                }
                for number in 0..count {
                    topology.link(number, (number + 1) % count, false);
                }
                if count > 3 {
                    let from = random.below(count as u64) as usize;
                    topology.link(from, (from + 2) % count, false);
                }
            }
            Shape::Reflection => {
                // 0 and 1 reflect; the one before the last is no client; the last one is outside.
                let (plain, outside) = (count - 2, count - 1);
                for number in 0..count {
                    topology.node(if number == outside { 65_100 } else { 65_000 }, true);
                }
                topology.link(0, 1, false);
                for client in 2..plain {
                    topology.link(0, client, true);
                    topology.link(1, client, true);
                }
                // Or three that reflect to each other: routes come back to who reflected them. What is
                // asked for could settle in several ways then, since who reflects a membership takes
                // the place of who had it (RFC 4684 §3.2 i).
                if random.below(3) == 0 && !case.more.vpn {
                    let among = |ends: &&mut [End; 2]| ends.iter().all(|end| end.node < 3);
                    let reflecting = topology.links.iter_mut().filter(among);
                    reflecting.flatten().for_each(|end| end.has_client = true);
                }
                topology.link(0, plain, false);
                topology.link(2, outside, false);
                topology.link(plain, outside, false);
            }
        }
        // Often both at one speaker, so that MED decides (RFC 4271 §9.1.2.2 c).
        let first = 2 + random.below(count as u64 - 2) as usize;
        let second = match random.below(2) {
            0 => first,
            _ => 2 + random.below(count as u64 - 2) as usize,
        };
        topology.node(STRANGER_ASN, false);
        topology.link(first, count, false);
        // Or in different ASes, so that it does not.
        topology.node(STRANGER_ASN + u32::from(random.below(3) == 0), false);
        topology.link(second, count + 1, false);
        topology.link(0, count + 1, false);
        // Their identifiers are higher than those of speakers, or lower.
        let third = 255 - 2 * random.below(2) as u8;
        for stranger in count..count + 2 {
            let last = stranger as u8 + 1;
            topology.nodes[stranger].router_id = Ipv4Addr::new(10, third, 0, last);
        }
        // Addresses are of links, or of nodes: then neighbours are sent the same, and share what is
        // made for them.
        if random.below(2) == 0 {
            for end in topology.links.iter_mut().flatten() {
                let node = end.node as u8;
                end.v4 = Ipv4Addr::new(172, 17, node, 1);
                end.v6 = Ipv6Addr::new(0xfd98, node.into(), 0, 0, 0, 0, 0, 1);
            }
        }
        topology.equip(case, &mut random);
        topology
    }

    /// Says what links carry.
    fn equip(&mut self, case: &Case, random: &mut Random) {
        for link in 0..self.links.len() {
            let ends = self.links[link];
            let is_speaker = |end: &End| self.nodes[end.node].is_speaker;
            let among_speakers = ends.iter().all(is_speaker);
            let takes_several = case.more.several && random.below(4) > 0;
            self.plans.push(LinkPlan {
                has_vpns: case.more.vpn,
                has_targets: case.more.vpn && among_speakers && random.below(4) > 0,
                takes_several,
                long_lived: case.more.long_lived_s.is_some() && random.below(4) > 0,
            });
            for (end, plan) in ends.iter().enumerate() {
                let most = 1 + random.below(3) as u8;
                // Scripted neighbours say what they are told to say.
                let sends = !is_speaker(plan) || random.below(3) > 0;
                self.links[link][end].sends_several = sends.then_some(most);
            }
        }
    }

    fn node(&mut self, asn: u32, is_speaker: bool) {
        let number = self.nodes.len() as u8;
        self.nodes.push(NodePlan {
            asn,
            router_id: Ipv4Addr::new(10, 255, 0, number + 1),
            is_speaker,
        });
    }

    fn link(&mut self, one: usize, other: usize, has_client: bool) {
        let number = self.links.len() as u8;
        let end = |node, last: u8, has_client| End {
            node,
            v4: Ipv4Addr::new(172, 16, number, last),
            v6: Ipv6Addr::new(0xfd99, number.into(), 0, 0, 0, 0, 0, last.into()),
            has_client,
            sends_several: None,
        };
        self.links
            .push([end(one, 1, has_client), end(other, 2, false)]);
    }

    /// How many speakers there are.
    pub(crate) fn speakers(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_speaker).count()
    }

    /// The links of a node, with its end.
    pub(crate) fn links_of(&self, node: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let links = self.links.iter().enumerate();
        links.flat_map(move |(link, ends)| {
            let mine = (0..2).filter(move |end| ends[*end].node == node);
            mine.map(move |end| (link, end))
        })
    }

    /// Whether routes of VPNs go over an external link as they are; elsewhere they do not go.
    pub(crate) fn keeps_next_hops(&self, link: usize) -> bool {
        !link.is_multiple_of(3)
    }

    /// Whether a scripted neighbour is at one of its ends.
    pub(crate) fn leads_outside(&self, link: usize) -> bool {
        let ends = self.links[link].iter();
        ends.into_iter().any(|end| !self.nodes[end.node].is_speaker)
    }

    pub(crate) fn is_internal(&self, link: usize) -> bool {
        let [one, other] = self.links[link];
        self.nodes[one.node].asn == self.nodes[other.node].asn
    }
}

/// The name a node has for its neighbour on a link.
pub(crate) fn name(link: usize) -> PeerName {
    PeerName::from(format!("link {link}"))
}

/// A prefix, of a number below 4.
pub(crate) fn prefix(number: u8) -> IpNet {
    if number.is_multiple_of(2) {
        Ipv4Net::new_assert(Ipv4Addr::new(10, number, 0, 0), 16).into()
    } else {
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, 0), 48).into()
    }
}

/// A destination: a prefix, or the same prefix in one of two VPNs.
pub(crate) fn destination(number: u8) -> Destination {
    match number.checked_sub(PREFIXES) {
        None => Destination::Ip(prefix(number)),
        Some(vpn) => Destination::Vpn(VpnPrefix {
            rd: RouteDistinguisher([0, 0, 0xfd, 0xe8, 0, 0, 0, vpn]),
            prefix: prefix(0),
        }),
    }
}

/// The route target of a number.
pub(crate) fn target(number: u8) -> ExtendedCommunity {
    ExtendedCommunity([0, 2, 0xfd, 0xe8, 0, 0, 0, number])
}

impl LinkPlan {
    /// The families of the session.
    pub(crate) fn families(&self) -> Vec<Family> {
        let mut families = vec![Family::IPV4_UNICAST, Family::IPV6_UNICAST];
        families.extend(self.has_vpns.then_some(Family::VPNV4));
        families.extend(self.has_targets.then_some(Family::ROUTE_TARGET));
        families
    }
}

impl End {
    /// Its address in the family of a destination.
    pub(crate) fn next_hop(&self, destination: &Destination) -> IpAddr {
        match destination.family() {
            Family::IPV6_UNICAST => self.v6.into(),
            _ => self.v4.into(),
        }
    }
}
