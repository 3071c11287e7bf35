// SPDX-License-Identifier: Apache-2.0
//! What it takes to go from one configuration to the next.
//!
//! A session ends only where the protocol leaves no other way:
//!
//! | Changed | Effect |
//! |---|---|
//! | local AS, router id | every session of the instance: both are said in OPEN only |
//! | peer address, port, local address, interface, password set or unset | the session: another TCP connection |
//! | peer AS, local AS, hold time, families, graceful restart, long-lived stale time, role, add-path, extended messages | the session: said in OPEN only |
//! | import policies, blackholes, allowed own AS, first AS, own AS in received paths, cluster id, policies required | routes asked for again (RFC 2918), or the session where the neighbour cannot |
//! | MSS, capability fallback | the next session; this one goes on |
//! | everything else: timers, TTL and TTL security, password replaced, who dials, send hold time, limits, next hops, what is done to paths that are sent, listening, transit, installing routes | live |
//!
//! A neighbour added, removed, shut down or started again concerns itself only.

use serde::Serialize;

use super::{FamilyConfig, InstanceConfig, PeerConfig, PeerName};

/// What a change costs, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Effect {
    /// Takes effect at once, nobody notices.
    Live,
    /// Counts from the next session on; the one that is up goes on as it is.
    NextSession,
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
        instance(
            "as-path relax",
            self.as_path_relax != next.as_path_relax,
            Effect::Live,
        );
        instance(
            "weights by link bandwidth",
            self.weigh_by_link_bandwidth != next.weigh_by_link_bandwidth,
            Effect::Live,
        );
        instance(
            "policies required",
            self.ebgp_requires_policy != next.ebgp_requires_policy,
            Effect::RouteRefresh,
        );
        instance(
            "cluster id",
            self.cluster_id != next.cluster_id,
            Effect::RouteRefresh,
        );
        instance(
            "graceful shutdown",
            self.graceful_shutdown != next.graceful_shutdown,
            Effect::Live,
        );
        instance("drain", self.drained != next.drained, Effect::Live);
        instance(
            "policies",
            self.policies != next.policies,
            if self.import_policies_differ(next) {
                Effect::RouteRefresh
            } else {
                Effect::Live
            },
        );
        instance(
            "aggregates",
            self.aggregates != next.aggregates,
            Effect::Live,
        );
        changes.extend(self.range_changes_to(next));
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

    /// Whether a policy that a neighbour has for what comes in is not the same any more. The
    /// routes of its neighbours have to come again to meet it.
    fn import_policies_differ(&self, next: &InstanceConfig) -> bool {
        let peers = next.peers.values();
        let templates = next.ranges.values().map(|range| range.template());
        let mut families = peers
            .chain(templates)
            .flat_map(|peer| peer.families().values());
        families.any(|family| {
            let Some(name) = &family.import_policy else {
                return false;
            };
            let of = |config: &InstanceConfig| {
                let mut policies = config.policies.iter();
                policies.find(|policy| policy.name() == name).cloned()
            };
            of(self) != of(next)
        })
    }

    fn range_changes_to(&self, next: &InstanceConfig) -> Vec<Change> {
        let change = |name: &PeerName, what, effect| Change {
            peer: Some(name.clone()),
            what,
            effect,
        };
        let mut changes = Vec::new();
        for (name, range) in &self.ranges {
            let Some(other) = next.ranges.get(name) else {
                changes.push(change(name, "listen range", Effect::SessionRemoved));
                continue;
            };
            if range.prefix() != other.prefix() {
                changes.push(change(name, "prefix", Effect::SessionReset));
            }
            if range.max() != other.max() {
                changes.push(change(name, "maximum", Effect::Live));
            }
            if range.asns != other.asns {
                changes.push(change(name, "AS numbers", Effect::Live));
            }
            let of_neighbours = range.template().changes_to(other.template());
            changes.extend(
                of_neighbours
                    .into_iter()
                    .map(|(what, effect)| change(name, what, effect)),
            );
        }
        for name in next.ranges.keys() {
            if !self.ranges.contains_key(name) {
                changes.push(change(name, "listen range", Effect::SessionAdded));
            }
        }
        changes
    }
}

impl PeerConfig {
    /// Lists what differs in `next` and what each difference costs.
    pub fn changes_to(&self, next: &PeerConfig) -> Vec<(&'static str, Effect)> {
        let mut changes = self.transport_changes_to(next);
        changes.extend(self.session_changes_to(next));
        changes.extend(self.path_changes_to(next));
        changes.extend(self.family_changes_to(next));
        changes
            .into_iter()
            .filter(|(_, differs, _)| *differs)
            .map(|(what, _, effect)| (what, effect))
            .collect()
    }

    fn transport_changes_to(&self, next: &PeerConfig) -> Vec<(&'static str, bool, Effect)> {
        let password_set = self.password.is_some() != next.password.is_some();
        vec![
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
            (
                "password",
                !password_set && self.password != next.password,
                Effect::Live,
            ),
            ("BFD", self.bfd != next.bfd, Effect::Live),
            ("TTL", self.ttl != next.ttl, Effect::Live),
            (
                "TTL security",
                self.ttl_security != next.ttl_security,
                Effect::Live,
            ),
            ("MSS", self.tcp_mss != next.tcp_mss, Effect::NextSession),
            ("who dials", self.connect != next.connect, Effect::Live),
            (
                "fail-over on link loss",
                self.fast_failover != next.fast_failover,
                Effect::Live,
            ),
        ]
    }

    fn session_changes_to(&self, next: &PeerConfig) -> Vec<(&'static str, bool, Effect)> {
        let timers = (self.timers, next.timers);
        let (role, other_role) = (self.role, next.role);
        vec![
            (
                "shutdown",
                self.shutdown.is_none() && next.shutdown.is_some(),
                Effect::SessionRemoved,
            ),
            (
                "shutdown",
                self.shutdown.is_some() && next.shutdown.is_none(),
                Effect::SessionAdded,
            ),
            ("peer AS", self.asn != next.asn, Effect::SessionReset),
            (
                "local AS",
                self.local_as.map(|l| l.asn) != next.local_as.map(|l| l.asn),
                Effect::SessionReset,
            ),
            (
                "hold time",
                timers.0.hold_s() != timers.1.hold_s(),
                Effect::SessionReset,
            ),
            (
                "keepalive time",
                timers.0.keepalive() != timers.1.keepalive(),
                Effect::Live,
            ),
            (
                "connect retry time",
                timers.0.connect_retry() != timers.1.connect_retry(),
                Effect::Live,
            ),
            (
                "send hold time",
                self.send_hold != next.send_hold,
                Effect::Live,
            ),
            (
                "graceful restart",
                self.graceful_restart != next.graceful_restart,
                Effect::SessionReset,
            ),
            ("role", role != other_role, Effect::SessionReset),
            (
                "extended messages",
                self.extended_messages != next.extended_messages,
                Effect::SessionReset,
            ),
            (
                "capabilities",
                self.capabilities != next.capabilities,
                Effect::NextSession,
            ),
            (
                "collision with an established session",
                self.collision_when_established != next.collision_when_established,
                Effect::Live,
            ),
        ]
    }

    fn path_changes_to(&self, next: &PeerConfig) -> Vec<(&'static str, bool, Effect)> {
        let received = |config: &PeerConfig| config.local_as.map(|l| l.prepend_received);
        let sent = |config: &PeerConfig| config.local_as.map(|l| (l.replace, l.dual));
        vec![
            (
                "allowed own AS",
                self.allow_own_as != next.allow_own_as,
                Effect::RouteRefresh,
            ),
            (
                "first AS of paths",
                self.enforce_first_as != next.enforce_first_as,
                Effect::RouteRefresh,
            ),
            (
                "local AS in received paths",
                received(self) != received(next),
                Effect::RouteRefresh,
            ),
            ("real AS in paths", sent(self) != sent(next), Effect::Live),
            (
                "AS override",
                self.as_override != next.as_override,
                Effect::Live,
            ),
            (
                "private AS numbers",
                self.private_as != next.private_as,
                Effect::Live,
            ),
            (
                "route reflection",
                self.route_reflector_client != next.route_reflector_client,
                Effect::Live,
            ),
            (
                "graceful shutdown",
                self.graceful_shutdown != next.graceful_shutdown,
                Effect::Live,
            ),
        ]
    }

    fn family_changes_to(&self, next: &PeerConfig) -> Vec<(&'static str, bool, Effect)> {
        let families_differ = !self.families.keys().eq(next.families.keys());
        let any = |differs: &dyn Fn(&FamilyConfig, &FamilyConfig) -> bool| {
            self.families.iter().any(|(family, config)| {
                next.families
                    .get(family)
                    .is_some_and(|other| differs(config, other))
            })
        };
        let offer = |config: &FamilyConfig| {
            let add_path = config.add_path;
            (add_path.receive, add_path.send.is_some())
        };
        vec![
            ("families", families_differ, Effect::SessionReset),
            (
                "import policy",
                any(&|a, b| a.import != b.import || a.import_policy != b.import_policy),
                Effect::RouteRefresh,
            ),
            (
                "blackholes",
                any(&|a, b| a.blackhole != b.blackhole),
                Effect::RouteRefresh,
            ),
            (
                "export policy",
                any(&|a, b| a.export_policy != b.export_policy),
                Effect::Live,
            ),
            ("route limit", any(&|a, b| a.limit != b.limit), Effect::Live),
            (
                "limit of routes sent",
                any(&|a, b| a.limit_out != b.limit_out),
                Effect::Live,
            ),
            (
                "next hop",
                any(&|a, b| a.next_hop != b.next_hop || a.next_hop_mode != b.next_hop_mode),
                Effect::Live,
            ),
            (
                "add-path",
                any(&|a, b| offer(a) != offer(b)),
                Effect::SessionReset,
            ),
            (
                "paths sent",
                any(&|a, b| offer(a) == offer(b) && a.add_path != b.add_path),
                Effect::Live,
            ),
            (
                "long-lived stale time",
                self.graceful_restart.is_some() && any(&|a, b| a.long_lived != b.long_lived),
                Effect::SessionReset,
            ),
        ]
    }
}
