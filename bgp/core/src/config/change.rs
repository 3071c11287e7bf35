// SPDX-License-Identifier: Apache-2.0
//! What it takes to go from one configuration to the next.
//!
//! A session ends only where the protocol leaves no other way:
//!
//! | Changed | Effect |
//! |---|---|
//! | local AS, router id | every session of the instance: both are said in OPEN only |
//! | peer address, port, local address, interface, password set or unset | the session: another TCP connection |
//! | peer AS, hold time, families, graceful restart | the session: said in OPEN only |
//! | import policy, allowed own AS | routes asked for again (RFC 2918), or the session where the neighbour cannot |
//! | keepalive, connect retry, TTL, password replaced, who dials, next hop, listening, transit, installing routes, path limit | live |
//!
//! A neighbour added or removed concerns itself only.

use serde::Serialize;

use super::{InstanceConfig, PeerConfig, PeerName};

/// What a change costs, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Effect {
    /// Takes effect at once, nobody notices.
    Live,
    /// The neighbour is asked for its routes again.
    RouteRefresh,
    /// The session ends and is built up anew.
    SessionReset,
    /// A session appears.
    SessionAdded,
    /// A session is gone.
    SessionRemoved,
}

/// One difference between two configurations.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// The neighbour concerned; `None` for the instance.
    pub peer: Option<PeerName>,
    /// What differs, in words an operator knows.
    pub what: &'static str,
    /// What it costs.
    pub effect: Effect,
}

impl InstanceConfig {
    /// Lists what differs in `next`, and what each difference costs. Empty for equal configurations.
    pub fn changes_to(&self, next: &InstanceConfig) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut instance = |what, differs: bool, effect| {
            if differs {
                changes.push(Change {
                    peer: None,
                    what,
                    effect,
                });
            }
        };
        instance(
            "local AS",
            self.local_asn != next.local_asn,
            Effect::SessionReset,
        );
        instance(
            "router id",
            self.router_id != next.router_id,
            Effect::SessionReset,
        );
        instance("listening", self.listen != next.listen, Effect::Live);
        instance("transit", self.transit != next.transit, Effect::Live);
        instance(
            "installing routes",
            self.install_routes != next.install_routes,
            Effect::Live,
        );
        instance("path limit", self.max_paths != next.max_paths, Effect::Live);
        instance(
            "keeping rejected routes",
            self.keep_rejected != next.keep_rejected,
            Effect::Live,
        );
        for (name, peer) in &self.peers {
            match next.peers.get(name) {
                Some(other) => {
                    changes.extend(peer.changes_to(other).into_iter().map(|(what, effect)| {
                        Change {
                            peer: Some(name.clone()),
                            what,
                            effect,
                        }
                    }))
                }
                None => changes.push(Change {
                    peer: Some(name.clone()),
                    what: "peer",
                    effect: Effect::SessionRemoved,
                }),
            }
        }
        for name in next
            .peers
            .keys()
            .filter(|name| !self.peers.contains_key(*name))
        {
            changes.push(Change {
                peer: Some(name.clone()),
                what: "peer",
                effect: Effect::SessionAdded,
            });
        }
        changes
    }
}

impl PeerConfig {
    /// Lists what differs in `next` and what each difference costs.
    pub fn changes_to(&self, next: &PeerConfig) -> Vec<(&'static str, Effect)> {
        let families_differ = !self.families.keys().eq(next.families.keys());
        let import_differs = self.families.iter().any(|(family, config)| {
            next.families
                .get(family)
                .is_some_and(|other| other.import != config.import)
        });
        let next_hop_differs = self.families.iter().any(|(family, config)| {
            next.families
                .get(family)
                .is_some_and(|other| other.next_hop != config.next_hop)
        });
        let password_set = self.password.is_some() != next.password.is_some();
        let table = [
            (
                "address",
                self.address != next.address,
                Effect::SessionReset,
            ),
            ("port", self.port != next.port, Effect::SessionReset),
            (
                "local address",
                self.local_address != next.local_address,
                Effect::SessionReset,
            ),
            (
                "interface",
                self.interface != next.interface,
                Effect::SessionReset,
            ),
            ("password set or unset", password_set, Effect::SessionReset),
            ("peer AS", self.asn != next.asn, Effect::SessionReset),
            (
                "hold time",
                self.timers.hold_s() != next.timers.hold_s(),
                Effect::SessionReset,
            ),
            ("families", families_differ, Effect::SessionReset),
            (
                "graceful restart",
                self.graceful_restart != next.graceful_restart,
                Effect::SessionReset,
            ),
            ("import policy", import_differs, Effect::RouteRefresh),
            (
                "allowed own AS",
                self.allow_own_as != next.allow_own_as,
                Effect::RouteRefresh,
            ),
            (
                "password",
                !password_set && self.password != next.password,
                Effect::Live,
            ),
            (
                "keepalive time",
                self.timers.keepalive() != next.timers.keepalive(),
                Effect::Live,
            ),
            (
                "connect retry time",
                self.timers.connect_retry() != next.timers.connect_retry(),
                Effect::Live,
            ),
            ("TTL", self.ttl != next.ttl, Effect::Live),
            ("who dials", self.connect != next.connect, Effect::Live),
            ("next hop", next_hop_differs, Effect::Live),
        ];
        table
            .into_iter()
            .filter(|(_, differs, _)| *differs)
            .map(|(what, _, effect)| (what, effect))
            .collect()
    }
}
