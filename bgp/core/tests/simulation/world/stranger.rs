// SPDX-License-Identifier: Apache-2.0
//! What scripted neighbours say, besides what the script has them say.

use bgp_wire::{Capability, Open, RefreshKind, RouteRefresh, frame};

use super::*;
use crate::node::say;
use crate::topology::destination;

impl World {
    /// What a scripted neighbour has to say, with End-of-RIB.
    pub(super) fn say_everything(&mut self, node: usize, link: usize) {
        let mut bytes = Vec::new();
        let families = self.topology.plans[link].families();
        for family in families.iter().copied() {
            self.say_family(node, link, family, &mut bytes);
        }
        for family in families {
            bgp_wire::end_of_rib(&mut bytes, family);
        }
        self.send_routes(node, link, &bytes);
    }

    /// What it has to say of a family again, between marks where those were agreed on (RFC 7313).
    pub(super) fn say_again(&mut self, node: usize, link: usize, family: Family) {
        let agreed = self.session(node, link).and_then(|s| s.peer.negotiated());
        let marks = agreed.is_some_and(|agreed| agreed.enhanced_refresh);
        let mut bytes = Vec::new();
        let mark = |kind, bytes: &mut Vec<u8>| {
            if marks {
                RouteRefresh { family, kind }.encode(bytes);
            }
        };
        mark(RefreshKind::Begin, &mut bytes);
        self.say_family(node, link, family, &mut bytes);
        mark(RefreshKind::End, &mut bytes);
        self.send_routes(node, link, &bytes);
    }

    fn say_family(&self, node: usize, link: usize, family: Family, bytes: &mut Vec<u8>) {
        let here = self.topology.links[link][self.end_of(node, link)];
        let asn = self.topology.nodes[node].asn;
        let Some(context) = self.context(node, link, family) else {
            return;
        };
        for ((number, id), said) in &self.standing[node].said {
            if destination(*number).family() == family {
                say(bytes, (&here, asn), (*number, *id), said, &context, &[]);
            }
        }
    }
}

/// An OPEN whose sender keeps nothing of IPv6 over a restart; any other message as it is.
pub(super) fn without_ipv6_restart(message: Vec<u8>) -> Vec<u8> {
    let Ok(Some(frame)) = frame::next(&message, frame::MAX_LEN) else {
        return message;
    };
    if frame.kind != MessageKind::Open {
        return message;
    }
    let mut open = Open::decode(frame.body).expect("speakers make no errors");
    for capability in &mut open.capabilities {
        if let Capability::GracefulRestart(restart) = capability {
            let families = &mut restart.families;
            families.retain(|family| family.family != Family::IPV6_UNICAST);
        }
    }
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    bytes
}
