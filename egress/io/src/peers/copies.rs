// SPDX-License-Identifier: Apache-2.0
//! Mappings of the data plane as gateways tell each other of them, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bpf_loader::{Mapping, PodNode, Said};
use egress_sync::mapping::{self, Endpoint, Key};
use egress_sync::name::Rule;

const ANYTHING: u8 = 1;
const FIN: u8 = 2;
const RST: u8 = 4;

/// A mapping for the wire. `own` are the addresses other nodes know this one by: the tunnel to a pod
/// of this node ends there, for all others. A pod the routing table leads to has the unspecified
/// address as its node: the table of whoever hears it leads there as well. `None` for what no peer
/// could use.
pub(super) fn to_wire(mapping: &Mapping, own: &[IpAddr]) -> Option<mapping::Mapping> {
    let is_ipv4 = mapping.pod.is_ipv4();
    let node = match mapping.node {
        PodNode::Tunnel(node) => node,
        PodNode::Native => anybody(mapping.pod).address,
        // The first of the family, as others know it; the other family if there is none.
        PodNode::Here => {
            let alike = own.iter().find(|address| address.is_ipv4() == is_ipv4);
            *alike.or(own.first())?
        }
    };
    let rule = Rule::new(mapping.rule)?;
    let mut told = mapping::Mapping::new(rule, key(mapping)?, end(mapping.egress), node).ok()?;
    told.state_out = said(mapping.said_out);
    told.state_in = said(mapping.said_back);
    told.idle_ms = u64::try_from(mapping.idle.as_millis()).unwrap_or(u64::MAX);
    Some(told)
}

/// The connection of a mapping. A socket that keeps its port whomever it sends to has the
/// unspecified address as the world's end.
pub(super) fn key(mapping: &Mapping) -> Option<Key> {
    let remote = mapping.remote.map_or(anybody(mapping.pod), end);
    Key::new(mapping.protocol, end(mapping.pod), remote).ok()
}

/// A mapping that another gateway told of. A pod whose node is this one is reached without tunnel.
pub(super) fn from_wire(told: &mapping::Mapping, own: &[IpAddr]) -> Mapping {
    Mapping {
        egress: socket(told.egress()),
        node: match told.node {
            node if node.is_unspecified() => PodNode::Native,
            node if own.contains(&node) => PodNode::Here,
            node => PodNode::Tunnel(node),
        },
        said_out: unsaid(told.state_out),
        said_back: unsaid(told.state_in),
        // A day is longer than any timeout that matters here.
        idle: Duration::from_millis(told.idle_ms.min(86_400_000)),
        ..from_key(told.rule, told.key())
    }
}

/// A mapping of which only the connection is known.
pub(super) fn from_key(rule: Rule, key: &Key) -> Mapping {
    let (pod, remote) = (socket(key.pod()), socket(key.remote()));
    Mapping {
        rule: rule.get(),
        protocol: key.protocol(),
        pod,
        remote: (!remote.ip().is_unspecified()).then_some(remote),
        egress: pod,
        node: PodNode::Here,
        said_out: Said::default(),
        said_back: Said::default(),
        idle: Duration::ZERO,
    }
}

fn anybody(pod: SocketAddr) -> Endpoint {
    let address = match pod.is_ipv4() {
        true => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        false => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Endpoint::new(address, 0)
}

fn end(socket: SocketAddr) -> Endpoint {
    Endpoint::new(socket.ip(), socket.port())
}

fn socket(end: Endpoint) -> SocketAddr {
    SocketAddr::new(end.address, end.port)
}

fn said(said: Said) -> u8 {
    (u8::from(said.anything) * ANYTHING) | (u8::from(said.fin) * FIN) | (u8::from(said.rst) * RST)
}

fn unsaid(bits: u8) -> Said {
    Said {
        anything: bits & ANYTHING != 0,
        fin: bits & FIN != 0,
        rst: bits & RST != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_the_same_at_the_other_gateway() {
        let own = ["10.0.0.11".parse().unwrap(), "fd00::11".parse().unwrap()];
        let others = ["10.0.0.12".parse().unwrap(), "fd00::12".parse().unwrap()];
        let here = Mapping {
            rule: 5000,
            protocol: 6,
            pod: "10.244.1.5:4000".parse().unwrap(),
            remote: Some("192.0.2.1:443".parse().unwrap()),
            egress: "198.51.100.1:4000".parse().unwrap(),
            node: PodNode::Tunnel("10.0.0.1".parse().unwrap()),
            said_out: Said {
                anything: true,
                fin: true,
                rst: false,
            },
            said_back: Said {
                anything: true,
                fin: false,
                rst: true,
            },
            idle: Duration::from_millis(1500),
        };
        let there = |mapping: &Mapping| from_wire(&to_wire(mapping, &own).unwrap(), &others);
        assert_eq!(there(&here), here);
        // A UDP socket that keeps its port.
        let socket = Mapping {
            protocol: 17,
            remote: None,
            ..here
        };
        assert_eq!(there(&socket), socket);
        // A pod of the first gateway is behind it for the other, and the other way round.
        let local = Mapping {
            node: PodNode::Here,
            ..here
        };
        assert_eq!(there(&local).node, PodNode::Tunnel(own[0]));
        let back = from_wire(&to_wire(&there(&local), &others).unwrap(), &own);
        assert_eq!(back, local);
        let v6 = Mapping {
            pod: "[fd00:244::5]:53".parse().unwrap(),
            remote: Some("[2001:db8::1]:53".parse().unwrap()),
            egress: "[2001:db8:9::1]:53".parse().unwrap(),
            ..local
        };
        assert_eq!(there(&v6).node, PodNode::Tunnel(own[1]));
        // What goes without a tunnel goes so from everywhere, whoever tells of it.
        for mapping in [here, v6] {
            let native = Mapping {
                node: PodNode::Native,
                ..mapping
            };
            assert_eq!(there(&native), native);
        }
        assert_eq!(to_wire(&local, &[]), None, "nobody could reach the pod");
    }
}
